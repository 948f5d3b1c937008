//! `health`, `on_unhealthy`: how a service is checked while it runs.

use std::ops::RangeInclusive;

use toml::de::DeTable;

use super::decoder::{Decoder, Schema, Value, entries};
use super::expand::Scope;
use super::words::UNHEALTHY_ACTIONS;
use crate::model::plan::{Health, HttpCheck, OnUnhealthy, Probe, Service};
use crate::model::{AsWritten, Numbers, Template};

const SCHEMA: Schema = Schema {
    keys: &[
        "http",
        "tcp",
        "exec",
        "interval",
        "timeout",
        "retries",
        "start_period",
        "headers",
        "expect_status",
        "expect_body",
    ],
    later: &[],
    foreign: "\
write `exec = [\"pg_isready\"]`, without `CMD`, or `exec = [\"sh\", \"-c\", \"…\"]` in place of `CMD-SHELL`: test
exec: cmd command script
http: url https httpget
tcp: port tcpsocket
interval: period period_seconds
headers: http_headers header
expect_status: status code
expect_body: body contains
timeout: timeout_seconds
retries: threshold failure_threshold
start_period: initial_delay_seconds
remove it, since the first check begins after `interval`: start_interval delay
remove `health` instead: disable",
};

const STATUS: &str = "HTTP statuses from 100 to 599";
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
        let http = self.http_check(table, scope, key.get_ref());
        let probe = probe?;
        self.check_words_of_docker(content, &probe);
        self.warn_about_shared_address(content, &probe, service, "healthy");
        Some(Health { probe, http, interval, timeout, retries, start_period, on_unhealthy })
    }

    /// The settings for the probe `kind`, which have no effect unless that is `http`.
    fn http_check(&mut self, table: &DeTable<'_>, scope: &Scope<'_>, kind: &str) -> HttpCheck {
        let mut check = HttpCheck::default();
        for (key, value) in entries(table) {
            let name: &str = key.get_ref();
            if !matches!(name, "headers" | "expect_status" | "expect_body") {
                continue;
            }
            if kind != "http" {
                self.error(key.span(), format!("`{name}` has no effect on `{kind}`"), "remove it");
            } else if name == "headers" {
                check.headers = self.headers(value, scope);
            } else if name == "expect_body" {
                check.body = self.expected_body(value);
            } else {
                let values = value.get_ref().as_array().map_or(std::slice::from_ref(value), |values| values);
                check.statuses = values.iter().filter_map(|value| self.statuses(value)).collect();
                if values.is_empty() {
                    self.unexpected(value, STATUS, "");
                }
            }
        }
        check
    }

    fn headers(&mut self, value: &Value<'_>, scope: &Scope<'_>) -> Box<[(Box<str>, Template)]> {
        let Some(table) = self.table(value, "such as `{ Host = \"example.org\" }`") else { return Box::default() };
        let mut headers = Vec::new();
        for (key, value) in entries(table) {
            let name: &str = key.get_ref();
            let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            let is_own = |own: &&str| own.eq_ignore_ascii_case(name);
            if name.is_empty() || !name.bytes().all(is_of_name) {
                self.error(key.span(), format!("`{}` is not the name of a header", name.escape_debug()), "rename it");
            } else if ["Connection", "Content-Length", "Transfer-Encoding"].iter().any(is_own) {
                self.error(key.span(), format!("keepalive itself sets the header `{name}`"), "remove it");
            }
            let Some(text) = self.string(value, "a string", "") else { continue };
            let Some(content) = self.template(value, text, scope) else { continue };
            if content.expand(Numbers::SINGLE).to_bytes().iter().any(u8::is_ascii_control) {
                self.error(value.span(), "a header is one line without control characters", "remove them");
            }
            headers.push((name.into(), self.as_written(content, text)));
        }
        headers.into()
    }

    fn expected_body(&mut self, value: &Value<'_>) -> Option<AsWritten<Box<str>>> {
        let text = self.resolved(value)?;
        let text = text.get_ref().as_str().filter(|text| !text.is_empty());
        if text.is_none() {
            self.unexpected(value, "text that the body contains", "such as `\"ok\"`");
        }
        Some(self.written(value, text?.into()))
    }

    /// `200`, `"200-299"`.
    fn statuses(&mut self, value: &Value<'_>) -> Option<RangeInclusive<u16>> {
        let value = &self.resolved(value)?;
        let text = value.get_ref().as_str().unwrap_or_default();
        let (first, last) = text.split_once('-').unwrap_or_default();
        let number = value.integer().and_then(|number| u16::try_from(number).ok());
        let range = number.map(|number| number..=number).or_else(|| Some(first.parse().ok()?..=last.parse().ok()?));
        let range = range.filter(|range| *range.start() >= 100 && *range.end() <= 599 && !range.is_empty());
        if range.is_none() {
            self.unexpected(value, STATUS, "such as `200`, `\"200-299\"` or `[200, 401]`");
        }
        range
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
