//! argv → mode → exit code. To be replaced: a hand-made reading of init mode's options, until there is a real one.
#![no_main]

use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

use keepalive::init::{self, Options};
use keepalive::model::{ExitStatus, Signal};
use keepalive::sys::StandardError;

keepalive::entry!(run);

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &log::Record<'_>) {
        let level = if record.level() == log::Level::Warn { "warning: " } else { "" };
        StandardError.write_line(format!("keepalive: {level}{}", record.args()).as_bytes());
    }
    fn flush(&self) {}
}

fn run(arguments: Vec<OsString>) -> u8 {
    log::set_logger(&Logger).ok();
    log::set_max_level(log::LevelFilter::Warn);
    let mut words = arguments.into_iter().skip(1);
    let Some(options) = read(&mut words) else { return 2 };
    if options.verbosity > 0 {
        log::set_max_level(log::LevelFilter::Debug);
    }
    init::run(&options, words.collect())
}

fn read(words: &mut impl Iterator<Item = OsString>) -> Option<Options> {
    let mut options = Options::default();
    loop {
        let word = words.next()?.into_string().ok()?;
        match word.as_str() {
            "--" => return Some(options),
            "-g" => options.group = true,
            "-w" => options.warn_on_reap = true,
            "-v" => options.verbosity += 1,
            _ => read_with_value(&mut options, &word, &words.next()?.into_string().ok()?)?,
        }
    }
}

fn read_with_value(options: &mut Options, option: &str, value: &str) -> Option<()> {
    match option {
        "-r" => {
            let (from, to) = value.split_once(':')?;
            let to = if to == "0" { None } else { Some(Signal::parse(to)?) };
            options.rewrite.push((Signal::parse(from)?, to));
        }
        "-e" => options.remap_exit.insert(ExitStatus::Code(value.parse().ok()?)),
        "-p" => options.parent_death_signal = Some(Signal::parse(value)?),
        "--grace" => options.grace = Some(duration(value)?),
        "--linger" => options.linger = Some(duration(value)?),
        _ => return None,
    }
    Some(())
}

fn duration(text: &str) -> Option<Duration> {
    if let Some(milliseconds) = text.strip_suffix("ms") {
        return u64::from_str(milliseconds).ok().map(Duration::from_millis);
    }
    text.strip_suffix('s')?.parse().ok().map(Duration::from_secs)
}
