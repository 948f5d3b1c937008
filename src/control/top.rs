//! A table that is kept up to date, the busiest first.

use std::cmp::Reverse;
use std::fmt::Display;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use serde_json::{Map, Value};

use super::client::{Client, Outcome, Stop, Surroundings};
use super::http::{Answer, Document, Failure, Pending};
use super::output::{Colour, Style, is_dumb, is_terminal, print, tell};
use super::signals::CaughtSignals;
use super::status::{Entry, Status, list_mut, number, text};
use super::table::{OrDash, Side, Table, cut, shortened};
use super::{Form, NO, human};
use crate::model::exit_code::OS_ERROR;
use crate::model::{Mono, Signal};
use crate::sys::termios::{self, CbreakMode, Size, size};
use crate::sys::{self, Poller, signals};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Where nobody knows the size of the terminal.
const SIZE: Size = Size { columns: 80, rows: 24 };
/// The alternate screen, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const END_OF_LINE: &str = "\x1b[K";
const END_OF_SCREEN: &str = "\x1b[J";
const CTRL_D: u8 = 4;
/// The signals that end the command.
const QUIT_SIGNALS: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];
/// SIGTSTP gives the terminal back while the command is suspended; after the two others the screen is drawn again.
const OTHER_SIGNALS: [Signal; 3] = [Signal::TSTP, Signal::CONT, Signal::WINCH];
/// Tokens of what is waited for.
const SIGNALS: u64 = 0;
const KEYS: u64 = 1;
const ANSWER: u64 = 2;

/// On a terminal until somebody ends it; elsewhere once.
pub(super) fn run(client: &Client, surroundings: &Surroundings<'_>) -> Outcome {
    if client.form == Form::Json || !is_terminal() || is_dumb(surroundings.variable) {
        once(client)
    } else {
        live(client)
    }
}

/// What ran at a moment.
#[derive(Debug)]
struct Sample {
    at: Mono,
    status: Status,
    /// By instance and main process: the time it has spent with all below it, in milliseconds.
    spent: Map<String, Value>,
}

impl Sample {
    fn new(at: Mono, status: Status) -> Self {
        let mut spent = Map::new();
        for instance in status.instances() {
            if let Some(pid) = instance.pid {
                spent.insert(process(&instance.id, pid), instance.cpu_ms.into());
            }
        }
        Self { at, status, spent }
    }

    /// What it was read from, too. `None`: the answer was no.
    fn take(client: &Client) -> Result<Option<(Document, Self)>, Stop> {
        let Some(document) = client.status()? else { return Ok(None) };
        let status = document.read()?;
        Ok(Some((document, Self::new(sys::now(), status))))
    }

    /// What share of a processor the instance `id` had since `before`, in thousandths. After a restart: since then.
    fn share(&self, before: &Self, id: &str, pid: Option<u64>, spent: Option<u64>) -> Option<u64> {
        let spent_before = before.spent.get(&process(id, pid?)).and_then(Value::as_u64).unwrap_or(0);
        let spent = spent?.saturating_sub(spent_before);
        let elapsed = u64::try_from(self.at.since(before.at).as_millis()).unwrap_or(u64::MAX);
        spent.checked_mul(1000)?.checked_div(elapsed)
    }
}

/// What tells a process of an instance from those before it.
fn process(id: &str, pid: u64) -> String {
    format!("{id} {pid}")
}

/// Two looks, and what they come to.
fn once(client: &Client) -> Outcome {
    let Some((_, before)) = Sample::take(client)? else { return Ok(NO) };
    let mut poller = Poller::new().map_err(broken)?;
    poller.wait(Some(INTERVAL)).map_err(broken)?;
    let Some((document, sample)) = Sample::take(client)? else { return Ok(NO) };
    match client.form {
        Form::Json => {
            let mut status = document.read()?;
            add_shares(&mut status, &sample, &before);
            print(format!("{status}\n"))?;
        }
        Form::Text => print(picture(&sample, Some(&before), client.style))?,
    }
    Ok(0)
}

/// Adds `cpu_percent` to each instance in `status`, which is what `sample` was read from.
fn add_shares(status: &mut Value, sample: &Sample, before: &Sample) {
    let services = list_mut(status, "services").into_iter().flatten();
    for instance in services.filter_map(|service| list_mut(service, "instances")).flatten() {
        let (id, pid, spent) = (text(instance, "id"), number(instance, "pid"), number(instance, "cpu_ms"));
        let share = sample.share(before, id, pid, spent);
        let share = share.map(|share| f64::from(u32::try_from(share).unwrap_or(u32::MAX)) / 10.0);
        if let Some(members) = instance.as_object_mut() {
            members.insert("cpu_percent".to_owned(), share.into());
        }
    }
}

/// All of it, for people.
fn picture(sample: &Sample, before: Option<&Sample>, style: Style) -> String {
    let share = |one: &Entry| before.and_then(|before| sample.share(before, &one.id, one.pid, one.cpu_ms));
    let mut instances: Vec<_> = sample.status.instances().map(|instance| (share(instance), instance)).collect();
    instances.sort_by_key(|(share, instance)| Reverse((*share, instance.rss_bytes)));
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
    for (share, instance) in &instances {
        let cells: [&dyn Display; 8] = [
            &instance.name(),
            &instance.state,
            &OrDash(instance.pid),
            &OrDash(share.map(human::percent)),
            &OrDash(instance.memory().map(human::bytes)),
            &OrDash(instance.processes),
            &OrDash(instance.restarts),
            &OrDash(instance.uptime_ms.map(human::age)),
        ];
        table.push(&cells, instance.colour(), &instance.note());
    }
    let table = table.render(style.columns, style.colour);
    let shares: u64 = instances.iter().filter_map(|(share, _)| *share).sum();
    let memory: u64 = instances.iter().filter_map(|(_, instance)| instance.rss_bytes).sum();
    let summary = sample.status.summary();
    let summary = shortened(&summary, style.columns);
    let cpu = OrDash(before.map(|_| human::percent(shares)));
    let usage = format!("CPU {cpu}%, memory {}", human::bytes(memory));
    format!("{summary}\n{}\n{table}", shortened(&usage, style.columns))
}

/// `picture` as it fits on the screen, in place of what was there.
fn frame(picture: &str, size: Size) -> String {
    let mut frame = String::from(HOME);
    let all = picture.lines().count();
    let room = if all > size.rows { size.rows.saturating_sub(1) } else { all };
    let more = (all > room).then(|| format!("… {} more lines", all - room));
    for (position, line) in picture.lines().take(room).chain(more.as_deref()).enumerate() {
        // Behind a full line the cursor still stands on its last character, which would go.
        frame.push_str(if position > 0 { "\r\n" } else { "" });
        frame.push_str(END_OF_LINE);
        frame.push_str(&cut(line, size.columns));
    }
    // The same holds here.
    if room < size.rows && more.is_none() {
        frame.push_str("\r\n");
        frame.push_str(END_OF_SCREEN);
    }
    frame
}

/// What ends a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    /// The time is over, or the terminal has another size.
    Draw,
    /// The answer has begun to come.
    Answer,
    Suspend,
    Quit,
}

fn live(client: &Client) -> Outcome {
    let Some((_, mut sample)) = Sample::take(client)? else { return Ok(NO) };
    let mut before: Option<Sample> = None;
    // What the terminal is like before is only known when it is ours.
    if termios::wait_for_foreground().is_err() {
        tell("top: the terminal is in use by another job");
        return Ok(OS_ERROR);
    }
    let mut screen = Screen::open()?;
    screen.enter()?;
    let mut next = Look { due: sample.at + INTERVAL, since: None, pending: None };
    loop {
        screen.draw(&sample, before.as_ref(), next.late(), client.style.colour)?;
        match screen.wait(&next).map_err(broken)? {
            Woken::Quit => return Ok(0),
            Woken::Suspend => screen.suspend()?,
            Woken::Draw => {}
            Woken::Answer => match next.answer() {
                Ok(answer) if answer.status != 200 => {
                    drop(screen);
                    return client.refused("status", answer);
                }
                read => match read.and_then(Answer::document) {
                    Ok(document) => {
                        let now = Sample::new(sys::now(), document.read()?);
                        next = Look { due: now.at + INTERVAL, since: None, pending: None };
                        before = Some(std::mem::replace(&mut sample, now));
                    }
                    // It stopped within the answer.
                    Err(Failure::Late(..)) => {}
                    Err(failure) => return Err(failure.into()),
                },
            },
        }
        next.begin(client, &screen.poller)?;
    }
}

/// The next look. While its answer is waited for, so are keys and signals: keepalive may be stopped or have no time.
#[derive(Debug)]
struct Look {
    due: Mono,
    /// When it was asked for, first.
    since: Option<Mono>,
    pending: Option<Pending>,
}

impl Look {
    /// Asks, if it is time and has not been done.
    fn begin(&mut self, client: &Client, poller: &Poller) -> Result<(), Stop> {
        let now = sys::now();
        if now < self.due || self.pending.is_some() {
            return Ok(());
        }
        self.since.get_or_insert(now);
        match client.ask_for_status(INTERVAL) {
            Ok(pending) => {
                poller.add(&pending, ANSWER).map_err(broken)?;
                self.pending = Some(pending);
                Ok(())
            }
            // So many wait for it that there is no room for us.
            Err(Failure::Late(..)) => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }

    /// The head of the answer, which has begun to come.
    fn answer(&mut self) -> Result<Answer, Failure> {
        match self.pending.take() {
            Some(pending) => pending.answer(),
            None => Err(Failure::Late(PathBuf::new(), INTERVAL)),
        }
    }

    /// For how long there has been no answer, if that is worth a word.
    fn late(&self) -> Option<Duration> {
        self.since.map(|since| sys::now().since(since)).filter(|late| *late >= INTERVAL)
    }

    /// When to do or to show something at the latest.
    fn wake(&self) -> Mono {
        if self.since.is_some() { sys::now() + INTERVAL } else { self.due }
    }
}

fn broken(errno: Errno) -> Stop {
    Stop::Unwritten(io::Error::from(errno))
}

/// The terminal; it is as before when this is dropped.
#[derive(Debug)]
struct Screen {
    poller: Poller,
    signals: CaughtSignals,
    /// Keys, where stdin is a terminal.
    keys: Option<CbreakMode>,
    entered: bool,
}

impl Screen {
    fn open() -> io::Result<Self> {
        let poller = Poller::new()?;
        let caught = [QUIT_SIGNALS.as_slice(), &OTHER_SIGNALS].concat();
        let signals = CaughtSignals::catch(&caught)?;
        // No other signal ends or stops the command before the terminal is as it was.
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
        print(ENTER)
    }

    fn leave(&mut self) {
        if self.entered {
            self.entered = false;
            // A terminal that has gone needs nothing.
            print(LEAVE).ok();
        }
    }

    fn draw(&self, sample: &Sample, before: Option<&Sample>, late: Option<Duration>, colour: Colour) -> io::Result<()> {
        let size = size().unwrap_or(SIZE);
        let style = Style { colour, columns: size.columns };
        let late = late.map(|late| format!("no response for {}s; last state:\n", late.as_secs())).unwrap_or_default();
        print(frame(&format!("{late}{}", picture(sample, before, style)), size))
    }

    /// Ctrl-Z: the shell has the terminal as it was before, until we are continued in the foreground.
    fn suspend(&mut self) -> io::Result<()> {
        self.leave();
        let had_keys = self.keys.take().is_some();
        while signals::suspend_self() && termios::is_in_background() {}
        if had_keys {
            self.keys = CbreakMode::enable().ok();
        }
        self.enter()
    }

    fn wait(&mut self, next: &Look) -> Result<Woken, Errno> {
        let ready = self.poller.wait(Some(next.wake().since(sys::now())))?;
        let tokens: Vec<u64> = ready.iter().map(sys::poll::Ready::data).collect();
        let by_signal = if tokens.contains(&SIGNALS) { self.by_signal() } else { Woken::Draw };
        let woken = if by_signal == Woken::Draw && tokens.contains(&KEYS) { self.by_key() } else { by_signal };
        Ok(if woken == Woken::Draw && tokens.contains(&ANSWER) { Woken::Answer } else { woken })
    }

    fn by_signal(&mut self) -> Woken {
        let signals = self.signals.take();
        if QUIT_SIGNALS.into_iter().any(|signal| signals.contains(signal)) {
            Woken::Quit
        } else if signals.contains(Signal::TSTP) {
            Woken::Suspend
        } else {
            Woken::Draw
        }
    }

    fn by_key(&self) -> Woken {
        let mut keys = [0; 64];
        let count = self.keys.as_ref().map_or(Ok(0), |single| single.read(&mut keys));
        match count {
            Ok(count @ 1..) => {
                let pressed = keys.get(..count).unwrap_or_default();
                if pressed.iter().any(|key| matches!(key, b'q' | b'Q' | &CTRL_D)) { Woken::Quit } else { Woken::Draw }
            }
            Err(Errno::EINTR) => Woken::Draw,
            // The terminal has gone.
            Ok(0) | Err(_) => Woken::Quit,
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
