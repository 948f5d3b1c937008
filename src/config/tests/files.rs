//! Finding, reading and including files.

use super::*;

/// Compares the report for the files in `scratch`.
#[track_caller]
fn check_files(scratch: &Scratch, expect: &str) {
    let output = scratch.output(scratch.load());
    assert_eq!(output.trim_end(), expect.trim_matches('\n').trim_end(), "\n--- output:\n{output}");
}

const INCLUDING: &[u8] = b"[keepalive]\ninclude = [\"d/*.toml\"]\n";

#[test]
fn included_files_are_read_in_the_order_of_their_names() {
    let scratch = Scratch::new();
    scratch.write("keepalive.toml", b"keepalive.include = [\"d/?.toml\", \"*.toml\", \"none/*\", \"d/b.toml\"]\n");
    scratch.write(
        "d/b.toml",
        b"[services.b]\ncommand = \"x\"\ncwd = \"data\"\nenv_file = \"b.env\"\ndepends_on = [\"a\"]\n",
    );
    scratch.write("d/a.toml", b"[services.a]\ncommand = \"x\"\n");
    scratch.write("d/.hidden.toml", b"?");
    scratch.write("d/long.toml", b"?");
    scratch.write("d/b.env", b"B=1");
    let plan = scratch.load().unwrap().plan;
    let names: Vec<&str> = plan.services.iter().map(|service| &*service.name).collect();
    assert_eq!(names, ["a", "b"]);
    let process = &plan.services[1].process;
    let directory = CString::new(scratch.0.join("d/data").into_os_string().into_encoded_bytes()).unwrap();
    assert_eq!(process.cwd, Some(Template::Fixed(directory)));
    assert_eq!(*process.env, [Template::Fixed(c"B=1".to_owned())]);
}

// README: "Relative paths are relative to the file they stand in."
#[test]
fn a_relative_termination_log_is_relative_to_the_file() {
    let scratch = Scratch::new();
    let path = scratch.write("d/main.toml", b"keepalive.termination_log = \"log\"\nservices.a.command = \"x\"\n");
    assert_eq!(scratch.load_with(&path, &[]).unwrap().plan.termination_log, scratch.0.join("d/log").into());
}

#[test]
fn errors_in_all_files_are_reported_together() {
    let scratch = Scratch::new();
    scratch.write("keepalive.toml", b"[keepalive]\ninclude = [\"d/*.toml\"]\n[services.web]\ncommand = 1\n");
    scratch.write("d/1.toml", b"[services.web]\ncommand = \"x\"\n");
    scratch
        .write("d/2.toml", b"[keepalive]\ninclude = [\"x\"]\n[services.a]\ncommand = \"x\"\ndepends_on = [\"wbe\"]\n");
    scratch.write("d/3.toml", b"[keepalive]\nsignals = {}\n");
    scratch.write("d/4.toml", b"[services.b]\ncommand = \"x\"\nenv_file = [\"x.env\", \"none.env\"]\n");
    scratch.write("d/x.env", b"A=1\nB\"=2\nC=${NONE}\n");
    check_files(
        &scratch,
        r#"
keepalive.toml:4:11: expected an array of strings or a string, found `1`
  4 | command = 1
    |           ^
  = such as `["node", "server.js"]` or `"node server.js"`

d/1.toml:1:11: service `web` is defined twice, first at keepalive.toml:3:11
  1 | [services.web]
    |           ^^^
  = rename one of them

d/2.toml:2:1: only the main file can have `include`
  2 | include = ["x"]
    | ^^^^^^^
  = move it there

d/2.toml:5:15: unknown service `wbe`
  5 | depends_on = ["wbe"]
    |               ^^^^^
  = did you mean `web`?

d/3.toml:1:2: only the main file can have `[keepalive]`
  1 | [keepalive]
    |  ^^^^^^^^^
  = move it there

d/4.toml:3:22: cannot read `d/none.env`: no such file or directory
  3 | env_file = ["x.env", "none.env"]
    |                      ^^^^^^^^^^
  = `required = false` if it may be missing, `when = "start"` if it is written later

d/x.env:2:1: expected `NAME=value`
  = comments start with `#`

d/x.env:3:3: the variable of a `${…}` is not set
  = set it, add a default, or write `$$` for a literal `$`

8 errors in the configuration
"#,
    );
}

#[test]
fn files_that_cannot_be_included_are_errors() {
    let scratch = Scratch::new();
    scratch.write(
        "keepalive.toml",
        b"[keepalive]\ninclude = [\"none.toml\", \"*/x.toml\", 3, \"etc\", \"\"]\n[services.a]\ncommand = \"x\"\n",
    );
    check_files(
        &scratch,
        r#"
keepalive.toml:2:12: cannot read `none.toml`: no such file or directory
  2 | include = ["none.toml", "*/x.toml", 3, "etc", ""]
    |            ^^^^^^^^^^^

keepalive.toml:2:25: `*` and `?` are only allowed in the file name
  2 | include = ["none.toml", "*/x.toml", 3, "etc", ""]
    |                         ^^^^^^^^^^
  = write one pattern for each directory

keepalive.toml:2:37: expected a path, found `3`
  2 | include = ["none.toml", "*/x.toml", 3, "etc", ""]
    |                                     ^

keepalive.toml:2:40: cannot read `etc`: is a directory
  2 | include = ["none.toml", "*/x.toml", 3, "etc", ""]
    |                                        ^^^^^

keepalive.toml:2:47: the path is empty
  2 | include = ["none.toml", "*/x.toml", 3, "etc", ""]
    |                                               ^^

5 errors in the configuration
"#,
    );
}

#[test]
fn a_file_that_is_not_utf_8_is_reported_with_the_location() {
    let scratch = Scratch::new();
    scratch.write("keepalive.toml", INCLUDING);
    scratch.write("d/a.toml", b"[services.a]\n# caf\xe9\ncommand = \"x\"\n");
    scratch.write("d/b.toml", b"\xff\xfe[\0s\0");
    check_files(
        &scratch,
        r#"
d/a.toml:2:6: not UTF-8: byte 18 is 0xe9
  2 | # caf�
    |      ^
  = save the file as UTF-8

d/b.toml:1:1: not UTF-8: byte 0 is 0xff
  1 | ��[�s�
    | ^
  = it looks like UTF-16; save it as UTF-8

2 errors in the configuration
"#,
    );
}

#[test]
fn a_file_that_is_too_large_is_an_error() {
    let scratch = Scratch::new();
    scratch.write("keepalive.toml", &vec![b'#'; 2 << 20]);
    check_files(
        &scratch,
        r#"
keepalive.toml: cannot be read: larger than 1 MiB

1 error in the configuration
"#,
    );
}

#[test]
fn a_directory_and_a_missing_file_are_errors() {
    let scratch = Scratch::new();
    check_files(&scratch, "keepalive.toml: cannot be read: no such file or directory\n\n1 error in the configuration");
    std::fs::create_dir(scratch.0.join("keepalive.toml")).unwrap();
    check_files(&scratch, "keepalive.toml: cannot be read: is a directory\n\n1 error in the configuration");
}

#[test]
fn check_reports_missing_programs_and_directories() {
    let scratch = Scratch::new();
    scratch.write("bin/tool", b"");
    scratch.write(
        "keepalive.toml",
        concat!(
            "[services.a]\ncommand = [\"none\"]\nenv = { PATH = \"/x:/y\" }\n",
            "[services.b]\ncommand = [\"./bin/tool\"]\n",
            "[services.c]\ncommand = [\"x\"]\ncwd = \"/none\"\n",
            "[services.d]\ncommand = [\"x-{instance}\"]\nlimits = { nofile = 4096, core = 1 }\n",
            "[services.e]\ncommand = \"bin/none\"\ncwd = \"bin/tool\"\n",
            "[services.f]\ncommand = \"sub/none\"\n",
        )
        .as_bytes(),
    );
    assert_eq!(scratch.load().map(|loaded| loaded.warnings), Ok(Vec::new()));
    let output = scratch.output(scratch.load_as(Purpose::Check, 0));
    assert_eq!(
        output.trim_end(),
        r#"
warning: keepalive.toml:11:21: the hard limit for `nofile` is 1024, and raising it requires CAP_SYS_RESOURCE
  11 | limits = { nofile = 4096, core = 1 }
     |                     ^^^^
  = lower it, or raise the container's limit

keepalive.toml:2:11: program `none` not found in PATH
  2 | command = ["none"]
    |           ^^^^^^^^
  = PATH is /x:/y

keepalive.toml:5:11: `./bin/tool` is not executable
  5 | command = ["./bin/tool"]
    |           ^^^^^^^^^^^^^^
  = chmod +x ./bin/tool

keepalive.toml:8:7: cannot use `/none` as a directory: no such file or directory
  8 | cwd = "/none"
    |       ^^^^^^^
  = create it, or correct `cwd`

keepalive.toml:14:7: `bin/tool` is not a directory
  14 | cwd = "bin/tool"
     |       ^^^^^^^^^^
  = create it, or correct `cwd`

keepalive.toml:16:11: program `sub/none` not found
  16 | command = "sub/none"
     |           ^^^^^^^^^^
  = the path is relative to `cwd`

5 errors in the configuration
"#
        .trim_matches('\n')
        .trim_end(),
        "\n--- output:\n{output}"
    );
}

#[test]
fn check_searches_for_programs_as_the_service_does() {
    let scratch = Scratch::new();
    let tool = scratch.write("bin/tool", b"");
    std::fs::set_permissions(tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = scratch.0.join("bin");
    let text = format!(
        "[services.a]\ncommand = \"tool\"\nenv.PATH = \"/x:{}\"\n[services.b]\ncommand = \"./tool\"\ncwd = \"bin\"\n",
        path.display()
    );
    scratch.write("keepalive.toml", text.as_bytes());
    assert_eq!(scratch.load_as(Purpose::Check, 0).map(|loaded| loaded.warnings), Ok(Vec::new()));
}

#[test]
fn the_first_existing_configuration_file_is_used() {
    let scratch = Scratch::new();
    let find = |variables: &[(OsString, OsString)], explicit: Option<&Path>| {
        scratch.with_environment(Purpose::Run, 0, variables, |environment| find(explicit, environment))
    };
    let named = [("KEEPALIVE_CONFIG".into(), "named.toml".into())];
    assert_eq!(find(&[], None), Err(NotFound));
    scratch.write("etc/keepalive.toml", b"");
    assert_eq!(find(&[], None), Ok(scratch.0.join("etc/keepalive.toml")));
    scratch.write("etc/keepalive/keepalive.toml", b"");
    assert_eq!(find(&[], None), Ok(scratch.0.join("etc/keepalive/keepalive.toml")));
    scratch.write("keepalive.toml", b"");
    assert_eq!(find(&[], None), Ok(PathBuf::from("keepalive.toml")));
    assert_eq!(find(&named, None), Ok(PathBuf::from("named.toml")));
    assert_eq!(find(&named, Some(Path::new("given.toml"))), Ok(PathBuf::from("given.toml")));
    assert_eq!(find(&[("KEEPALIVE_CONFIG".into(), "".into())], None), Ok(PathBuf::from("keepalive.toml")));
}

// execve(2), ENOENT: "The file pathname or a script or ELF interpreter does not exist."
#[test]
fn check_reports_a_missing_interpreter_of_a_script() {
    let scratch = Scratch::new();
    for (name, line) in [("a", "#! /none/bash -e\n"), ("b", "#!/bin/sh\r\n"), ("c", "#!/bin/sh -e\n"), ("d", "#!\n")] {
        let path = scratch.write(name, line.as_bytes());
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let services = ["a", "b", "c", "d"].map(|name| format!("services.{name}.command = \"./{name}\"\n"));
    scratch.write("keepalive.toml", services.concat().as_bytes());
    let output = scratch.output(scratch.load_as(Purpose::Check, 0));
    let expected = r#"
keepalive.toml:1:22: `./a` needs the interpreter `/none/bash`, which does not exist
  1 | services.a.command = "./a"
    |                      ^^^^^
  = install it, or correct the first line of the script

keepalive.toml:2:22: `./b` needs the interpreter `/bin/sh\r`, which does not exist
  2 | services.b.command = "./b"
    |                      ^^^^^
  = its first line ends with CR LF: use LF

2 errors in the configuration
"#;
    assert_eq!(output.trim_end(), expected.trim());
}

// env(1): "run a program in a modified environment".
#[test]
fn check_warns_of_what_env_will_not_find() {
    const MISSING: &str = "will fail: program `nope` not found in PATH";
    let scratch = Scratch::new();
    let check = |command: &str, expect: &str, hint: &str| {
        let config = format!("[services.a]\ncommand = {command:?}\nenv = {{ PATH = \"/none:/bin\" }}\n");
        scratch.write("keepalive.toml", config.as_bytes());
        let loaded = scratch.load_as(Purpose::Check, 0).unwrap();
        let found = loaded.warnings.iter().map(|warning| (&*warning.message, &*warning.hint));
        assert_eq!(
            found.collect::<Vec<_>>(),
            [(expect, hint)].get(usize::from(expect.is_empty())..).unwrap(),
            "{command}"
        );
    };
    let path = "PATH is /none:/bin";
    check("env nope x", &format!("`env` {MISSING}"), path);
    check("/usr/bin/env A=1 nope", &format!("`/usr/bin/env` {MISSING}"), path);
    for command in ["env sh", "env -u A nope", "env", "env nope{instance}"] {
        check(command, "", "");
    }
    for (line, message, hint) in [
        ("/usr/bin/env nope", MISSING, path),
        ("/usr/bin/env sh", "", ""),
        ("/usr/bin/env -i nope", "", ""),
        ("/usr/bin/env sh -e", "will fail: program `sh -e` not found in PATH", "write `#!/usr/bin/env -S sh -e`"),
        (" /usr/bin/env\t-S A=1 nope -e", MISSING, path),
        ("/usr/bin/env sh\r", "ends with CR LF", "use LF"),
        ("/bin/sh -e\r", "ends with CR LF", "use LF"),
    ] {
        let file = scratch.write("a", format!("#!{line}\n").as_bytes());
        std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let first = if hint == "use LF" { "the first line of " } else { "" };
        check("./a", &if message.is_empty() { String::new() } else { format!("{first}`./a` {message}") }, hint);
    }
}

// elf(5)
#[test]
fn check_warns_of_a_program_for_another_architecture() {
    let scratch = Scratch::new();
    let mut head = *b"\x7fELF\x02\x02\x01\0\0\0\0\0\0\0\0\0\0\x02\0\x16";
    for name in ["foreign", "own"] {
        let path = scratch.write(name, &head);
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        head = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\0\0";
    }
    for (name, content) in [("tool.py", &b"#! ./foreign\n"[..]), ("tool.exe", b"MZ\x90\0"), ("text", b"echo\n")] {
        let path = scratch.write(name, content);
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let services = ["foreign", "own", "tool.py", "tool.exe", "text"].into_iter().zip('a'..);
    let services: String =
        services.map(|(program, name)| format!("services.{name}.command = \"./{program}\"\n")).collect();
    scratch.write("keepalive.toml", services.as_bytes());
    let loaded = scratch.load_as(Purpose::Check, 0).unwrap();
    let found: Vec<&str> = loaded.warnings.iter().map(|warning| &*warning.message).collect();
    let foreign = "`./foreign` is a program for s390x, not for this machine";
    assert_eq!(found, [foreign, foreign, "`./tool.exe` is neither a program for this machine nor a script"]);
}

#[test]
fn errors_in_an_env_file_show_nothing_of_its_lines() {
    let lines = [
        "PASSWORD=Zx3${!k-hunter2",
        "PASSWORD=${hunter2}",
        "PASSWORD=\"hunter2\" hunter2",
        "PASSWORD='hunter2",
        "hunter2 hunter2",
        "hunter2/hunter2=1",
        "PASSWORD=hunter2\0",
        "KEEPALIVE_SERVICE=hunter2",
    ];
    for line in lines {
        let scratch = Scratch::new();
        scratch.write("keepalive.toml", b"[services.web]\ncommand = \"web\"\nenv_file = \"secret.env\"\n");
        scratch.write("secret.env", format!("A=1\n{line}\n").as_bytes());
        let report = scratch.load().unwrap_err();
        assert!(!format!("{report}{report:?}").contains("hunter2"), "{line}: {report:?}");
        assert_eq!((report.errors.len(), report.errors[0].line), (1, 2), "{line}");
        assert!(report.errors[0].file.ends_with("secret.env"), "{line}");
    }
}

// The variable may be a secret.
#[test]
fn files_are_named_as_they_were_written() {
    let scratch = Scratch::new();
    scratch.write("conf-80/web.toml", b"[services.web]\n");
    scratch.write("80.env", b"1=1\n");
    let input = "[keepalive]\ninclude = [\"inc-${PORT}.toml\", \"conf-${PORT}/*.toml\"]\n\
                 [services.api]\ncommand = \"x\"\nenv_file = [\"x${PORT}.env\", \"${PORT}.env\"]\n";
    scratch.write("keepalive.toml", input.as_bytes());
    let text = scratch.output(scratch.load_as(Purpose::Check, 0));
    for expect in
        ["cannot read `inc-${PORT}.toml`", "conf-${PORT}/web.toml:1:", "cannot read `x${PORT}.env`", "${PORT}.env:1:"]
    {
        assert!(text.contains(expect), "{expect}\n{text}");
    }
    assert!(!text.contains("80"), "{text}");
}
