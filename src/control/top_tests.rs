//! Tests of frames on the screen.

use serde_json::json;

use super::*;

fn answer(web: (u64, u64), database: (u64, u64)) -> Value {
    let instance = |id: &str, (pid, cpu_ms): (u64, u64)| {
        json!({"id": id, "state": "running", "pid": pid, "ready": true, "restarts": 0, "uptime_ms": 1000,
               "rss_bytes": 1 << 20, "cpu_ms": cpu_ms, "processes": 1})
    };
    let services = json!([
        {"name": "db", "instances": [instance("db.0", database)]}, {"name": "web", "instances": [instance("web.0", web)]},
    ]);
    json!({"pid": 1, "version": "0.1.0", "uptime_ms": 5000, "services": services})
}

fn sample(milliseconds: u64, web: (u64, u64), database: (u64, u64)) -> Sample {
    let status = serde_json::from_value(answer(web, database)).unwrap();
    Sample::new(Mono::from_nanos(milliseconds * 1_000_000), status)
}

#[test]
fn the_busiest_instance_comes_first() {
    let before = sample(0, (7, 100), (8, 900));
    let now = sample(2_000, (7, 1_100), (8, 902));
    let expected = "\
keepalive 0.1.0, pid 1, up 5s: 2 running
CPU 50.1%, memory 2.0M
NAME   STATE    PID  CPU%  MEMORY  PROCS  RESTARTS  UPTIME
web.0  running    7  50.0    1.0M      1         0      1s
db.0   running    8   0.1    1.0M      1         0      1s
";
    assert_eq!(render_text(&now, Some(&before), Style { colour: Colour::No, columns: 80 }), expected);
}

#[test]
fn the_share_of_a_new_process_starts_at_zero() {
    let before = sample(0, (7, 50_000), (8, 0));
    let now = sample(1_000, (9, 300), (8, 0));
    let mut status = answer((9, 300), (8, 0));
    add_cpu_percent(&mut status, &now, &before);
    let share = |service: usize| status["services"][service]["instances"][0]["cpu_percent"].as_f64();
    assert_eq!((share(0), share(1)), (Some(0.0), Some(30.0)));
}

#[test]
fn a_frame_fits_the_screen_and_counts_the_lines_that_do_not() {
    let screen = |columns, rows| Size { columns, rows };
    assert_eq!(render_frame("a\nb\n", screen(80, 2)), "\x1b[H\x1b[Ka\r\n\x1b[Kb");
    assert_eq!(render_frame("a\nb\n", screen(80, 3)), "\x1b[H\x1b[Ka\r\n\x1b[Kb\r\n\x1b[J");
    let some = "\x1b[H\x1b[Ka\r\n\x1b[Kb\r\n\x1b[K… 2 more lines";
    assert_eq!(render_frame("a\nb\nc\nd\n", screen(80, 3)), some);
    assert_eq!(render_frame("abcd\nb\nc\n", screen(3, 2)), "\x1b[H\x1b[Kab…\r\n\x1b[K… …");
}

#[test]
fn no_line_of_a_frame_is_wider_than_a_narrow_screen() {
    let now = sample(2_000, (7, 1_100), (8, 902));
    for (columns, colour) in [(40, Colour::No), (40, Colour::Yes), (12, Colour::Yes), (1, Colour::Yes)] {
        let frame = render_frame(&render_text(&now, None, Style { colour, columns }), Size { columns, rows: 24 });
        for line in frame.split("\r\n") {
            let mut seen = 0;
            for part in line.split('\x1b') {
                let text = part.strip_prefix('[').and_then(|rest| rest.split_once(['m', 'K', 'H', 'J']));
                seen += text.map_or(part, |(_, text)| text).chars().count();
            }
            assert!(seen <= columns, "{columns}: {line:?}");
        }
        assert_eq!(frame.split("\r\n").count(), 6, "{frame:?}");
    }
}
