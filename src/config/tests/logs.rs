//! `log` of a service and of `[keepalive]`.

use super::*;
use crate::model::plan::{LogFormat, LogStyle, Output, Process};

fn process(text: &str) -> Rc<Process> {
    plan(text).services.remove(0).process.clone()
}

/// Checks the decoded `log` of a service.
#[track_caller]
fn check_log(log: &str, stdout: Output, stderr: Output, files: &[(&str, &str)], (max_size, max_files): (u64, u32)) {
    let process = process(&format!("[services.web]\ncommand = \"x\"\nlog = {log}\n"));
    let path = |path: &Template| path.expand(Numbers { instance: 3, instances: 4 }).into_string().unwrap();
    let found: Vec<_> = process.log_files.iter().map(|(key, file)| (key, path(file))).collect();
    assert_eq!((process.stdout, process.stderr), (stdout, stderr), "{log}");
    assert_eq!(found, files.iter().map(|(key, path)| (*key, (*path).to_owned())).collect::<Vec<_>>(), "{log}");
    assert_eq!((process.log_files.max_size, process.log_files.max_files), (max_size, max_files), "{log}");
}

#[test]
fn outputs_and_log_files_are_independent() {
    use Output::{Inherit, Null, Prefix, Raw};
    check_log("{}", Raw, Raw, &[], (0, 0));
    check_log("{ stdout = \"prefix\", stderr = \"inherit\" }", Prefix, Inherit, &[], (0, 0));
    check_log("{ file = \"/v/{service}-{instance}.log\" }", Raw, Raw, &[("file", "/v/web-3.log")], (10 << 20, 5));
    check_log(
        "{ stdout_file = \"/v/{instance}\", stderr_file = \"/e\", max_files = 1 }",
        Raw,
        Raw,
        &[("stdout_file", "/v/3"), ("stderr_file", "/e")],
        (10 << 20, 1),
    );
    check_log(
        "{ stdout = \"null\", stderr = \"prefix\", file = \"/v/a\", max_size = \"1KiB\", max_files = 0 }",
        Null,
        Prefix,
        &[("file", "/v/a")],
        (1_024, 0),
    );
}

#[test]
fn a_relative_log_file_is_relative_to_the_configuration() {
    let scratch = Scratch::new();
    scratch.write("keepalive.toml", b"[services.web]\ncommand = \"x\"\nlog.file = \"log/w\"\n");
    let mut loaded = scratch.load_as(Purpose::Run, 0).unwrap();
    let file = loaded.plan.services.remove(0).process.log_files.both.clone().unwrap();
    assert_eq!(file.expand(Numbers::SINGLE).into_string().unwrap(), scratch.0.join("log/w").to_str().unwrap());
}

#[test]
fn a_log_file_behind_a_link_that_is_not_followed_is_a_warning_of_check() {
    let scratch = Scratch::new();
    scratch.write("keepalive.toml", b"[services.web]\ncommand = \"/bin/true\"\nlog.file = \"/refused/w-{instance}\"\n");
    assert_eq!(scratch.output(scratch.load()), "", "it may be different where it runs");
    let expect = r#"
warning: keepalive.toml:3:12: /refused is a link: keepalive would not follow it, and drop the lines
  3 | log.file = "/refused/w-{instance}"
    |            ^^^^^^^^^^^^^^^^^^^^^^^
  = name the real path
"#;
    assert_eq!(scratch.output(scratch.load_as(Purpose::Check, 0)).trim(), expect.trim());
}

#[test]
fn with_json_or_timestamps_the_format_applies_to_services_by_default() {
    let check = |log: &str, format, timestamps, stdout| {
        let text = format!("[keepalive]\nlog = {log}\n[services.web]\ncommand = \"x\"\nlog.stderr = \"inherit\"\n");
        assert_eq!(plan(&text).log, LogStyle { format, timestamps });
        let process = process(&text);
        assert_eq!((process.stdout, process.stderr), (stdout, Output::Inherit), "{log}");
    };
    check("{}", LogFormat::Text, false, Output::Raw);
    check("{ format = \"text\", timestamps = false }", LogFormat::Text, false, Output::Raw);
    check("{ timestamps = true }", LogFormat::Text, true, Output::Prefix);
    check("{ format = \"json\" }", LogFormat::Json, false, Output::Prefix);
}

// At a terminal the output of several services is told apart; the service `main` has the terminal for itself.
#[test]
fn on_a_terminal_output_is_prefixed_and_the_service_main_inherits_it() {
    let scratch = Scratch::new();
    let path = scratch.write("keepalive.toml", b"[services.web]\ncommand = \"x\"\n");
    for (stdout_is_terminal, of_web, of_main) in
        [(true, Output::Prefix, Output::Inherit), (false, Output::Raw, Output::Raw)]
    {
        let loaded = scratch.with_environment(Purpose::Run, 0, &variables(), |environment| {
            load_with_main(&path, &["sh".into()], &Environment { stdout_is_terminal, ..*environment })
        });
        let outputs: Vec<_> = loaded
            .unwrap()
            .plan
            .services
            .iter()
            .map(|service| (service.process.stdout, service.process.stderr))
            .collect();
        assert_eq!(outputs, [(of_web, of_web), (of_main, of_main)]);
    }
}

#[test]
fn invalid_log_settings_are_errors() {
    check(
        "[keepalive]\nlog = { format = \"xml\", timestamp = true }\n[services.a]\ncommand = \"x\"\nlog = { stdout = \"file\", max_size = \"1MiB\" }\n[services.b]\ncommand = \"x\"\nlog = { file = \"\", max_size = \"10B\", max_files = -1 }\n",
        r#"
keepalive.toml:2:18: expected `"text"` or `"json"`, found `"xml"`
  2 | log = { format = "xml", timestamp = true }
    |                  ^^^^^

keepalive.toml:2:25: unknown key `timestamp` in `log` of `[keepalive]`
  2 | log = { format = "xml", timestamp = true }
    |                         ^^^^^^^^^
  = did you mean `timestamps`?

keepalive.toml:5:18: expected `"raw"`, `"prefix"`, `"inherit"` or `"null"`, found `"file"`
  5 | log = { stdout = "file", max_size = "1MiB" }
    |                  ^^^^^^

keepalive.toml:5:26: `max_size` has no effect without `file`
  5 | log = { stdout = "file", max_size = "1MiB" }
    |                          ^^^^^^^^
  = add `file`, or remove it

keepalive.toml:8:16: the path is empty
  8 | log = { file = "", max_size = "10B", max_files = -1 }
    |                ^^
  = remove `file` to write no log file

keepalive.toml:8:31: expected a size of at least 1 KiB, found `"10B"`
  8 | log = { file = "", max_size = "10B", max_files = -1 }
    |                               ^^^^^

keepalive.toml:8:50: expected a whole number from 0 to 1000, found `-1`
  8 | log = { file = "", max_size = "10B", max_files = -1 }
    |                                                  ^^

7 errors in the configuration
"#,
    );
}
