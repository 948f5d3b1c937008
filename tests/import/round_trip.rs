//! What another program runs is what keepalive runs: the same processes with the same arguments, environment, user,
//! directory and umask.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::scratch::Scratch;
use crate::wait::wait_for;
use crate::{KEEPALIVE, import, skip, text};

/// Writes what it finds to the file `$DUMP/NAME`; the first argument is the name.
const REPORT: &str = r#"#!/bin/sh
{
    tr '\0' '\n' </proc/$$/cmdline
    echo "-- environment"
    tr '\0' '\n' </proc/$$/environ | sort
    echo "-- process"
    pwd -P
    id
    umask
} >"$DUMP/$1.new"
mv "$DUMP/$1.new" "$DUMP/$1"
exec sleep 1000
"#;

/// A manager of processes, which is stopped when dropped.
struct Manager(Child);

impl Manager {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        drop(Command::new("kill").arg(self.0.id().to_string()).status());
        drop(self.0.wait());
    }
}

/// What `count` processes of the manager have reported, by their names.
fn reports(scratch: &Scratch, name: &str, count: usize, command: &mut Command) -> Vec<(String, String)> {
    let directory = scratch.path().join(name);
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
    let manager = Manager::start(command.env("DUMP", &directory));
    let finished = || {
        let names = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !name.ends_with(".new")).collect::<Vec<_>>()
    };
    let all = || (finished().len() == count).then_some(());
    wait_for(|| format!("{count} reports of {name}, not only {:?}", finished()), all);
    drop(manager);
    let mut names = finished();
    names.sort();
    names
        .into_iter()
        .map(|name| (name.clone(), comparable(&fs::read_to_string(directory.join(&name)).unwrap())))
        .collect()
}

/// Without the variables that only one of the managers sets.
fn comparable(report: &str) -> String {
    const DIFFERENT: [&str; 7] = ["SUPERVISOR_", "KEEPALIVE_", "HOME=", "USER=", "LOGNAME=", "DUMP=", "PWD="];
    let lines = report.lines().filter(|line| !DIFFERENT.iter().any(|name| line.starts_with(name)));
    lines.map(|line| format!("{line}\n")).collect()
}

/// Imports `source` and runs the result.
#[track_caller]
fn keepalive(scratch: &Scratch, source: &str, directory: &Path) -> Command {
    let output = import(directory, &[source]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let config = scratch.write("keepalive.toml", &text(&output.stdout));
    let mut command = Command::new(KEEPALIVE);
    command.arg("-c").arg(config).current_dir(directory);
    command
}

fn report_program(scratch: &Scratch) -> String {
    let program = scratch.write("report", REPORT);
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(scratch.path(), Permissions::from_mode(0o755)).unwrap();
    program.display().to_string()
}

#[test]
fn what_supervisord_runs_is_what_keepalive_runs() {
    if !Path::new("/usr/bin/supervisord").exists() {
        return skip("supervisord is not installed (package supervisor)");
    }
    let scratch = Scratch::new();
    let report = report_program(&scratch);
    let log = scratch.path().join("supervisord.log").display().to_string();
    let pid = scratch.path().join("supervisord.pid").display().to_string();
    scratch.write(
        "supervisord.conf",
        &format!(
            "[supervisord]\nnodaemon=true\nuser=root\nlogfile={log}\npidfile={pid}\nenvironment=SHARED=\"all, of them\"\n\
             [include]\nfiles = conf.d/*.conf\n"
        ),
    );
    scratch.write(
        "conf.d/plain.conf",
        &format!(
            "[program:plain]\ncommand={report} plain 'one argument' \"two \\\" $HOME ${{X}} $$\" 100%% ; comment\n  \
             --more {{json: \"a;b\"}} 'x;y' \"\\$p \\` \\\\\" a\\ b\n"
        ),
    );
    scratch.write(
        "conf.d/user.conf",
        &format!(
            "[program:many]\nprocess_name=%(program_name)s_%(process_num)02d\nnumprocs=3\numask=077\ndirectory=/usr\n\
             command={report} %(program_name)s_%(process_num)02d %(here)s %(ENV_OUTER)s %(numprocs)d\nuser=www-data\n\
             environment=A=\"%(ENV_OUTER)s, b\",B=1,LANG='$x ${{y}}',SHARED=mine\nstdout_logfile=NONE\n\
             [program:numbered]\nnumprocs=2\nnumprocs_start=7\nprocess_name=n%(process_num)d\n\
             command={report} numbered_%(process_num)03d\n"
        ),
    );
    let mut supervisord = Command::new("/usr/bin/supervisord");
    supervisord.args(["-n", "-c", "supervisord.conf"]).current_dir(scratch.path()).env("OUTER", "outer").env("X", "x");
    let theirs = reports(&scratch, "supervisord", 6, &mut supervisord);
    let mut keepalive = keepalive(&scratch, "supervisord.conf", scratch.path());
    let ours = reports(&scratch, "keepalive", 6, keepalive.env("OUTER", "outer").env("X", "x"));
    assert_eq!(ours, theirs);
}

/// As [`REPORT`], of what is the same with PM2, which adds all of its settings to the environment.
const REPORT_IN_JAVASCRIPT: &str = r#"
const fs = require('fs');
// PM2 numbers single processes, too.
process.env.NODE_APP_INSTANCE ||= '0';
const names = ['A', 'B', 'REDIS', 'OUTER', 'NODE_APP_INSTANCE', 'PORT'];
const report = {
    arguments: process.argv.slice(2), options: process.execArgv, directory: process.cwd(), user: process.getuid(),
    group: process.getgid(), environment: Object.fromEntries(names.map((name) => [name, process.env[name]])),
};
const file = `${process.env.DUMP}/${process.argv[2]}-${process.env.NODE_APP_INSTANCE}`;
fs.writeFileSync(`${file}.new`, JSON.stringify(report, null, 1));
fs.renameSync(`${file}.new`, file);
setInterval(() => {}, 1000);
"#;

#[test]
fn what_pm2_runs_is_what_keepalive_runs() {
    if !Command::new("pm2-runtime").arg("--version").output().is_ok_and(|output| output.status.success()) {
        return skip("pm2 is not installed (npm install --global pm2)");
    }
    let scratch = Scratch::new();
    report_program(&scratch);
    scratch.write("report.js", REPORT_IN_JAVASCRIPT);
    let directory = scratch.path().display().to_string();
    scratch.write(
        "ecosystem.config.js",
        &format!(
            "module.exports = {{ apps: [\n\
             {{ name: 'plain', script: 'report.js', args: ['plain', 'a b', '$HOME ${{X}} $$'], node_args: '--no-warnings --stack-size=900',\n\
             env: {{ A: 1, B: '${{x}} $y', REDIS: process.env.REDIS || 'here' }} }},\n\
             {{ name: 'many', script: './report.js', cwd: '{directory}', args: \"many --name 'x y'\", instances: 3, exec_mode: 'fork',\n\
             env: {{ PORT: 3000, A: process.env.OUTER }}, increment_var: 'PORT' }},\n\
             {{ name: 'user', script: '{directory}/report.js', args: 'user', cwd: '/usr', uid: 'www-data', gid: 'www-data' }},\n] }};\n"
        ),
    );
    let mut pm2 = Command::new("pm2-runtime");
    pm2.args(["start", "ecosystem.config.js"]).current_dir(scratch.path()).env("PM2_HOME", scratch.path().join("pm2"));
    let theirs = reports(&scratch, "by-pm2", 5, pm2.env("OUTER", "outer"));
    let mut keepalive = keepalive(&scratch, "ecosystem.config.js", scratch.path());
    let ours = reports(&scratch, "by-keepalive", 5, keepalive.env("OUTER", "outer"));
    assert_eq!(ours, theirs);
}
