//! The scripted child of the tests: `puppet VERB [ARGUMENT…]`.
//!
//! It reports on stdout in lines, so that tests need not guess. `ready PID` is the first line of every verb that keeps
//! running. It starts without the Rust runtime, so that it sees its attributes unchanged.
#![no_main]
#![expect(unsafe_code, reason = "a test program that forks and changes its credentials")]
#![expect(clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test program that fails loudly")]
#![expect(clippy::disallowed_methods, reason = "a test program, not a supervisor: it may sleep and read the clock")]

mod given;
mod hostile;
mod kernel;
mod output;
mod ready;
mod refuse;
mod shell;

use std::ffi::{CString, OsString};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use keepalive::model::Signal;
use keepalive::sys::{procfs, signals};

keepalive::entry!(run);

/// The exit code of a puppet that fails.
const BROKEN: u8 = 99;
/// The limit of every wait.
const DEADLINE: Duration = Duration::from_secs(60);

/// A pipe to a process that waits until this one is ready, or −1.
static READY_PIPE: AtomicI32 = AtomicI32::new(-1);

fn run(arguments: Vec<OsString>) -> u8 {
    let words: Vec<String> = arguments.into_iter().map(|word| word.into_string().expect("UTF-8")).collect();
    let words: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
    unblock_all();
    act(&words)
}

/// PID 1 is started with all signals blocked, for an init.
fn unblock_all() {
    if std::process::id() == 1 {
        let none: u64 = 0;
        // SAFETY: a set of 8 bytes. (That of libc omits some signals.)
        unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, 0, 8) };
    }
}

fn act(words: &[&str]) -> u8 {
    match words {
        // Exits with CODE.
        ["exit", code] => code.parse().expect("an exit code"),
        // Dies of SIGNAL.
        ["die-of", signal] => die_of(number(signal)),
        // Prints `signal N` for every signal that it receives.
        ["report-signals"] => report_signals(),
        // As report-signals, and exits with CODE on SIGTERM.
        ["end-on-term", code] => end_on_term(code.parse().expect("an exit code")),
        // Ignores these signals and waits until it is killed.
        ["ignore", signals @ ..] => ignore(signals),
        // Prints `line TEXT` for every line of stdin until end of file.
        ["echo"] => echo(),
        // Writes bytes: OUT TEXT, ERR TEXT, … and then runs the verb after THEN.
        ["put", rest @ ..] => output::put(rest),
        // Writes `line 00000001` to `line COUNT`, and then runs REST, if any.
        ["lines", count, rest @ ..] => output::lines(count.parse().expect("a count"), rest),
        // Prints its attributes: mask, dispositions, group, session, directory, descriptors.
        ["state"] => state(),
        // Prints the variables about descriptors, and the descriptors.
        ["given", ..] => given::given(),
        // Answers each connection to the listening socket FD with its own pid.
        ["serve", fd] => given::serve(fd),
        // Increments a counter in KEEPALIVE_STATE_FD, and kills itself until it reaches END.
        ["count", end] => given::count(end.parse().expect("a number")),
        // Creates N orphans and waits until only this process and PID 1 are left.
        ["orphans", count] => orphans(count.parse().expect("a count")),
        // Starts a daemon that runs REST (an orphan in its own session), and exits with CODE when the daemon runs.
        ["daemonise", code, rest @ ..] => daemonise(code.parse().expect("an exit code"), rest),
        // Starts REST in its process group, and runs report-signals itself, or the verb after AND.
        ["with-companion", rest @ ..] => with_companion(rest),
        // Joins the process group of a new idle child, and runs REST.
        ["leave-group", rest @ ..] => leave_group(rest),
        // On SIGUSR1 it stops its parent, leaves N zombies to it and reports that. On SIGUSR2 it stops its parent and
        // reports how many zombies are left.
        ["zombies", count] => zombies(count.parse().expect("a count")),
        // Starts REST in its own process group, in the same session, and waits until it is killed.
        ["with-stray", rest @ ..] => with_stray(rest),
        // Runs REST as another user.
        ["as-user", id, rest @ ..] => as_user(id.parse().expect("a user id"), rest),
        // Changes attributes and executes a program: block=N ignore=N close=FD open=FD null=FD … -- PROGRAM ARGUMENT…
        ["with", rest @ ..] => with(rest),
        // Refuses the system call with the number CALL with ERRNO, and executes a program.
        ["refuse", call, errno, "--", program @ ..] => refuse::refuse(call, errno, program),
        // Starts a program, prints `started PID`, and exits at the next line of stdin.
        ["parent", program @ ..] => parent(program),
        // Prints the results of the wait functions of sys.
        ["sys-wait"] => kernel::wait(),
        // Exits with the number of the next descriptor that is opened.
        ["sys-descriptor"] => kernel::next_descriptor(),
        // As report-signals, with every signal reset and read from a descriptor.
        ["sys-queue"] => kernel::queue(),
        // A shell with job control that runs one job on the terminal and reads commands from descriptor 3.
        ["shell", program @ ..] => shell::shell(program),
        // Runs REST on SIGUSR1.
        ["on-signal", rest @ ..] => ready::on_signal(rest),
        // Writes to descriptor FD (`%` is a newline): TEXT, TEXT, … and then runs the verb after THEN.
        ["write-to", fd, rest @ ..] => ready::write_to(fd, rest),
        // Creates FILE and runs REST.
        ["make", path, rest @ ..] => ready::make(path, rest),
        // Listens at ADDRESS and gives these answers.
        ["serve", address, answers @ ..] => ready::serve(address, answers),
        // When FILE exists: stops each process that is created, if it may.
        ["stop-next", file] => hostile::stop_next(file),
        // When FILE exists: so many processes daemonise again and again, and so many leave children.
        ["storm", file, count] => hostile::storm(file, count.parse().expect("a count")),
        // Panics as keepalive does; the reason also goes to FILE.
        ["panic", file] => {
            keepalive::logs::panic_hook::install(std::path::PathBuf::from(file).leak());
            panic!("on purpose");
        }
        // Panics as a release of keepalive does, with all signals blocked; the reason also goes to FILE.
        ["fault", file] => {
            keepalive::logs::panic_hook::install(std::path::PathBuf::from(file).leak());
            let _ = signals::block_all(signals::DispositionReset::All);
            kernel::fault()
        }
        _ => panic!("puppet: no such verb: {words:?}"),
    }
}

/// A line on stdout, after `NAME: ` where the environment has a WHO_SAYS.
fn say(line: &str) {
    let name = std::env::var("WHO_SAYS").map(|name| format!("{name}: ")).unwrap_or_default();
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(format!("{name}{line}\n").as_bytes()).expect("stdout");
    stdout.flush().expect("stdout");
}

fn say_ready() {
    say(&format!("ready {}", std::process::id()));
    let ready_pipe = READY_PIPE.swap(-1, Ordering::Relaxed);
    if ready_pipe >= 0 {
        // SAFETY: a byte, for a descriptor that was left open for this.
        unsafe { libc::write(ready_pipe, b"x".as_ptr().cast(), 1) };
        // SAFETY: as above; nothing else uses it any more.
        unsafe { libc::close(ready_pipe) };
    }
}

fn number(text: &str) -> i32 {
    text.parse().expect("a number")
}

fn pause() -> u8 {
    loop {
        // SAFETY: takes nothing.
        unsafe { libc::pause() };
    }
}

fn die_of(signal: i32) -> u8 {
    // The signal may be ignored from the start.
    // SAFETY: plain numbers.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    // SAFETY: plain numbers.
    unsafe { libc::kill(std::process::id().cast_signed(), signal) };
    pause()
}

fn next_signal() -> Signal {
    loop {
        if let Some(received) = signals::wait_for(None).expect("a signal") {
            return received.signal;
        }
    }
}

fn report_signals() -> u8 {
    let _ = signals::block_all(signals::DispositionReset::SigchldOnly);
    say_ready();
    loop {
        let signal = next_signal();
        // The exit of a companion is not reported.
        if signal != Signal::CHLD {
            say(&format!("signal {}", signal.number()));
        }
    }
}

fn end_on_term(code: u8) -> u8 {
    let _ = signals::block_all(signals::DispositionReset::SigchldOnly);
    say_ready();
    loop {
        let signal = next_signal();
        say(&format!("signal {}", signal.number()));
        if signal == Signal::TERM {
            return code;
        }
    }
}

fn ignore(numbers: &[&str]) -> u8 {
    numbers.iter().map(|text| number(text)).for_each(ignore_signal);
    say_ready();
    pause()
}

fn ignore_signal(number: i32) {
    // The kernel's struct sigaction with only the handler. (That of libc rejects some signals.)
    let action = [libc::SIG_IGN, 0, 0, 0, 0, 0, 0, 0];
    let none = std::ptr::null::<usize>();
    // SAFETY: the structure is at least as large as that of the kernel.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigaction, number, action.as_ptr(), none, 8) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn echo() -> u8 {
    say_ready();
    for line in std::io::stdin().lines() {
        say(&format!("line {}", line.expect("a line")));
    }
    0
}

fn state() -> u8 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    for line in status.lines().filter(|line| line.starts_with("SigBlk:") || line.starts_with("SigIgn:")) {
        say(&line.replace(":\t", " "));
    }
    // SAFETY: takes nothing.
    let group = unsafe { libc::getpgrp() };
    // SAFETY: takes a plain number.
    let session = unsafe { libc::getsid(0) };
    say(&format!("leads-group {}", group == std::process::id().cast_signed()));
    say(&format!("leads-session {}", session == std::process::id().cast_signed()));
    say(&format!("directory {}", std::env::current_dir().expect("a directory").display()));
    say(&format!("descriptors {}", open_descriptors()));
    // SAFETY: takes a plain number.
    say(&format!("foreground {}", unsafe { libc::tcgetpgrp(0) } == group));
    0
}

/// The inherited descriptors; those of the puppet are close-on-exec.
fn open_descriptors() -> String {
    let open: Vec<String> = (0..64).filter(was_given).map(|fd| fd.to_string()).collect();
    open.join(",")
}

fn was_given(fd: &i32) -> bool {
    // SAFETY: plain numbers.
    let flags = unsafe { libc::fcntl(*fd, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// fork(2): the child runs `child` and exits with its result.
fn fork(child: impl FnOnce() -> u8) -> i32 {
    // SAFETY: this program has one thread.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            let code = child();
            // SAFETY: takes a plain number.
            unsafe { libc::_exit(code.into()) }
        }
        pid => pid,
    }
}

fn wait_for_end(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is writable.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    status
}

fn orphans(count: usize) -> u8 {
    const BATCH: usize = 500;
    let mut made = 0;
    while made < count {
        let batch = BATCH.min(count - made);
        let middle = fork(|| {
            for _ in 0..batch {
                fork(|| 0);
            }
            0
        });
        wait_for_end(middle);
        made += batch;
    }
    say(&format!("made {made}"));
    let end = Instant::now() + DEADLINE;
    loop {
        let left = procfs::processes().count();
        if left == 2 {
            say("none left");
            return 0;
        }
        if Instant::now() > end {
            say(&format!("{left} left"));
            return BROKEN;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the daemon is ready or has exited.
fn daemonise(code: u8, rest: &[&str]) -> u8 {
    let (read_end, write_end) = nix::unistd::pipe().expect("a pipe");
    let middle = fork(|| {
        nix::unistd::setsid().expect("a session");
        fork(|| {
            READY_PIPE.store(write_end.as_raw_fd(), Ordering::Relaxed);
            act(rest)
        });
        0
    });
    drop(write_end);
    wait_for_end(middle);
    nix::unistd::read(&read_end, &mut [0]).expect("the pipe");
    code
}

/// REST AND REST: the second is for us.
fn with_companion(rest: &[&str]) -> u8 {
    let end = rest.iter().position(|word| *word == "AND").unwrap_or(rest.len());
    let (companion, ours) = rest.split_at(end);
    fork(|| act(companion));
    ours.split_first().map_or_else(report_signals, |(_, ours)| act(ours))
}

fn leave_group(rest: &[&str]) -> u8 {
    let leader = fork(pause);
    for who in [leader, 0] {
        // SAFETY: plain numbers.
        let result = unsafe { libc::setpgid(who, leader) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
    act(rest)
}

fn zombies(count: usize) -> u8 {
    let _ = signals::block_all(signals::DispositionReset::SigchldOnly);
    let parent = nix::unistd::getppid().as_raw();
    say_ready();
    loop {
        let signal = next_signal();
        if signal == Signal::USR1 {
            wait_for_end(fork(|| {
                for _ in 0..count {
                    fork(|| 0);
                }
                0
            }));
            say(&format!("made {count}"));
        } else if signal == Signal::USR2 {
            // SAFETY: plain numbers.
            unsafe { libc::kill(parent, libc::SIGSTOP) };
            let left = procfs::processes().filter(|stat| stat.ppid == parent && stat.is_dead()).count();
            say(&format!("left {left}"));
        }
    }
}

fn with_stray(rest: &[&str]) -> u8 {
    fork(|| {
        let own = nix::unistd::Pid::from_raw(0);
        nix::unistd::setpgid(own, own).expect("a group");
        act(rest)
    });
    report_signals()
}

fn as_user(id: u32, rest: &[&str]) -> u8 {
    nix::unistd::setgid(id.into()).expect("the right to change the group");
    nix::unistd::setuid(id.into()).expect("the right to change the user");
    act(rest)
}

fn with(words: &[&str]) -> u8 {
    let dashes = words.iter().position(|word| *word == "--").expect("--");
    let (changes, program) = words.split_at(dashes);
    // Descriptors of the test itself do not matter.
    // SAFETY: plain numbers; nothing here owns a descriptor.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    for change in changes {
        let (what, value) = change.split_once('=').expect("WHAT=NUMBER");
        change_one(what, number(value));
    }
    execute(program.split_first().expect("--").1)
}

fn change_one(what: &str, value: i32) {
    match what {
        "block" => {
            let set: u64 = 1 << (value - 1);
            // SAFETY: a set of 8 bytes. (That of libc rejects some signals.)
            unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, &raw const set, 0, 8) };
        }
        "ignore" => ignore_signal(value),
        "close" => {
            // SAFETY: nothing here owns the low descriptors.
            unsafe { libc::close(value) };
        }
        "open" => {
            // SAFETY: a copy of stdin; nothing here owns the target.
            unsafe { libc::dup2(0, value) };
        }
        "null" => {
            let null = std::fs::File::open("/dev/null").expect("/dev/null");
            // SAFETY: nothing here owns the target.
            unsafe { libc::dup2(null.as_raw_fd(), value) };
        }
        "subreaper" => {
            // SAFETY: plain numbers.
            unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, value, 0, 0, 0) };
        }
        _ => panic!("puppet: cannot change {what}"),
    }
}

fn execute(program: &[&str]) -> u8 {
    execute_after(|| {}, program)
}

/// Allocates no memory after `prepare`, which may make that impossible.
fn execute_after(prepare: impl FnOnce(), program: &[&str]) -> u8 {
    let words: Vec<CString> = program.iter().map(|word| CString::new(*word).expect("no NUL")).collect();
    let environment: Vec<CString> = std::env::vars_os()
        .map(|(name, value)| CString::new([name.as_bytes(), b"=", &value.into_vec()].concat()).expect("no NUL"))
        .collect();
    let first = words.first().expect("a program");
    let pointers = |strings: &[CString]| {
        strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
    };
    let (arguments, variables) = (pointers(&words), pointers(&environment));
    prepare();
    // SAFETY: the path and all strings are NUL-terminated, and both arrays end with a null pointer.
    unsafe { libc::execve(first.as_ptr(), arguments.as_ptr(), variables.as_ptr()) };
    panic!("puppet: cannot execute {program:?}: {}", std::io::Error::last_os_error());
}

fn parent(program: &[&str]) -> u8 {
    let pid = fork(|| execute(program));
    say(&format!("started {pid}"));
    std::io::stdin().read_line(&mut String::new()).expect("stdin");
    0
}
