//! The status of services as a table.

use std::borrow::Cow;
use std::fmt::{self, Display, Write as _};

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::format;
use super::output::Style;
use super::request::Names;
use super::table::{OrDash, Side, Table};
use crate::model::glob::{self, is_pattern};
use crate::model::visible::one_line;

/// The number of services in a message. More are not named.
const MAX_NAMES: usize = 10;

/// The members of `/v1/status` that are used; others are ignored.
#[derive(Debug, Default)]
pub(super) struct Status {
    pid: Option<u64>,
    version: String,
    /// The configuration file; empty: none.
    config: String,
    uptime_ms: Option<u64>,
    state: String,
    services: Vec<StatusEntry>,
    /// A response without services is invalid.
    has_services: bool,
}

/// A service, or one of its instances: most members are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct StatusEntry {
    /// Of a service.
    name: String,
    /// Of an instance.
    pub(super) id: String,
    pub(super) state: String,
    pub(super) pid: Option<u64>,
    ready: Option<bool>,
    /// Whether this is the surge instance of a rolling reload.
    surge: Option<bool>,
    /// Whether the previous definition is in effect, because that of the configuration file has failed.
    rolled_back: Option<bool>,
    pub(super) restarts: Option<u64>,
    pub(super) uptime_ms: Option<u64>,
    reason: String,
    oom_killed: Option<bool>,
    /// The status text that the process has sent by sd_notify.
    status_text: String,
    /// The last lines of the last run, if it has failed.
    last_lines: String,
    pub(super) rss_bytes: Option<u64>,
    pub(super) cpu_ms: Option<u64>,
    pub(super) processes: Option<u64>,
    /// Of a service that is described: its last exits and its definition.
    text: String,
    instances: Vec<Self>,
}

/// A structure that is filled with the members of a JSON object.
trait Members {
    /// Where the value of the member `name` belongs.
    fn member(&mut self, name: &str) -> Member<'_>;
}

/// The place of a value. `null` is the same as no value.
enum Member<'m> {
    Text(&'m mut String),
    Number(&'m mut Option<u64>),
    Flag(&'m mut Option<bool>),
    Entries(&'m mut Vec<StatusEntry>),
    Ignored,
}

impl Members for Status {
    fn member(&mut self, name: &str) -> Member<'_> {
        match name {
            "pid" => Member::Number(&mut self.pid),
            "version" => Member::Text(&mut self.version),
            "config" => Member::Text(&mut self.config),
            "uptime_ms" => Member::Number(&mut self.uptime_ms),
            "state" => Member::Text(&mut self.state),
            "services" => {
                self.has_services = true;
                Member::Entries(&mut self.services)
            }
            _ => Member::Ignored,
        }
    }
}

impl Members for StatusEntry {
    fn member(&mut self, name: &str) -> Member<'_> {
        match name {
            "name" => Member::Text(&mut self.name),
            "id" => Member::Text(&mut self.id),
            "state" => Member::Text(&mut self.state),
            "pid" => Member::Number(&mut self.pid),
            "ready" => Member::Flag(&mut self.ready),
            "surge" => Member::Flag(&mut self.surge),
            "rolled_back" => Member::Flag(&mut self.rolled_back),
            "restarts" => Member::Number(&mut self.restarts),
            "uptime_ms" => Member::Number(&mut self.uptime_ms),
            "reason" => Member::Text(&mut self.reason),
            "oom_killed" => Member::Flag(&mut self.oom_killed),
            "status_text" => Member::Text(&mut self.status_text),
            "last_lines" => Member::Text(&mut self.last_lines),
            "rss_bytes" => Member::Number(&mut self.rss_bytes),
            "cpu_ms" => Member::Number(&mut self.cpu_ms),
            "processes" => Member::Number(&mut self.processes),
            "text" => Member::Text(&mut self.text),
            "instances" => Member::Entries(&mut self.instances),
            _ => Member::Ignored,
        }
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut status = Self::default();
        deserializer.deserialize_map(Object(&mut status))?;
        if status.has_services { Ok(status) } else { Err(D::Error::missing_field("services")) }
    }
}

impl<'de> Deserialize<'de> for StatusEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut entry = Self::default();
        deserializer.deserialize_map(Object(&mut entry))?;
        Ok(entry)
    }
}

/// Reads an object. What serde derives for a structure is five times as much code, for each of the two.
struct Object<'m>(&'m mut dyn Members);

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(member) = map.next_key_seed(Name(self.0))? {
            map.next_value_seed(member)?;
        }
        Ok(())
    }
}

/// Reads the name of a member.
struct Name<'m>(&'m mut dyn Members);

impl<'de, 'm> DeserializeSeed<'de> for Name<'m> {
    type Value = Member<'m>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Member<'m>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'m> Visitor<'_> for Name<'m> {
    type Value = Member<'m>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Member<'m>, E> {
        Ok(self.0.member(name))
    }
}

impl<'de> DeserializeSeed<'de> for Member<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self {
            Self::Text(text) => *text = Option::deserialize(deserializer)?.unwrap_or_default(),
            Self::Number(number) => *number = Deserialize::deserialize(deserializer)?,
            Self::Flag(flag) => *flag = Deserialize::deserialize(deserializer)?,
            Self::Entries(entries) => *entries = Deserialize::deserialize(deserializer)?,
            Self::Ignored => IgnoredAny::deserialize(deserializer).map(drop)?,
        }
        Ok(())
    }
}

/// The text member `key` of `value`; empty if there is none.
pub(super) fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The member `key` of `value` if it is a whole number.
pub(super) fn number(value: &Value, key: &str) -> Option<u64> {
    value.get(key).and_then(Value::as_u64)
}

/// The elements of the array `key` of `value`.
pub(super) fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The array `key` of `value`, to be changed.
pub(super) fn list_mut<'v>(value: &'v mut Value, key: &str) -> Option<&'v mut Vec<Value>> {
    value.get_mut(key).and_then(Value::as_array_mut)
}

impl Status {
    /// `names`, with the names of services in place of each pattern, or of instances if the pattern has a dot.
    ///
    /// # Errors
    /// The first pattern that matches nothing.
    pub(super) fn expanded(&self, names: &[String]) -> Result<Vec<String>, String> {
        let mut all: Vec<String> = Vec::new();
        for name in names {
            if !is_pattern(name.as_bytes()) {
                if !all.contains(name) {
                    all.push(name.clone());
                }
                continue;
            }
            let services = self.services.iter();
            let known: Vec<&String> = if name.contains('.') {
                services.flat_map(|service| service.instances.iter().map(|instance| &instance.id)).collect()
            } else {
                services.map(|service| &service.name).collect()
            };
            let matching: Vec<_> =
                known.into_iter().filter(|known| glob::matches(name.as_bytes(), known.as_bytes())).collect();
            if matching.is_empty() {
                return Err(format!("nothing matches `{name}`: {}", self.names_text()));
            }
            let new: Vec<_> = matching.into_iter().filter(|known| !all.contains(known)).cloned().collect();
            all.extend(new);
        }
        Ok(all)
    }

    /// Retains what `names` select; all if there are none.
    ///
    /// # Errors
    /// The first name or pattern that selects nothing.
    pub(super) fn select(&mut self, names: &[String]) -> Result<(), String> {
        let names = &self.expanded(names)?;
        let is_all = |name: &String| name == "all";
        if let Some(unknown) = names.iter().find(|name| !is_all(name) && !self.has_name(name)) {
            return Err(format!("unknown name `{unknown}`: {}", self.names_text()));
        }
        if names.is_empty() || names.iter().any(is_all) {
            return Ok(());
        }
        for service in self.services.iter_mut().filter(|service| !names.contains(&service.name)) {
            service.instances.retain(|instance| names.contains(&instance.id));
        }
        self.services.retain(|service| names.contains(&service.name) || !service.instances.is_empty());
        Ok(())
    }

    /// Which services there are.
    fn names_text(&self) -> String {
        let names: Vec<&str> = self.services.iter().take(MAX_NAMES).map(|service| &*service.name).collect();
        let more = if self.services.len() > MAX_NAMES { ", …" } else { "" };
        format!("the services are {}{more}", names.join(", "))
    }

    fn has_name(&self, name: &str) -> bool {
        let is_name =
            |service: &StatusEntry| service.name == name || service.instances.iter().any(|one| one.id == name);
        self.services.iter().any(is_name)
    }

    /// Retains in `value`, the JSON of this status, what has been selected.
    pub(super) fn retain_selected(&self, value: &mut Value) {
        let Some(services) = list_mut(value, "services") else { return };
        services.retain_mut(|service| {
            let Some(chosen) = self.services.iter().find(|chosen| chosen.name == text(service, "name")) else {
                return false;
            };
            if let Some(instances) = list_mut(service, "instances") {
                instances.retain(|one| chosen.instances.iter().any(|chosen| chosen.id == text(one, "id")));
            }
            true
        });
    }

    /// The names for completions, one a line.
    pub(super) fn names(&self, which: Names) -> String {
        let mut names = String::new();
        for service in &self.services {
            let has_several = service.instances.len() > 1 && which != Names::Services;
            names.push_str(&service.name);
            names.push('\n');
            for instance in service.instances.iter().filter(|_| has_several) {
                names.push_str(&instance.id);
                names.push('\n');
            }
        }
        names.push_str(match which {
            Names::All => "all\n",
            Names::Services => "",
            Names::Writers => "keepalive\n",
        });
        names
    }

    /// All instances, and services that have none, in order; a surge instance below its instance.
    pub(super) fn instances(&self) -> Vec<&StatusEntry> {
        let mut instances = Vec::new();
        for service in &self.services {
            let all = if service.instances.is_empty() { std::slice::from_ref(service) } else { &*service.instances };
            // Surge instances come last in the JSON.
            let (ones, surges) = all.split_at(all.partition_point(|one| !one.is_surge()));
            for one in ones {
                instances.push(one);
                instances.extend(surges.iter().filter(|surge| surge.id == one.id));
            }
            instances.extend(surges.iter().filter(|surge| ones.iter().all(|one| one.id != surge.id)));
        }
        instances
    }

    /// The description of the first service.
    pub(super) fn description(&self) -> &str {
        self.services.first().map_or("", |service| &service.text)
    }

    /// Whether it is that of a keepalive that is PID 1, of which there is one.
    pub(super) fn is_init(&self) -> bool {
        self.pid == Some(1)
    }

    /// `keepalive 0.1.0, pid 1, up 2m10s: 5 running, 1 backoff`; if it is not PID 1, `keepalive 0.1.0 of FILE, pid …`
    pub(super) fn summary(&self) -> String {
        // There are eight states at most.
        let mut counts: Vec<(&str, usize)> = Vec::new();
        let instances = || self.services.iter().flat_map(|service| &service.instances);
        for instance in instances().filter(|instance| !instance.is_surge()) {
            match counts.iter_mut().find(|(known, _)| *known == instance.state) {
                Some((_, count)) => *count += 1,
                None => counts.push((&instance.state, 1)),
            }
        }
        // The most frequent state first.
        counts.sort_unstable_by(|(name, count), (other, others)| others.cmp(count).then(name.cmp(other)));
        let Self { version, config, .. } = self;
        let (pid, age) = (self.pid.unwrap_or_default(), format::age(self.uptime_ms.unwrap_or_default()));
        let state = if self.state == "stopping" { ", stopping" } else { "" };
        let of = if config.is_empty() || self.is_init() { String::new() } else { format!(" of {config}") };
        let mut summary = format!("keepalive {version}{of}, pid {pid}, up {age}{state}");
        for (position, (state, count)) in counts.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = write!(summary, "{} {count} {state}", if position == 0 { ':' } else { ',' });
        }
        match instances().filter(|instance| instance.is_surge()).count() {
            0 => {}
            several => {
                let _ = write!(summary, "; {several} being replaced");
            }
        }
        let degraded = self.services.iter().filter(|service| service.state == "degraded");
        let mut joint = "; degraded: ";
        for service in degraded.take(MAX_NAMES) {
            summary.push_str(joint);
            summary.push_str(&service.name);
            joint = ", ";
        }
        if counts.is_empty() {
            summary.push_str(": no instances");
        }
        one_line(&summary).into_owned()
    }

    /// The last lines of each instance whose last run has failed, below a heading.
    pub(super) fn last_lines(&self) -> String {
        let mut text = String::new();
        for service in &self.services {
            for instance in service.instances.iter().filter(|instance| !instance.last_lines.is_empty()) {
                let lines = instance.last_lines.replace('\n', "\n  ");
                for part in ["\nlast lines of ", &instance.id, "\n  ", &lines, "\n"] {
                    text.push_str(part);
                }
            }
        }
        text
    }

    /// The table of `keepalive status`.
    pub(super) fn table(&self, style: Style) -> String {
        let mut table = Table::new(&[
            ("NAME", Side::Left),
            ("STATE", Side::Left),
            ("PID", Side::Right),
            ("UPTIME", Side::Right),
            ("RESTARTS", Side::Right),
            ("CPU", Side::Right),
            ("MEMORY", Side::Right),
        ]);
        for instance in self.instances() {
            let cells: [&dyn Display; 7] = [
                &instance.name(),
                &instance.state,
                &OrDash(instance.pid),
                &OrDash(instance.uptime_ms.map(format::age)),
                &OrDash(instance.restarts),
                &OrDash(instance.cpu_ms.filter(|_| instance.pid.is_some()).map(format::spent)),
                &OrDash(instance.memory().map(format::bytes)),
            ];
            table.push(&cells, instance.colour(), &instance.note());
        }
        table.render(style.columns, style.colour)
    }
}

impl StatusEntry {
    pub(super) fn name(&self) -> &str {
        if self.id.is_empty() { &self.name } else { &self.id }
    }

    /// Memory in use; `None`: not running.
    pub(super) fn memory(&self) -> Option<u64> {
        self.rss_bytes.filter(|_| self.pid.is_some())
    }

    fn is_surge(&self) -> bool {
        self.surge == Some(true)
    }

    fn is_unready(&self) -> bool {
        self.state == "running" && self.ready == Some(false)
    }

    /// The colour (SGR) of the state.
    pub(super) fn colour(&self) -> &'static str {
        match self.state.as_str() {
            "running" if self.is_unready() => "33",
            "running" => "32",
            "failed" => "31",
            "backoff" | "starting" | "stopping" | "waiting" => "33",
            _ => "2",
        }
    }

    /// Why it is not simply running; may be empty.
    pub(super) fn note(&self) -> Cow<'_, str> {
        let mut note = match self.state.as_str() {
            "running" if self.is_unready() && self.reason.is_empty() => Cow::Borrowed("not ready"),
            "running" if self.is_unready() => Cow::Owned(format!("not ready; {}", self.reason)),
            "starting" if self.is_surge() => Cow::Borrowed("takes over when it is ready"),
            "running" if self.is_surge() => Cow::Borrowed("takes over when it has stayed up"),
            "running" | "completed" => Cow::Borrowed(""),
            _ => Cow::Borrowed(self.reason.as_str()),
        };
        let has_run_out = self.oom_killed == Some(true) && !note.contains("memory") && self.state != "running";
        let mut add = |parts: &[&str]| {
            let joint = if note.is_empty() { "" } else { "; " };
            note.to_mut().extend([joint].iter().chain(parts).copied());
        };
        if has_run_out {
            add(&["killed by the kernel (out of memory)"]);
        }
        if self.rolled_back == Some(true) {
            add(&["previous definition: the reload has failed"]);
        }
        if !self.status_text.is_empty() {
            add(&[if self.pid.is_none() { "its last status: " } else { "" }, &self.status_text]);
        }
        note
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
