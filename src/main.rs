//! argv → mode → exit code.
#![no_main]

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use keepalive::cli::drop_in::{self, Context};
use keepalive::cli::{self, Form, Invocation, Stream};
use keepalive::config::{self, Diagnostic, Environment, Files, LimitedFs, Loaded, Purpose, Report, json, show};
use keepalive::init::Compat;
use keepalive::model::errno;
use keepalive::model::exit_code::{INVALID_CONFIG, NOT_FOUND, OS_ERROR, USAGE};
use keepalive::model::plan::{Control, TERMINATION_LOG};
use keepalive::model::visible;
use keepalive::sys::{StandardError, needed, process};
use keepalive::{control, init, logs, runtime, sys};

keepalive::entry!(run);

fn run(arguments: Vec<OsString>) -> u8 {
    logs::panic_hook::install(Path::new(TERMINATION_LOG));
    let context = Context { variable: &|name| std::env::var_os(name), id: process::id().get() };
    match drop_in::read(&arguments, &context).map_or_else(|| cli::read(&arguments), Ok) {
        Ok(Invocation::Init { options, command }) => {
            let is_native = options.compat == Compat::Native;
            let is_verbose = is_native && options.verbosity > 0;
            let level = if is_verbose { log::LevelFilter::Debug } else { log::LevelFilter::Warn };
            logs::messages::init(level, is_native.then_some(Path::new(TERMINATION_LOG)));
            init::run(&options, command)
        }
        Ok(Invocation::Supervise { config, main }) => {
            logs::messages::init(log::LevelFilter::Info, None);
            let find = |environment: &Environment<'_>| config::find(config.as_deref(), environment);
            let path = match with_environment(Purpose::Run, &config::query_fs, find) {
                Ok(path) => path,
                Err(missing) => return give_up(&missing.to_string(), INVALID_CONFIG),
            };
            let file = canonical(&path);
            let read: ReadConfig = Box::new(move |environment| match &main {
                None => config::load(&path, environment),
                Some(command) => config::load_with_main(&path, command, environment),
            });
            supervise(INVALID_CONFIG, Some(file), read)
        }
        Ok(Invocation::SuperviseOne(inline)) => {
            logs::messages::init(log::LevelFilter::Info, None);
            supervise(USAGE, None, Box::new(move |environment| config::load_inline(&inline, environment)))
        }
        Ok(Invocation::Check { config, form }) => check(config.as_deref(), form),
        Ok(Invocation::Tools(arguments)) => execute_tools(&arguments),
        Ok(Invocation::Print { stream: Stream::Stdout, text, code }) => control::print_text(&text).max(code),
        Ok(Invocation::Print { stream: Stream::Stderr, text, code }) => {
            print_error(&text);
            code
        }
        Ok(Invocation::Client(request)) => {
            let environment = control::Environment {
                variable: context.variable,
                user: process::effective_user(),
                outer_user: &process::outer_user,
            };
            control::perform(&request, &environment, &find_set, config::read_env_file)
        }
        Ok(Invocation::Help(text)) => control::print_text(&text),
        Ok(Invocation::Version) => control::print_text(concat!("keepalive ", env!("CARGO_PKG_VERSION"), "\n")),
        Err(error) => {
            complain(&error.to_string());
            error.code()
        }
    }
}

/// Becomes keepalive-tools. Returns only if that is not possible. `arguments`: the command first.
fn execute_tools(arguments: &[OsString]) -> u8 {
    let reason = sys::execute_companion(c"keepalive-tools", arguments);
    complain(&format!(
        "keepalive: `keepalive {}` is done by the program `keepalive-tools`, which cannot be executed: {}\n  \
         put it beside keepalive or into a directory of PATH: `make build` leaves it in dist/",
        arguments.first().map(|word| word.to_string_lossy()).unwrap_or_default(),
        errno::words(reason)
    ));
    NOT_FOUND
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
        stdout_is_terminal: io::stdout().is_terminal(),
        log: None,
        uid: process::effective_user(),
        gid: process::effective_group(),
        purpose,
    })
}

/// Reads a configuration, now and at each reload.
type ReadConfig = Box<dyn Fn(&Environment<'_>) -> Result<Loaded, Report>>;

/// The path that identifies a configuration file, however it was named.
fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned())
}

/// What the keepalive runs that a client talks to: as [`control::FindSet`].
fn find_set(explicit: Option<&Path>) -> Result<control::ServiceSet, String> {
    with_environment(Purpose::Run, &config::query_fs, |environment| {
        let Ok(path) = config::find(explicit, environment) else {
            return Ok(control::ServiceSet { path: environment.directory.to_owned(), control: Control::Default });
        };
        let control = match config::control(&path, environment) {
            Err(reason) if explicit.is_some() => return Err(reason),
            control => control.unwrap_or_default(),
        };
        Ok(control::ServiceSet { path: canonical(&path), control })
    })
}

/// `invalid`: the exit code if there is nothing to run. `file`: the configuration file.
fn supervise(invalid: u8, file: Option<PathBuf>, read: ReadConfig) -> u8 {
    if let Err(refused) = needed::check(&needed::BY_SUPERVISE_MODE) {
        return give_up(&refused.to_string(), OS_ERROR);
    }
    let loaded = with_environment(Purpose::Run, &config::query_fs, &read);
    match loaded {
        Ok(Loaded { plan, warnings }) => {
            complain(&in_words(&warnings));
            let load_config = move |files: Files<'_>, log| {
                with_environment(Purpose::Run, files, |environment| {
                    read(&Environment { log: Some(log), ..*environment })
                })
            };
            runtime::run(plan, process::environment(), file, Box::new(load_config))
        }
        Err(report) => give_up(&report.to_string(), invalid),
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
            (Ok(Loaded { plan, warnings }), Form::Json) => control::print_text(&json::plan_json(&plan, &warnings)),
            (Ok(Loaded { plan, warnings }), Form::Text | Form::Quiet) => {
                print_error(&in_words(&warnings));
                control::print_text(&String::from_utf8_lossy(&visible::lines(show::plan_text(&path, &plan).as_bytes())))
            }
            (Err(report), form) => refuse(&report, form),
        }
    })
}

fn refuse(report: &Report, form: Form) -> u8 {
    match form {
        Form::Json => control::print_text(&json::report_json(report)),
        Form::Text | Form::Quiet => {
            print_error(&report.to_string());
            0
        }
    };
    INVALID_CONFIG
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
