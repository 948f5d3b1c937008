//! argv → mode → exit code.
#![no_main]

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;

use keepalive::cli::drop_in::{self, Context};
use keepalive::cli::{self, Form, Invocation, Stream, json, show};
use keepalive::config::{self, Diagnostic, Environment, Files, LimitedFs, Loaded, Purpose, Report};
use keepalive::init::Compat;
use keepalive::model::exit_code::{INVALID_CONFIG, OS_ERROR, USAGE};
use keepalive::model::plan::TERMINATION_LOG;
use keepalive::model::visible;
use keepalive::sys::{StandardError, needed, process};
use keepalive::{control, init, logs, runtime, sys};

keepalive::entry!(run);

fn run(arguments: Vec<OsString>) -> u8 {
    logs::panic_hook::install(Path::new(TERMINATION_LOG));
    let context = Context { variable: &|name| std::env::var_os(name), id: process::id().get() };
    match drop_in::read(&arguments, &context).map_or_else(|| cli::read(&arguments), Ok) {
        Ok(Invocation::Init { options, command }) => {
            logs::messages::init(if options.compat == Compat::Native && options.verbosity > 0 {
                log::LevelFilter::Debug
            } else {
                log::LevelFilter::Warn
            });
            init::run(&options, command)
        }
        Ok(Invocation::Supervise { config, main }) => {
            let read: ReadConfig = Box::new(move |environment| {
                let path = config::find(config.as_deref(), environment).map_err(|missing| missing.to_string())?;
                Ok(match &main {
                    None => config::load(&path, environment),
                    Some(command) => config::load_with_main(&path, command, environment),
                })
            });
            supervise(INVALID_CONFIG, read)
        }
        Ok(Invocation::SuperviseOne(inline)) => {
            supervise(USAGE, Box::new(move |environment| Ok(config::load_inline(&inline, environment))))
        }
        Ok(Invocation::Check { config, form }) => check(config.as_deref(), form),
        Ok(Invocation::Print { stream: Stream::Stdout, text, code }) => print(&text).max(code),
        Ok(Invocation::Print { stream: Stream::Stderr, text, code }) => {
            print_error(&text);
            code
        }
        Ok(Invocation::Client(request)) => {
            let environment = control::Environment { variable: context.variable, user: process::effective_user() };
            control::perform(&request, &environment)
        }
        Ok(Invocation::Help(text)) => print(&text),
        Ok(Invocation::Version) => print(concat!("keepalive ", env!("CARGO_PKG_VERSION"), "\n")),
        Err(error) => {
            complain(&error.to_string());
            error.code()
        }
    }
}

/// What reading a configuration needs to know of the world, given to `read`.
fn with_environment<T>(purpose: Purpose, files: Files<'_>, read: impl FnOnce(&Environment<'_>) -> T) -> T {
    let variables: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    let bounded = LimitedFs::new(files);
    read(&Environment {
        files: &|query| bounded.query(query),
        variables: &variables,
        root: Path::new("/"),
        directory: &std::env::current_dir().unwrap_or_default(),
        cpus: &sys::cpus::usable,
        hard_limit: &process::hard_limit,
        unsafe_path: &sys::directory::unsafe_path,
        uid: process::effective_user(),
        gid: process::effective_group(),
        purpose,
    })
}

/// Reads a configuration, now and at each reload.
type ReadConfig = Box<dyn Fn(&Environment<'_>) -> Result<Result<Loaded, Report>, String>>;

/// `invalid`: the exit code if there is nothing to run.
fn supervise(invalid: u8, read: ReadConfig) -> u8 {
    logs::messages::init(log::LevelFilter::Info);
    if let Err(refused) = needed::check(&needed::BY_SUPERVISE_MODE) {
        return give_up(&refused.to_string(), OS_ERROR);
    }
    let loaded = with_environment(Purpose::Run, &config::query_fs, &read);
    match loaded.and_then(|loaded| loaded.map_err(|report| report.to_string())) {
        Ok(Loaded { plan, warnings }) => {
            complain(&in_words(&warnings));
            let load_config = move |files: Files<'_>| with_environment(Purpose::Run, files, &read);
            runtime::run(plan, process::environment(), Box::new(load_config))
        }
        Err(text) => give_up(&text, invalid),
    }
}

/// Says why nothing can be run.
fn give_up(reason: &str, code: u8) -> u8 {
    // There is nobody else left to print_error if this fails.
    logs::termination_log::write(Path::new(TERMINATION_LOG), reason).ok();
    complain(reason);
    code
}

fn in_words(warnings: &[Diagnostic]) -> String {
    let mut text = String::new();
    // A String takes every write.
    let _ = config::write_warnings(warnings, &mut text);
    text
}

fn check(path: Option<&Path>, form: Form) -> u8 {
    with_environment(Purpose::Check, &config::query_fs, |environment| {
        let path = match config::find(path, environment) {
            Ok(path) => path,
            Err(missing) => {
                print_error(&missing.to_string());
                return INVALID_CONFIG;
            }
        };
        match (config::load(&path, environment), form) {
            (Ok(Loaded { plan, warnings }), Form::Json) => print(&json::plan_json(&plan, &warnings)),
            (Ok(Loaded { plan, warnings }), Form::Text) => {
                print_error(&in_words(&warnings));
                print(&String::from_utf8_lossy(&visible::lines(show::plan_text(&path, &plan).as_bytes())))
            }
            (Err(report), form) => refuse(&report, form),
        }
    })
}

fn refuse(report: &Report, form: Form) -> u8 {
    match form {
        Form::Json => print(&json::report_json(report)),
        Form::Text => {
            print_error(&report.to_string());
            0
        }
    };
    INVALID_CONFIG
}

/// To stdout. That nobody reads it is no failure of ours, but a plan that is cut off must not look like a whole one.
fn print(text: &str) -> u8 {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            print_error(&format!("keepalive: cannot write to stdout: {}\n", config::describe(&error)));
            OS_ERROR
        }
        Ok(()) | Err(_) => 0,
    }
}

/// To stderr, all of it: where somebody asks for nothing else, a slow terminal is waited for.
fn print_error(text: &str) {
    // There is nobody left to print_error if this fails.
    io::stderr().write_all(&visible::lines(text.as_bytes())).ok();
}

/// To stderr, where a full pipe must not keep us from ending.
fn complain(text: &str) {
    if !text.is_empty() {
        StandardError.write_final_line(text.trim_end_matches('\n').as_bytes());
    }
}
