//! Records each event and each action of the supervisor in one line.

use std::collections::VecDeque;
use std::fmt::Write;

use keepalive::model::Mono;
use keepalive::supervisor::{Action, Event};

/// The number of lines that are shown of a failed run.
const TAIL: usize = 80;

#[derive(Debug)]
pub(crate) struct Trace {
    lines: VecDeque<(Mono, Line)>,
    keep: Keep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Tail,
    All,
}

#[derive(Debug)]
enum Line {
    In(Event),
    Out(Action),
    Wait(Option<Mono>),
}

impl Trace {
    pub(crate) fn new(keep: Keep) -> Self {
        Self { lines: VecDeque::new(), keep }
    }

    pub(crate) fn record_event(&mut self, at: Mono, event: &Event) {
        self.push(at, Line::In(event.clone()));
    }

    pub(crate) fn record_action(&mut self, at: Mono, action: &Action) {
        self.push(at, Line::Out(action.clone()));
    }

    pub(crate) fn record_wait(&mut self, at: Mono, until: Option<Mono>) {
        self.push(at, Line::Wait(until));
    }

    fn push(&mut self, at: Mono, line: Line) {
        if self.keep == Keep::Tail && self.lines.len() == TAIL {
            self.lines.pop_front();
        }
        self.lines.push_back((at, line));
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (at, line) in &self.lines {
            let at = at.as_nanos();
            match line {
                Line::In(event) => writeln!(text, "{at} < {event:?}"),
                Line::Out(action) => writeln!(text, "{at}   > {action:?}"),
                Line::Wait(until) => writeln!(text, "{at} wait until {:?}", until.map(Mono::as_nanos)),
            }
            .unwrap();
        }
        text
    }
}
