//! `state`: memory and files that survive the processes of an instance.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::harness::{Place, have_root, places};
use crate::services::Set;

const AT_ONCE: &str = r#"
    backoff = { initial = "1ms", max = "1ms" }
    max_restarts = "unlimited"
    restart = "on-failure"
"#;

#[test]
fn a_counter_in_memory_loses_nothing_over_a_hundred_crashes() {
    let set = Set::new(&format!(
        r#"
        [services.web]
        command = ["PUPPET", "count", "101"]
        instances = 2
        state = {{ size = "1MiB" }}
        {AT_ONCE}
        "#
    ));
    for place in places() {
        let (code, stdout, stderr) = set.run(place).finish();
        assert_eq!(code, 0, "{stderr}");
        assert_eq!(stdout, "counted 101 of 1048576 bytes\ncounted 101 of 1048576 bytes");
    }
}

#[test]
fn with_a_file_it_survives_keepalive_too() {
    let text = |end: &str, size: &str| {
        format!(
            r#"
            [services.web]
            command = ["PUPPET", "count", "{end}"]
            state = {{ size = "{size}", persist = "DIR/web-{{instance}}.state" }}
            {AT_ONCE}
            "#
        )
    };
    let set = Set::new(&text("10", "4KiB"));
    let mut expect = (10, 4096);
    for (end, size) in [("20", "4KiB"), ("30", "8KiB"), ("40", "1KiB")] {
        let (code, stdout, stderr) = set.run(Place::Child).finish();
        assert_eq!((code, stdout), (0, format!("counted {} of {} bytes", expect.0, expect.1)), "{stderr}");
        expect = (expect.0 + 10, if size == "8KiB" { 8192 } else { expect.1 });
        let changed = Set::new(&text(end, size).replace("DIR", set.directory.path().to_str().unwrap()));
        std::fs::copy(&changed.config, &set.config).unwrap();
    }
    let file = std::fs::metadata(set.directory.path().join("web-0.state")).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
}

#[test]
fn its_file_belongs_to_the_user_of_the_service() {
    if !have_root() {
        return;
    }
    let set = Set::new(&format!(
        r#"
        [services.web]
        command = ["PUPPET", "count", "10"]
        user = "12345"
        group = "23456"
        state = {{ size = "4KiB", persist = "DIR/state" }}
        {AT_ONCE}
        "#
    ));
    for place in places() {
        let (code, stdout, stderr) = set.run(place).finish();
        assert_eq!((code, stdout.as_str()), (0, "counted 10 of 4096 bytes"), "{stderr}");
        let file = std::fs::metadata(set.directory.path().join("state")).unwrap();
        assert_eq!((file.uid(), file.gid(), file.permissions().mode() & 0o777), (12345, 23456, 0o600));
        std::fs::remove_file(set.directory.path().join("state")).unwrap();
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_a_failed_start_that_names_it() {
    let set = Set::new(
        r#"
        [services.web]
        command = ["PUPPET", "count", "10"]
        state = { size = "4KiB", persist = "DIR/missing/web-{instance}" }
        max_restarts = 0
        "#,
    );
    let (code, stdout, stderr) = set.run(Place::Child).finish();
    assert_eq!((code, stdout.as_str()), (126, ""), "{stderr}");
    let path = format!("{}/missing/web-0", set.directory.path().display());
    let expect = format!("cannot open its `state` `{path}`: No such file or directory");
    assert!(stderr.contains(&expect), "{stderr}");
}

// open(2) with our rights in a directory of the service's would give it whatever it puts a link to.
#[test]
fn a_link_leads_nowhere_that_the_service_may_not_go() {
    use std::os::unix::fs::{chown, symlink};
    if !have_root() {
        return;
    }
    for (name, reason) in
        [("hard", "Permission denied"), ("up/new", "Permission denied"), ("soft", "Too many levels of symbolic links")]
    {
        let set = Set::new(&format!(
            r#"
            [services.web]
            command = ["PUPPET", "count", "1"]
            user = "12345"
            state = {{ size = "4KiB", persist = "DIR/own/{name}" }}
            max_restarts = 0
            "#
        ));
        let (precious, own) = (set.directory.file("precious", b"content", 0o600), set.directory.path().join("own"));
        std::fs::create_dir(&own).unwrap();
        std::fs::hard_link(&precious, own.join("hard")).unwrap();
        symlink("..", own.join("up")).unwrap();
        symlink(own.join("hard"), own.join("soft")).unwrap();
        chown(&own, Some(12345), None).unwrap();
        let (code, _, stderr) = set.run(Place::Child).finish();
        assert_eq!(code, 126, "{stderr}");
        assert!(stderr.contains(&format!("own/{name}`: {reason}")), "{stderr}");
        assert_eq!(std::fs::read(&precious).unwrap(), b"content");
        assert_eq!(std::fs::metadata(&precious).unwrap().uid(), 0);
        assert!(!set.directory.path().join("new").exists());
    }
}
