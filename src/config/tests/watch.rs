//! `watch`.

use std::time::Duration;

use super::{check, plan};
use crate::model::Numbers;
use crate::model::plan::{ExitAction, Watch};

fn watch(text: &str) -> (Watch, ExitAction) {
    let plan = plan(&format!("[services.a]\ncommand = \"x\"\n{text}"));
    let service = &plan.services[0];
    (service.watch.as_deref().unwrap().clone(), service.on_failure)
}

#[test]
fn relative_paths_are_below_cwd_or_beside_the_configuration() {
    let paths = |text: &str| {
        let (watch, _) = watch(text);
        watch.paths.iter().map(|path| path.shown(Numbers::SINGLE)).collect::<Vec<_>>()
    };
    assert_eq!(
        paths("cwd = \"/app\"\nwatch = { paths = [\"src\", \"./lib\", \".\", \"/etc\"] }\n"),
        ["/app/src", "/app/lib", "/app/", "/etc"]
    );
    let below = paths("watch = { paths = [\"src\"] }\n");
    assert!(below[0].starts_with('/') && below[0].ends_with("/src"), "{below:?}");
}

#[test]
fn it_has_defaults_and_a_failure_ends_nothing() {
    let (decoded, on_failure) = watch("watch = { paths = [\"/a\"] }\n");
    assert_eq!((decoded.debounce, decoded.poll, decoded.ignore.len()), (Watch::DEBOUNCE, None, 0));
    assert_eq!(on_failure, ExitAction::Ignore);
    let (decoded, on_failure) = watch(
        "on_failure = \"shutdown\"\nwatch = { paths = [\"/a\"], ignore = [\"*.log\"], debounce = \"1s\", poll = \"2s\" }\n",
    );
    assert_eq!((decoded.debounce, decoded.poll), (Duration::from_secs(1), Some(Duration::from_secs(2))));
    assert_eq!(on_failure, ExitAction::Shutdown);
}

#[test]
fn mistakes_are_errors() {
    check(
        "[services.a]\ncommand = \"x\"\nwatch = [\"src\"]\n\
         [services.b]\ncommand = \"x\"\nwatch = { ignore_watch = [], paths = [] }\n\
         [services.c]\ncommand = \"x\"\ncwd = \"/app/{instance}\"\nwatch = { paths = [\"src\"], ignore = [\"[ab].js\"] }\n",
        r#"
keepalive.toml:3:9: expected a table, found an array
  3 | watch = ["src"]
    |         ^^^^^^^
  = such as `{ paths = ["src"] }`

keepalive.toml:6:9: `watch` has no `paths`
  6 | watch = { ignore_watch = [], paths = [] }
    |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  = such as `{ paths = ["src"] }`

keepalive.toml:6:11: unknown key `ignore_watch` in `watch`
  6 | watch = { ignore_watch = [], paths = [] }
    |           ^^^^^^^^^^^^
  = did you mean `ignore`?

keepalive.toml:10:20: `cwd` differs between instances, and all are restarted when a file changes
  10 | watch = { paths = ["src"], ignore = ["[ab].js"] }
     |                    ^^^^^
  = write an absolute path

keepalive.toml:10:38: only `*` and `?` have a meaning in patterns
  10 | watch = { paths = ["src"], ignore = ["[ab].js"] }
     |                                      ^^^^^^^^^
  = write several patterns

5 errors in the configuration
"#,
    );
}
