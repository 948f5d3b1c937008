//! `keepalive top`: a table of instances that is kept up to date, the busiest first.

use std::cmp::Reverse;
use std::fmt::Display;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use serde_json::{Map, Value};

use super::client::{Client, CommandError, CommandResult, STATUS_PATH};
use super::format;
use super::http::{Document, PendingResponse, RequestError, Response};
use super::output::{Colour, Style, is_dumb, is_terminal, json_line, print, print_error};
use super::request::{EXIT_FAILURE, Form};
use super::signals::CaughtSignals;
use super::socket_paths::Environment;
use super::status::{Status, StatusEntry, list_mut, number, text};
use super::table::{OrDash, Side, Table, cut, shortened};
use crate::model::exit_code::OS_ERROR;
use crate::model::{Mono, Signal, milliseconds};
use crate::sys::termios::{self, CbreakMode, Size, size};
use crate::sys::{self, Poller, signals};

/// The time between two requests for the status.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// The size of a terminal that does not know its size.
const DEFAULT_SIZE: Size = Size { columns: 80, rows: 24 };
/// Enters the alternate screen and hides the cursor; and back.
const ENTER_SCREEN: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE_SCREEN: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const END_OF_LINE: &str = "\x1b[K";
const END_OF_SCREEN: &str = "\x1b[J";
const CTRL_D: u8 = 4;
/// The signals that end the command.
const QUIT_SIGNALS: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];
/// SIGTSTP restores the terminal while the command is suspended; after the others the screen is drawn again.
const OTHER_SIGNALS: [Signal; 3] = [Signal::TSTP, Signal::CONT, Signal::WINCH];
// Tokens of the poller.
const SIGNALS: u64 = 0;
const KEYS: u64 = 1;
const ANSWER: u64 = 2;

/// Keeps the table up to date on a terminal; elsewhere prints it once.
pub(super) fn run(client: &Client, environment: &Environment<'_>) -> CommandResult {
    if client.form == Form::Json || !is_terminal() || is_dumb(environment.variable) {
        once(client)
    } else {
        live(client)
    }
}

/// The status at a moment.
#[derive(Debug)]
struct Sample {
    at: Mono,
    status: Status,
    /// By instance and main process: CPU time of the process and all below it, in milliseconds.
    cpu_ms: Map<String, Value>,
}

impl Sample {
    fn new(at: Mono, status: Status) -> Self {
        let mut cpu_ms = Map::new();
        for instance in status.instances() {
            if let Some(pid) = instance.pid {
                cpu_ms.insert(process_key(&instance.id, pid), instance.cpu_ms.into());
            }
        }
        Self { at, status, cpu_ms }
    }

    /// Requests the status. `None`: the request was refused, and that has been printed.
    fn take(client: &Client) -> Result<Option<(Document, Self)>, CommandError> {
        let Some(document) = client.status()? else { return Ok(None) };
        let status = document.read()?;
        Ok(Some((document, Self::new(sys::now(), status))))
    }

    /// The share of a processor that the instance `id` has used since `before`, in thousandths. After a restart: since then.
    fn cpu_share(&self, before: &Self, id: &str, pid: Option<u64>, cpu_ms: Option<u64>) -> Option<u64> {
        let cpu_ms_before = before.cpu_ms.get(&process_key(id, pid?)).and_then(Value::as_u64).unwrap_or(0);
        let cpu_ms = cpu_ms?.saturating_sub(cpu_ms_before);
        let elapsed = milliseconds(self.at.since(before.at));
        cpu_ms.checked_mul(1000)?.checked_div(elapsed)
    }
}

/// Identifies a run of an instance by its process.
fn process_key(id: &str, pid: u64) -> String {
    format!("{id} {pid}")
}

/// Takes two samples and prints the difference.
fn once(client: &Client) -> CommandResult {
    let Some((_, before)) = Sample::take(client)? else { return Ok(EXIT_FAILURE) };
    let mut poller = Poller::new().map_err(terminal_error)?;
    poller.wait(Some(REFRESH_INTERVAL)).map_err(terminal_error)?;
    let Some((document, sample)) = Sample::take(client)? else { return Ok(EXIT_FAILURE) };
    match client.form {
        Form::Json => {
            let mut status = document.read()?;
            add_cpu_percent(&mut status, &sample, &before);
            print(json_line(&status))?;
        }
        Form::Text | Form::Quiet => print(render_text(&sample, Some(&before), client.style))?,
    }
    Ok(0)
}

/// Adds `cpu_percent` to each instance in `status`, from which `sample` was made.
fn add_cpu_percent(status: &mut Value, sample: &Sample, before: &Sample) {
    let services = list_mut(status, "services").into_iter().flatten();
    for instance in services.filter_map(|service| list_mut(service, "instances")).flatten() {
        let (id, pid, cpu_ms) = (text(instance, "id"), number(instance, "pid"), number(instance, "cpu_ms"));
        let cpu_share = sample.cpu_share(before, id, pid, cpu_ms);
        let cpu_share = cpu_share.map(|cpu_share| f64::from(u32::try_from(cpu_share).unwrap_or(u32::MAX)) / 10.0);
        if let Some(members) = instance.as_object_mut() {
            members.insert("cpu_percent".to_owned(), cpu_share.into());
        }
    }
}

/// The table and its summary as text.
fn render_text(sample: &Sample, before: Option<&Sample>, style: Style) -> String {
    let cpu_share =
        |one: &StatusEntry| before.and_then(|before| sample.cpu_share(before, &one.id, one.pid, one.cpu_ms));
    let instances = sample.status.instances().into_iter();
    let mut instances: Vec<_> = instances.map(|instance| (cpu_share(instance), instance)).collect();
    instances.sort_by_key(|(cpu_share, instance)| Reverse((*cpu_share, instance.rss_bytes)));
    let mut table = Table::new(&[
        ("NAME", Side::Left),
        ("STATE", Side::Left),
        ("PID", Side::Right),
        ("CPU%", Side::Right),
        ("MEMORY", Side::Right),
        ("PROCS", Side::Right),
        ("RESTARTS", Side::Right),
        ("UPTIME", Side::Right),
    ]);
    for (cpu_share, instance) in &instances {
        let cells: [&dyn Display; 8] = [
            &instance.name(),
            &instance.state,
            &OrDash(instance.pid),
            &OrDash(cpu_share.map(format::percent)),
            &OrDash(instance.memory().map(format::bytes)),
            &OrDash(instance.processes),
            &OrDash(instance.restarts),
            &OrDash(instance.uptime_ms.map(format::age)),
        ];
        table.push(&cells, instance.colour(), &instance.note());
    }
    let table = table.render(style.columns, style.colour);
    let shares: u64 = instances.iter().filter_map(|(cpu_share, _)| *cpu_share).sum();
    let memory: u64 = instances.iter().filter_map(|(_, instance)| instance.rss_bytes).sum();
    let summary = sample.status.summary();
    let summary = shortened(&summary, style.columns);
    let cpu = OrDash(before.map(|_| format::percent(shares)));
    let usage = format!("CPU {cpu}%, memory {}", format::bytes(memory));
    format!("{summary}\n{}\n{table}", shortened(&usage, style.columns))
}

/// `text` as it fits on the screen, with the control sequences that replace what was there.
fn render_frame(text: &str, size: Size) -> String {
    let mut frame = String::from(HOME);
    let all = text.lines().count();
    let rows = if all > size.rows { size.rows.saturating_sub(1) } else { all };
    let more = (all > rows).then(|| format!("… {} more lines", all - rows));
    for (position, line) in text.lines().take(rows).chain(more.as_deref()).enumerate() {
        // Erased before the line is printed: after a full line the cursor is still on its last character.
        frame.push_str(if position > 0 { "\r\n" } else { "" });
        frame.push_str(END_OF_LINE);
        frame.push_str(&cut(line, size.columns));
    }
    // Likewise.
    if rows < size.rows && more.is_none() {
        frame.push_str("\r\n");
        frame.push_str(END_OF_SCREEN);
    }
    frame
}

/// Why a wait has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WakeReason {
    /// The time is over, or the terminal has another size.
    Draw,
    /// The response has begun to arrive.
    Response,
    Suspend,
    Quit,
}

fn live(client: &Client) -> CommandResult {
    let Some((_, mut sample)) = Sample::take(client)? else { return Ok(EXIT_FAILURE) };
    let mut before: Option<Sample> = None;
    // The state of the terminal that is restored later is only right while this job has the terminal.
    if termios::wait_for_foreground().is_err() {
        print_error("top: the terminal is in use by another job");
        return Ok(OS_ERROR);
    }
    let mut screen = Screen::open()?;
    screen.enter()?;
    let mut next = Refresh { due: sample.at + REFRESH_INTERVAL, since: None, pending: None };
    loop {
        screen.draw(&sample, before.as_ref(), next.unanswered_for(), client.style.colour)?;
        match screen.wait(&next).map_err(terminal_error)? {
            WakeReason::Quit => return Ok(0),
            WakeReason::Suspend => screen.suspend()?,
            WakeReason::Draw => {}
            WakeReason::Response => match next.response() {
                Ok(response) if response.status != 200 => {
                    drop(screen);
                    return client.print_refusal("status", response);
                }
                read => match read.and_then(Response::document) {
                    Ok(document) => {
                        let now = Sample::new(sys::now(), document.read()?);
                        next = Refresh { due: now.at + REFRESH_INTERVAL, since: None, pending: None };
                        before = Some(std::mem::replace(&mut sample, now));
                    }
                    // The response stopped arriving: the table stays as it is.
                    Err(RequestError::Timeout(..)) => {}
                    Err(failure) => return Err(failure.into()),
                },
            },
        }
        next.begin(client, &screen.poller)?;
    }
}

/// The next request for the status. Keys and signals are handled while it waits for the response.
#[derive(Debug)]
struct Refresh {
    due: Mono,
    /// When the request was sent first; `None`: not yet.
    since: Option<Mono>,
    pending: Option<PendingResponse>,
}

impl Refresh {
    /// Sends the request if it is due.
    fn begin(&mut self, client: &Client, poller: &Poller) -> Result<(), CommandError> {
        let now = sys::now();
        if now < self.due || self.pending.is_some() {
            return Ok(());
        }
        self.since.get_or_insert(now);
        match client.send("GET", STATUS_PATH, REFRESH_INTERVAL) {
            Ok(pending) => {
                poller.add(&pending, ANSWER).map_err(terminal_error)?;
                self.pending = Some(pending);
                Ok(())
            }
            // The listen queue of the server is full: tried again.
            Err(RequestError::Timeout(..)) => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Reads the head of the response, which has begun to arrive.
    fn response(&mut self) -> Result<Response, RequestError> {
        match self.pending.take() {
            Some(pending) => pending.response(),
            None => Err(RequestError::Timeout(PathBuf::new(), REFRESH_INTERVAL)),
        }
    }

    /// For how long there has been no response, if that is shown.
    fn unanswered_for(&self) -> Option<Duration> {
        self.since.map(|since| sys::now().since(since)).filter(|unanswered_for| *unanswered_for >= REFRESH_INTERVAL)
    }

    /// When to draw or to send at the latest.
    fn wake(&self) -> Mono {
        if self.since.is_some() { sys::now() + REFRESH_INTERVAL } else { self.due }
    }
}

fn terminal_error(errno: Errno) -> CommandError {
    CommandError::Output(io::Error::from(errno))
}

/// The terminal, which is restored when this is dropped.
#[derive(Debug)]
struct Screen {
    poller: Poller,
    signals: CaughtSignals,
    /// Keys, if stdin is a terminal.
    keys: Option<CbreakMode>,
    entered: bool,
}

impl Screen {
    fn open() -> io::Result<Self> {
        let poller = Poller::new()?;
        let caught = [QUIT_SIGNALS.as_slice(), &OTHER_SIGNALS].concat();
        let signals = CaughtSignals::catch(&caught)?;
        // No other signal ends or stops the command before the terminal is restored.
        signals::block_all_but(&caught);
        poller.add(&signals, SIGNALS)?;
        let keys = CbreakMode::enable().ok();
        if keys.is_some() {
            poller.add(io::stdin(), KEYS)?;
        }
        Ok(Self { poller, signals, keys, entered: false })
    }

    fn enter(&mut self) -> io::Result<()> {
        self.entered = true;
        print(ENTER_SCREEN)
    }

    fn leave(&mut self) {
        if self.entered {
            self.entered = false;
            // Fails if the terminal has gone.
            print(LEAVE_SCREEN).ok();
        }
    }

    fn draw(
        &self,
        sample: &Sample,
        before: Option<&Sample>,
        unanswered_for: Option<Duration>,
        colour: Colour,
    ) -> io::Result<()> {
        let size = size().unwrap_or(DEFAULT_SIZE);
        let style = Style { colour, columns: size.columns };
        let unanswered_for = unanswered_for
            .map(|unanswered_for| format!("no response for {}s; last state:\n", unanswered_for.as_secs()))
            .unwrap_or_default();
        print(render_frame(&format!("{unanswered_for}{}", render_text(sample, before, style)), size))
    }

    /// Ctrl-Z: restores the terminal until the command is continued in the foreground.
    fn suspend(&mut self) -> io::Result<()> {
        self.leave();
        let had_keys = self.keys.take().is_some();
        while signals::suspend_self() && termios::is_in_background() {}
        if had_keys {
            self.keys = CbreakMode::enable().ok();
        }
        self.enter()
    }

    fn wait(&mut self, next: &Refresh) -> Result<WakeReason, Errno> {
        let ready = self.poller.wait(Some(next.wake().since(sys::now())))?;
        let tokens: Vec<u64> = ready.iter().map(sys::poll::Ready::data).collect();
        let read_signals = if tokens.contains(&SIGNALS) { self.read_signals() } else { WakeReason::Draw };
        let woken =
            if read_signals == WakeReason::Draw && tokens.contains(&KEYS) { self.read_keys() } else { read_signals };
        Ok(if woken == WakeReason::Draw && tokens.contains(&ANSWER) { WakeReason::Response } else { woken })
    }

    fn read_signals(&mut self) -> WakeReason {
        let signals = self.signals.take();
        if QUIT_SIGNALS.into_iter().any(|signal| signals.contains(signal)) {
            WakeReason::Quit
        } else if signals.contains(Signal::TSTP) {
            WakeReason::Suspend
        } else {
            WakeReason::Draw
        }
    }

    fn read_keys(&self) -> WakeReason {
        let mut keys = [0; 64];
        let count = self.keys.as_ref().map_or(Ok(0), |single| single.read(&mut keys));
        match count {
            Ok(count @ 1..) => {
                let pressed = keys.get(..count).unwrap_or_default();
                if pressed.iter().any(|key| matches!(key, b'q' | b'Q' | &CTRL_D)) {
                    WakeReason::Quit
                } else {
                    WakeReason::Draw
                }
            }
            Err(Errno::EINTR) => WakeReason::Draw,
            // The terminal has gone.
            Ok(0) | Err(_) => WakeReason::Quit,
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
#[path = "top_tests.rs"]
mod tests;
