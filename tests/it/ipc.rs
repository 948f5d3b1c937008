//! The IPC channel of JSON lines: Node has it built in, others use `KEEPALIVE_IPC_FD`.

use std::process::Command;

use keepalive::model::Signal;

use crate::control::begin;
use crate::harness::{Place, in_every_place, skip, wait_until};
use crate::services::Set;

/// Whether the program is installed; skips otherwise.
pub(crate) fn have(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        skip(&format!("there is no {program}"));
    }
    found
}

/// A service set with this file `SCRIPT`.
fn set(script: &str, services: &str) -> Set {
    let set = Set::new(services);
    set.directory.file("script", script.as_bytes(), 0o644);
    set
}

/// Python helper functions for the IPC channel.
const PYTHON: &str = "
import json, os, socket, sys
channel = socket.socket(fileno=int(os.environ['KEEPALIVE_IPC_FD']))
lines = channel.makefile('r')
def say(message): channel.sendall((json.dumps(message) + '\\n').encode())
def hear(): return json.loads(next(lines))
def out(*words): os.write(1, (' '.join(map(str, words)) + '\\n').encode())
";

fn python(script: &str, services: &str) -> Set {
    set(&format!("{PYTHON}{script}"), services)
}

// `process.send('ready')` and `process.on('message')` with the messages of PM2.
#[test]
fn a_node_program_reports_ready_and_receives_the_announced_stop() {
    if !have("node") {
        return;
    }
    let set = set(
        r#"
        process.on('message', (message) => {
            console.log('received', JSON.stringify(message));
            if (message === 'shutdown') process.disconnect();
        });
        process.on('disconnect', () => console.log('disconnected'));
        process.on('SIGTERM', () => { console.log('SIGTERM'); process.exit(0) });
        setInterval(() => {}, 1000);
        process.once('SIGUSR2', () => process.send('ready'));
        console.log('channel', process.connected, 'NODE_CHANNEL_FD' in process.env, process.env.KEEPALIVE_IPC_FD);
        "#,
        r#"
        [services.a]
        command = ["node", "DIR/script"]
        ready = "ipc"
        ipc = true
        [services.b]
        command = ["PUPPET", "end-on-term", "0"]
        depends_on = ["a"]
        "#,
    );
    in_every_place(|place| {
        let mut running = set.start(place);
        running.expect("channel true false 3");
        running.send(Signal::USR2);
        assert!(running.line().starts_with("ready"));
        running.send(Signal::TERM);
        running.expect("signal 15");
        let mut lines = [running.line(), running.line(), running.line()];
        // The signal follows at once and may arrive first.
        lines.sort();
        assert_eq!(lines, ["SIGTERM", "disconnected", "received \"shutdown\""]);
        assert_eq!(running.end(), 0);
    });
}

#[test]
fn an_ipc_channel_does_not_keep_a_node_program_running() {
    if !have("node") {
        return;
    }
    let set = set(
        "process.send('ready'); process.send({type: 'axm:monitor', data: {}});",
        "[services.a]\ncommand = [\"node\", \"DIR/script\"]\nready = \"ipc\"\nipc = true\nrestart = \"on-failure\"\n",
    );
    let (code, _, stderr) = set.run(Place::Child).finish();
    assert_eq!(code, 0, "{stderr}");
    assert!(!stderr.contains(" ipc "), "{stderr}");
}

#[test]
fn a_node_program_that_sends_a_socket_is_not_blocked() {
    if !have("node") {
        return;
    }
    let set = set(
        r#"
        const server = require('net').createServer().listen(0, '127.0.0.1', () => {
            process.send({take: 'this'}, server);
            process.send({type: 'get', key: 'a'});
        });
        process.on('message', (message) => { console.log(JSON.stringify(message)); process.exit(0) });
        "#,
        "[services.a]\ncommand = [\"node\", \"DIR/script\"]\nipc = true\nrestart = \"on-failure\"\n",
    );
    let (code, stdout, stderr) = set.run(Place::Child).finish();
    assert_eq!((code, stdout.as_str()), (0, r#"{"type":"value","key":"a","value":null}"#), "{stderr}");
}

#[test]
fn a_stored_value_survives_twenty_crashes() {
    if !have("node") {
        return;
    }
    let set = set(
        r#"
        process.on('message', ({ value }) => {
            if (value === 20) { console.log('counted', value); process.exit(0) }
            process.send({ type: 'set', key: 'count', value: (value ?? 0) + 1 }, () => process.kill(process.pid, 'SIGKILL'));
        });
        process.send({ type: 'get', key: 'count' });
        "#,
        r#"
        [services.a]
        command = ["node", "DIR/script"]
        ipc = true
        min_uptime = "0s"
        restart = "on-failure"
        "#,
    );
    let (code, stdout, stderr) = set.run(Place::Child).finish();
    assert_eq!((code, stdout.as_str()), (0, "counted 20"), "{stderr}");
    assert_eq!(stderr.matches("running → starting (killed by SIGKILL").count(), 20, "{stderr}");
}

#[test]
fn workers_in_different_languages_exchange_messages() {
    if !have("python3") {
        return;
    }
    let set = python(
        r"
own = os.environ['KEEPALIVE_SERVICE'] + '.' + os.environ['KEEPALIVE_INSTANCE']
say('ready')
if own == 'asks.0':
    say({'type': 'send', 'to': 'echo', 'data': {'how': ['are', 'you', 1.5, None]}})
    for line in sorted([json.dumps(hear()), json.dumps(hear())]): out(line)
    say({'type': 'send', 'to': 'nobody.7', 'data': 1})
    out(json.dumps(hear()))
    say({'type': 'send', 'to': '*', 'data': 'end'})
else:
    while True:
        message = hear()
        if message['data'] == 'end': break
        say({'type': 'send', 'to': message['from'], 'data': [own, message['data']]})
",
        r#"
        [services.echo]
        command = ["python3", "DIR/script"]
        instances = 2
        ipc = true
        ready = "ipc"
        restart = "on-failure"
        [services.asks]
        command = ["python3", "DIR/script"]
        ipc = true
        restart = "on-failure"
        depends_on = ["echo"]
        "#,
    );
    in_every_place(|place| {
        let (code, stdout, stderr) = set.run(place).finish();
        let expect = r#"{"type": "message", "from": "echo.0", "data": ["echo.0", {"how": ["are", "you", 1.5, null]}]}
{"type": "message", "from": "echo.1", "data": ["echo.1", {"how": ["are", "you", 1.5, null]}]}
{"type": "error", "to": "nobody.7", "message": "no instance of this name has an ipc channel"}"#;
        assert_eq!((code, stdout.as_str()), (0, expect), "{stderr}");
    });
}

#[test]
fn invalid_messages_and_floods_affect_only_the_channel_of_their_sender() {
    if !have("python3") {
        return;
    }
    let set = python(
        r"
own = os.environ['KEEPALIVE_INSTANCE']
def until_closed():
    try:
        while channel.recv(4096): pass
    except ConnectionError: pass
if own == '0':
    channel.sendall(b'{]\n')
    until_closed()
elif own == '1':
    try: channel.sendall(b'x' * 200000)
    except (BrokenPipeError, ConnectionError): pass
    until_closed()
elif own == '2':
    # It sends requests and reads no answers: the answers are dropped, but its requests are handled.
    for number in range(20000): say({'type': 'get', 'key': 'k' * 100})
say({'type': 'set', 'key': own, 'value': 'there'}) if own > '1' else None
if own == '3':
    say({'type': 'get', 'key': '2'})
    while hear()['value'] != 'there': say({'type': 'get', 'key': '2'})
out('done', own)

import signal; signal.pause()
",
        "[services.a]\ncommand = [\"python3\", \"DIR/script\"]\ninstances = 4\nipc = true\n",
    );
    let mut running = set.start(Place::Child);
    let mut lines = [running.line(), running.line(), running.line(), running.line()];
    lines.sort();
    running.send(Signal::TERM);
    let (code, stderr) = (running.end(), running.stderr());
    assert_eq!((code, lines), (0, ["done 0", "done 1", "done 2", "done 3"].map(str::to_owned)), "{stderr}");
    for message in [
        "warning: a.0: ipc channel closed: invalid JSON",
        "warning: a.1: ipc channel closed: a line was longer than 64 KiB",
        "warning: a.2 does not read its ipc channel: messages to it are dropped",
    ] {
        assert_eq!(stderr.matches(message).count(), 1, "{message}: {stderr}");
    }
    assert!(!stderr.contains("a.3: ipc"), "{stderr}");
}

#[test]
fn a_service_without_ipc_has_no_channel_and_no_variable() {
    let set = Set::new("[services.a]\ncommand = [\"env\"]\nrestart = \"never\"\n");
    let mut run = set.run(Place::Child);
    run.command.env("NODE_CHANNEL_FD", "7").env("NODE_CHANNEL_SERIALIZATION_MODE", "json").env("KEEPALIVE_IPC_FD", "7");
    let (_, stdout, stderr) = run.finish();
    assert!(stdout.contains("KEEPALIVE_SERVICE=a") && !stdout.contains("CHANNEL"), "{stdout}");
    assert!(!stdout.contains("KEEPALIVE_IPC_FD"), "{stderr}");
}

#[test]
fn messages_dropped_for_a_slow_reader_are_counted() {
    if !have("python3") {
        return;
    }
    let set = python(
        r"
import signal
for number in range(5000): say({'type': 'get', 'key': 'k' * 200})
out('asked')
signal.pause()
",
        "[services.deaf]\ncommand = [\"python3\", \"DIR/script\"]\nipc = true\n[services.idle]\ncommand = [\"sleep\", \"1000\"]\n",
    );
    let (running, control) = begin(&set, Place::Child);
    running.expect("asked");
    let metrics = || control.get("/metrics").body;
    let sample = "keepalive_instance_ipc_messages_dropped_total{service=\"deaf\",instance=\"deaf.0\"} ";
    let lost = |metrics: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(sample));
        line.unwrap_or_else(|| panic!("{metrics}")).parse::<u64>().unwrap()
    };
    // Its last messages may still be on their way.
    let lost = wait_until("lost messages", || Some(lost(&metrics())).filter(|lost| *lost > 0));
    assert!(lost < 5000, "{lost}");
    assert!(!metrics().contains("dropped_total{service=\"idle\""), "who has no channel can lose nothing");
}

// Messages to a dead worker, or beyond its queue, do not affect the messages that it has sent.
#[test]
fn a_value_set_before_a_crash_is_kept_during_a_flood() {
    if !have("python3") {
        return;
    }
    let set = python(
        r"
if os.environ['KEEPALIVE_SERVICE'] == 'flood':
    messages = (json.dumps({'type': 'send', 'to': 'web', 'data': 1}) + '\n').encode() * 20
    while True: channel.sendall(messages)
say({'type': 'get', 'key': 'count'})
count = next(message['value'] for message in iter(hear, None) if message['type'] == 'value') or 0
if count == 15:
    out('counted', count, 'restarted', os.environ['KEEPALIVE_RESTARTS'])
    sys.exit(0)
say({'type': 'set', 'key': 'count', 'value': count + 1})
os.kill(os.getpid(), 9)
",
        r#"
        [services.web]
        command = ["python3", "DIR/script"]
        ipc = true
        min_uptime = "0s"
        restart = "on-failure"
        on_success = "shutdown"
        [services.flood]
        command = ["python3", "DIR/script"]
        ipc = true
        "#,
    );
    let (code, stdout, stderr) = set.run(Place::Child).finish();
    assert_eq!((code, stdout.as_str()), (0, "counted 15 restarted 15"), "{stderr}");
}
