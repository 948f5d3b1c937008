//! `health`, `on_unhealthy`: how a service is checked while it runs.

use toml::de::DeTable;

use super::decoder::{Decoder, Schema, Value, entries};
use super::expand::Scope;
use super::words::UNHEALTHY_ACTIONS;
use crate::model::Template;
use crate::model::plan::{Health, OnUnhealthy, Probe, Service};

const SCHEMA: Schema = Schema {
    keys: &["http", "tcp", "exec", "interval", "timeout", "retries", "start_period"],
    later: &["headers", "expect_status", "expect_body"],
    foreign: "\
write `exec = [\"pg_isready\"]`, without `CMD`, or `exec = [\"sh\", \"-c\", \"…\"]` in place of `CMD-SHELL`: test
exec: cmd command script
http: url https httpget
tcp: port tcpsocket
interval: period period_seconds
timeout: timeout_seconds
retries: threshold failure_threshold
start_period: initial_delay_seconds
remove it, since the first check begins after `interval`: start_interval delay
remove `health` instead: disable",
};

const EXAMPLE: &str = "such as `{ http = \"http://127.0.0.1:8080/healthz\" }` or `{ exec = [\"pg_isready\"] }`";

impl Decoder<'_> {
    /// `service` must be complete except for `health`.
    pub(super) fn health(&mut self, table: &DeTable<'_>, scope: &Scope<'_>, service: &Service) -> Option<Health> {
        let on_unhealthy = self.choice(table, "on_unhealthy", &UNHEALTHY_ACTIONS).unwrap_or(OnUnhealthy::Restart);
        let Some(value) = table.get("health") else {
            if let Some(value) = table.get("on_unhealthy") {
                let hint = "add `health = { … }`, or remove it";
                self.error(value.span(), "`on_unhealthy` has no effect without `health`", hint);
            }
            return None;
        };
        let Some(table) = value.get_ref().as_table() else {
            let hint = match value.get_ref().as_str() {
                Some(url) if url.starts_with("http://") => format!("write `{{ http = \"{url}\" }}`"),
                _ => EXAMPLE.to_owned(),
            };
            self.unexpected(value, "a table", hint);
            return None;
        };
        let errors = self.errors.len();
        self.check_keys(table, "`health`", &SCHEMA);
        let is_probe = |key: &str| matches!(key, "http" | "tcp" | "exec");
        let mut probes = entries(table).into_iter().filter(|(key, _)| is_probe(key.get_ref()));
        let Some((key, content)) = probes.next() else {
            // An unknown key says it.
            if self.errors.len() == errors {
                self.error(value.span(), "`health` does not say what is checked", EXAMPLE);
            }
            return None;
        };
        if let Some((more, _)) = probes.next() {
            let message =
                format!("`health` accepts only one of `http`, `tcp` and `exec`, and `{}` is set", key.get_ref());
            self.error(more.span(), message, "remove one of them; an `exec` command can check several things");
        }
        let probe = self.probe(key.get_ref(), content, scope, service);
        let interval = self.positive_duration(table, "interval").unwrap_or(Service::HEALTH_INTERVAL);
        let timeout = self.positive_duration(table, "timeout").unwrap_or(Service::HEALTH_TIMEOUT);
        let retries = self.integer(table, "retries", 1..=i64::from(u32::MAX));
        let retries = retries.and_then(|number| u32::try_from(number).ok()).unwrap_or(Service::HEALTH_RETRIES);
        let start_period = self.duration(table, "start_period", std::time::Duration::ZERO);
        let probe = probe?;
        self.check_words_of_docker(content, &probe);
        self.warn_about_shared_address(content, &probe, service, "healthy");
        Some(Health { probe, interval, timeout, retries, start_period, on_unhealthy })
    }

    /// `exec` is the command alone: `CMD` and `CMD-SHELL` come from a Dockerfile or from Compose.
    fn check_words_of_docker(&mut self, value: &Value<'_>, probe: &Probe) {
        let Probe::Exec(command) = probe else { return };
        let Some(Template::Fixed(first)) = command.first().map(Template::plain) else { return };
        let hint = match first.to_bytes() {
            b"CMD" => "remove it: `exec` is the command and its arguments",
            b"CMD-SHELL" => "write `[\"sh\", \"-c\", \"…\"]`",
            b"NONE" => "remove `health`",
            _ => return,
        };
        let message = format!("`{}` is a word of Docker, not a program", first.to_string_lossy());
        self.error(value.span(), message, hint);
    }
}
