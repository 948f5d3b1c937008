//! `watch`: the files whose changes restart a service.

use std::rc::Rc;

use toml::de::DeTable;

use super::decoder::{Decoder, Schema, Value};
use super::environment::Purpose;
use super::expand::Scope;
use super::sockets::shared_scope;
use crate::model::plan::{ExitAction, Service, Watch};
use crate::model::{Numbers, Template};

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
        let is_empty = |list: &&Value<'_>| list.get_ref().as_array().is_some_and(|list| list.is_empty());
        let Some(list) = fields.get("paths").filter(|list| !is_empty(list)) else {
            return self.error(value.span(), "`watch` has no `paths`", EXAMPLE);
        };
        let scope = shared_scope(scope);
        let directory = service.process.cwd.as_ref();
        let paths = self.list(list, &mut |this, path| this.watched_path(path, &scope, directory));
        let ignore = fields.get("ignore").map(|list| self.list(list, &mut |this, it| this.ignored(it, &scope)));
        let debounce = self.positive_duration(fields, "debounce").unwrap_or(Watch::DEBOUNCE);
        let ignore = ignore.unwrap_or_default();
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

    fn ignored(&mut self, value: &Value<'_>, scope: &Scope<'_>) -> Option<Template> {
        let text = self.string(value, "a pattern", "such as `\"*.log\"`")?;
        if text.contains('[') {
            self.error(value.span(), "only `*` and `?` have a meaning in patterns", "write several patterns");
        }
        let pattern = self.template(value, text, scope)?;
        Some(self.as_written(pattern, text))
    }

    fn list(
        &mut self,
        list: &Value<'_>,
        decode: &mut dyn FnMut(&mut Self, &Value<'_>) -> Option<Template>,
    ) -> Box<[Template]> {
        let elements = self.array(list, "such as `[\"src\"]`");
        elements.iter().filter_map(|element| decode(self, element)).collect()
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
