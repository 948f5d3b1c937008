//! nginx and PHP-FPM, which can inherit sockets from an older process by `NGINX` and `FPM_SOCKETS`.

use super::load::Protocol;
use super::{Program, SOCKET, program, shown};

mod nginx {
    use super::{Program, Protocol, program, shown};

    /// nginx relies on this: a worker that blocks in accept(2) would serve none of its connections meanwhile.
    const SOCKET: &str = "{ address = \"tcp://ADDRESS\", nonblocking = true }";
    const CONFIG: &str = r#"
daemon off;
pid DIR/nginx.pid;
error_log stderr warn;
events {}
http {
    access_log off;
    client_body_temp_path DIR/body;
    proxy_temp_path DIR/proxy;
    fastcgi_temp_path DIR/fastcgi;
    uwsgi_temp_path DIR/uwsgi;
    scgi_temp_path DIR/scgi;
    server {
        listen ADDRESS;
        location / { return 200 "served\n"; }
    }
}
"#;

    fn nginx() -> Option<Program> {
        program(&["nginx"])?;
        let command = |file: &str| format!(r#"["nginx", "-e", "stderr", "-c", "DIR/{file}"]"#);
        Some(Program {
            command: command("nginx.conf"),
            socket: SOCKET,
            broken: command("broken.conf"),
            keys: "env = { NGINX = \"{fd.http};\" }\nstop_signal = \"SIGQUIT\"\nreload = { soak = \"500ms\" }",
            broken_keys: "env = { NGINX = \"{fd.http};\" }\nstop_signal = \"SIGQUIT\"\nreload = { soak = \"1h\" }",
            files: vec![("nginx.conf", CONFIG.to_owned()), ("broken.conf", CONFIG.replace("return", "retrun"))],
            protocol: Protocol::Http,
        })
    }

    shown!(nginx);
}

mod php_fpm {
    use super::{Program, Protocol, SOCKET, program, shown};

    const CONFIG: &str = "
[global]
daemonize = no
error_log = DIR/fpm.log
process_control_timeout = 5s
[web]
listen = ADDRESS
user = root
group = root
pm = static
pm.max_children = 2
";

    const KEYS: &str = "env = { FPM_SOCKETS = \"ADDRESS={fd.http}\" }\nstop_signal = \"SIGQUIT\"\nready = \"notify\"";

    /// It sends `READY=1` by itself, if it was built with systemd support.
    fn php_fpm() -> Option<Program> {
        let fpm = program(&["php-fpm", "php-fpm8.2", "php-fpm8.4", "php-fpm8.3"])?;
        let command = |file: &str| format!(r#"["{}", "-R", "-F", "-y", "DIR/{file}"]"#, fpm.display());
        Some(Program {
            command: command("fpm.conf"),
            socket: SOCKET,
            broken: command("missing.conf"),
            keys: KEYS,
            broken_keys: KEYS,
            files: vec![("fpm.conf", CONFIG.to_owned()), ("index.php", "<?php echo \"served\\n\";\n".to_owned())],
            protocol: Protocol::FastCgi,
        })
    }

    shown!(php_fpm);
}
