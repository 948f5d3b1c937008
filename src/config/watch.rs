//! `watch`: the files whose changes restart a service.

use std::rc::Rc;

use toml::de::DeTable;

use super::decoder::{Decoder, Schema, Value};
use super::environment::Purpose;
use super::expand::Scope;
use super::sockets::shared_scope;
use crate::model::plan::{ExitAction, Service, Watch};
use crate::model::{AsWritten, Numbers, Template};

const EXAMPLE: &str = "such as `{ paths = [\"src\"] }`";

impl Decoder<'_> {
    /// Sets `watch` of a service, which must have its process. A failure ends nothing by default: the next change may mend it.
    pub(super) fn watch(&mut self, table: &DeTable<'_>, scope: &Scope<'_>, service: &mut Service) {
        const SCHEMA: Schema = Schema {
            keys: &["paths", "ignore", "debounce", "poll"],
            later: &[],
            foreign: "\
paths: path dirs files include src
ignore: ignore_watch exclude ignored
debounce: delay watch_delay
poll: interval use_polling",
        };
        let Some(value) = table.get("watch") else { return };
        let Some(fields) = self.table(value, EXAMPLE) else { return };
        self.check_keys(fields, "`watch`", &SCHEMA);
        let Some(list) = fields.get("paths") else {
            return self.error(value.span(), "`watch` has no `paths`", EXAMPLE);
        };
        let directory = service.process.cwd.clone();
        let elements = self.array(list, "such as `[\"src\"]`");
        if elements.is_empty() && list.get_ref().is_array() {
            self.error(list.span(), "no path is watched", "add one, or remove `watch`");
        }
        let paths =
            elements.iter().filter_map(|path| self.watched_path(path, &shared_scope(scope), directory.as_ref()));
        let paths = paths.collect();
        let ignore = fields.get("ignore").map(|list| self.array(list, "such as `[\"*.log\"]`")).unwrap_or_default();
        let ignore = ignore.iter().filter_map(|pattern| self.ignored(pattern)).collect();
        let debounce = self.positive_duration(fields, "debounce").unwrap_or(Watch::DEBOUNCE);
        let watch = Watch { paths, ignore, debounce, poll: self.positive_duration(fields, "poll") };
        if self.environment.purpose == Purpose::Check {
            self.warn_about_watched_log(table, &watch, service);
        }
        if !table.contains_key("on_failure") {
            service.on_failure = ExitAction::Ignore;
        }
        service.watch = Some(Rc::new(watch));
    }

    /// A relative path is one below `directory`, the `cwd` of the service, or else as all paths in the configuration.
    fn watched_path(&mut self, value: &Value<'_>, scope: &Scope<'_>, directory: Option<&Template>) -> Option<Template> {
        let base = directory.map(|directory| directory.expand(Numbers::SINGLE).into_bytes());
        let path = self.path_in(base, value, scope, "write `.` for the working directory")?;
        let is_relative = value.get_ref().as_str().is_some_and(|text| !text.starts_with(['/', '$']));
        if is_relative && directory.is_some_and(Template::differs_by_instance) {
            let message = "`cwd` differs between instances, and all are restarted when a file changes";
            self.error(value.span(), message, "write an absolute path");
        }
        Some(path)
    }

    fn ignored(&mut self, value: &Value<'_>) -> Option<AsWritten<Box<str>>> {
        let resolved = self.resolved(value)?;
        let pattern: Box<str> = self.string(&resolved, "a pattern", "such as `\"*.log\"`")?.into();
        if pattern.contains(['[', '{', '!']) {
            let message = "only `*` and `?` have a meaning in patterns";
            self.error(value.span(), message, "write several patterns, such as `[\"*.js\", \"*.ts\"]`");
        }
        Some(self.written(value, pattern))
    }

    /// Each line that keepalive writes would restart the service, which would write lines.
    fn warn_about_watched_log(&mut self, table: &DeTable<'_>, watch: &Watch, service: &Service) {
        let mut files = service.process.log_files.iter();
        if files.any(|(_, path)| watch.includes(path.expand(Numbers::SINGLE).as_bytes()))
            && let Some(value) = table.get("log")
        {
            let message = "the log file is watched: each line would restart the service, for ever";
            self.warning(value.span(), message, "add it to `ignore` of `watch`, such as `ignore = [\"*.log\"]`");
        }
    }
}
