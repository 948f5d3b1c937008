//! `schedule`, `restart_schedule`, `timezone`.

use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use toml::de::DeTable;

use super::decoder::{Decoder, entries};
use super::files::FsQuery;
use crate::model::cron::Cron;
use crate::model::plan::{ExitAction, Kind, RestartPolicy, Service};
use crate::model::schedule::Schedule;
use crate::model::time_zone::TimeZone;

/// The files of time zones, below the root directory.
const ZONE_FILES: &str = "usr/share/zoneinfo";
const ZONE_EXAMPLE: &str = "such as `\"Europe/Berlin\"`";

impl Decoder<'_> {
    /// `service` must have its type and its number of instances.
    pub(super) fn schedule(&mut self, table: &DeTable<'_>, service: &mut Service) {
        let key = if service.kind == Kind::Oneshot { "schedule" } else { "restart_schedule" };
        if let Some((wrong, _)) = table.get_key_value("schedule").filter(|_| service.kind == Kind::Service) {
            let hint = "remove `type`, or write `restart_schedule`, which restarts a service";
            self.error(wrong.span(), "`schedule` is for a oneshot", hint);
        }
        let Some(value) = table.get(key) else {
            let is_other = table.contains_key("schedule") || table.contains_key("restart_schedule");
            if let Some((key, _)) = table.get_key_value("timezone").filter(|_| !is_other) {
                let message = "`timezone` has no effect without `schedule` or `restart_schedule`";
                self.error(key.span(), message, "remove it; for the program itself, set `env = { TZ = \"…\" }`");
            }
            return;
        };
        let zone = self.time_zone(table, value.span());
        let Some(resolved) = self.resolved(value) else { return };
        let Some(text) = self.string(&resolved, "a schedule", "such as `\"0 4 * * *\"`") else { return };
        match Cron::parse(text) {
            Ok(cron) => {
                let (zone_name, zone) = zone.unwrap_or_else(|| ("UTC".into(), TimeZone::utc()));
                service.schedule = Some(Rc::new(Schedule { text: text.into(), zone_name, cron, zone: Rc::new(zone) }));
            }
            Err(error) => self.error(value.span(), error.message, error.hint),
        }
        if service.kind == Kind::Oneshot {
            self.check_scheduled(table, service);
        }
    }

    /// A run that fails is reported, and the next one comes.
    fn check_scheduled(&mut self, table: &DeTable<'_>, service: &mut Service) {
        service.on_failure = ExitAction::Ignore;
        if !table.contains_key("restart") {
            service.restart.policy = RestartPolicy::Never;
        }
        for (key, _) in
            entries(table).into_iter().filter(|(key, _)| matches!(&**key.get_ref(), "on_failure" | "on_success"))
        {
            let message = format!("`{}` has no effect with `schedule`: the next run follows anyway", key.get_ref());
            self.error(key.span(), message, "remove it");
        }
        if let Some(value) = table.get("instances").filter(|_| service.instances > 1) {
            let message = "a service with `schedule` has one instance: never two of its runs are in progress";
            self.error(value.span(), message, "remove it, or write one service for each");
        }
    }

    /// The name and the rules of `timezone`, or of the variable `TZ`. `span`: the position of the schedule.
    fn time_zone(&mut self, table: &DeTable<'_>, span: Range<usize>) -> Option<(Box<str>, TimeZone)> {
        let Some(value) = table.get("timezone") else {
            let name = str::from_utf8(self.environment.variable(b"TZ")?).ok()?;
            let name = name.strip_prefix(':').unwrap_or(name);
            return match self.find_zone(name) {
                Ok(zone) => Some((name.into(), zone)),
                Err(_) if name.is_empty() => None,
                Err(missing) => {
                    self.warning(span, format!("the time zone is UTC: of `TZ`, {}", missing.message), missing.hint);
                    None
                }
            };
        };
        let resolved = self.resolved(value)?;
        let name = self.string(&resolved, "the name of a time zone", ZONE_EXAMPLE)?;
        match self.find_zone(name) {
            Ok(zone) => return Some((name.into(), zone)),
            Err(Missing { message, hint, are_files_missing: true }) => {
                self.warning(value.span(), format!("the time zone is UTC: {message}"), hint);
            }
            Err(Missing { message, hint, .. }) => self.error(value.span(), message, hint),
        }
        None
    }

    fn find_zone(&self, name: &str) -> Result<TimeZone, Missing> {
        if matches!(name, "UTC" | "Etc/UTC" | "GMT" | "Zulu") {
            return Ok(TimeZone::utc());
        }
        if name.is_empty() || name.starts_with('/') || name.split('/').any(|part| part == "..") {
            let message = format!("`{}` is not the name of a time zone", name.escape_debug());
            return Err(Missing { message, hint: ZONE_EXAMPLE.into(), are_files_missing: false });
        }
        if let Some(zone) = TimeZone::from_rule(name) {
            return Ok(zone);
        }
        let files = self.environment.root.join(ZONE_FILES);
        if let Ok(bytes) = (self.environment.files)(&FsQuery::ReadFile(&files.join(name)))
            && let Some(zone) = TimeZone::from_file(&bytes)
        {
            return Ok(zone);
        }
        let are_files_missing = !self.exists(&files);
        let shown = name.escape_debug();
        Err(if are_files_missing {
            let message = format!("`{shown}` is not installed, nor is any other");
            let hint = "install the package `tzdata`, or write the rule, such as `CET-1CEST,M3.5.0,M10.5.0/3`";
            Missing { message, hint: hint.into(), are_files_missing }
        } else {
            let message = format!("unknown time zone `{shown}`");
            let hint = format!("{ZONE_EXAMPLE}, or any other file below /{ZONE_FILES}");
            Missing { message, hint, are_files_missing }
        })
    }

    fn exists(&self, path: &Path) -> bool {
        (self.environment.files)(&FsQuery::Exists(path)).is_ok_and(|answer| !answer.is_empty())
    }
}

/// Why there is no such time zone.
struct Missing {
    message: String,
    hint: String,
    /// There is none at all.
    are_files_missing: bool,
}
