//! No content of a file makes loading panic, hang or miss an error.

use super::*;

const SEED_TEXT: &str = r#"[keepalive]
include = ["d/*.toml"]
signals = { SIGHUP = "ignore", "RTMIN+3" = "shutdown" }
[services.web]
command = ["node", "${PORT:-x{instance}}", "{service}", "$$"]
instances = 4
env = { A = "b", "c d" = "${EMPTY}" }
limits = { nofile = { soft = 1, hard = "64KiB" }, core = "unlimited" }
backoff = { initial = "1s", factor = 1.5, jitter = 0.5 }
ready = { http = "http://localhost:80{instance}/ok?a" }
ready_timeout = "1m30s"
listen = { http = "tcp://0.0.0.0:${PORT}", admin = { address = "unix://a.sock", mode = "0600", user = "www" } }
listen_mode = "shared"
reload = { strategy = "signal", signal = "SIGHUP" }
state = { size = "1KiB", persist = "s-{instance}" }
fd_store = 2
user = "www"
umask = "0022"
success_exit_codes = [0, "SIGTERM"]
depends_on = ["db"]
[services.db]
command = 'db "a b" {fd.x}'
listen.x = "udp://[::1]:5"
ready = { exec = "a {fd.x}" }
reload = { max_surge = 2, soak = "1s" }
"#;

/// xorshift64: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).unwrap()
    }
}

fn mutated(random: &mut Random) -> Vec<u8> {
    const PIECES: [&[u8]; 20] = [
        b"\"",
        b"'",
        b"[",
        b"]",
        b"{",
        b"}",
        b"${",
        b"$$",
        b"=",
        b"\n",
        b"\0",
        b"\xff",
        b"-1",
        b"99999999999999999999",
        b"\"\"\"",
        b"[[",
        b"\\u0000",
        b"1979-05-27",
        b"nan",
        b",",
    ];
    let mut text = SEED_TEXT.as_bytes().to_vec();
    for _ in 0..=random.below(4) {
        let position = random.below(text.len());
        match random.below(4) {
            0 => drop(text.remove(position)),
            1 => drop(text.splice(position..position, PIECES[random.below(PIECES.len())].iter().copied())),
            2 => {
                let end = position + random.below(text.len() - position);
                let part = text[position..end].to_vec();
                let target = random.below(text.len());
                drop(text.splice(target..target, part));
            }
            _ => text.truncate(position.max(1)),
        }
    }
    text
}

#[test]
fn the_unmutated_file_is_valid() {
    let plan = plan(SEED_TEXT);
    assert_eq!(plan.services.len(), 2);
}

#[test]
fn a_mutated_file_gives_a_plan_or_a_report() {
    let scratch = Scratch::new();
    let path = scratch.0.join("keepalive.toml");
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..2000 {
        let text = mutated(&mut random);
        std::fs::write(&path, &text).unwrap();
        match scratch.load_as(if round % 2 == 0 { Purpose::Run } else { Purpose::Check }, 0) {
            Ok(loaded) => assert!(!loaded.plan.services.is_empty()),
            Err(report) => {
                assert!(!report.errors.is_empty());
                assert!(report.to_string().contains("in the configuration"));
            }
        }
    }
}

#[test]
fn every_prefix_of_a_file_gives_a_plan_or_a_report() {
    let scratch = Scratch::new();
    let path = scratch.0.join("keepalive.toml");
    for end in 0..SEED_TEXT.len() {
        std::fs::write(&path, &SEED_TEXT.as_bytes()[..end]).unwrap();
        if let Err(report) = scratch.load() {
            assert!(!report.errors.is_empty());
        }
    }
}

#[test]
fn a_chain_of_a_thousand_services_is_valid() {
    let mut text = String::new();
    for number in 0..1000 {
        let after = if number == 999 { String::new() } else { format!("\"s{}\"", number + 1) };
        text.push_str(&format!("[services.s{number}]\ncommand = [\"x\", \"{{service}}\"]\ndepends_on = [{after}]\n"));
    }
    let plan = plan(&text);
    assert_eq!(plan.services.len(), 1000);
    assert_eq!(start_order(&plan).first(), Some(&ServiceIndex(999)));
    let closed = text.replace("depends_on = []", "depends_on = [\"s0\"]");
    let scratch = Scratch::new();
    scratch.write("keepalive.toml", closed.as_bytes());
    let report = scratch.load().unwrap_err();
    assert_eq!(report.errors.len(), 1);
    assert!(report.errors[0].message.starts_with("dependency cycle: s0 → s1 → "));
}

#[test]
fn errors_that_are_not_shown_are_counted() {
    let scratch = Scratch::new();
    scratch.write("keepalive.toml", format!("[services.web]\ncommand = \"x\"\n{}", "?\n".repeat(100_000)).as_bytes());
    let report = scratch.load().unwrap_err();
    assert_eq!(report.errors.len(), 200);
    assert!(report.omitted >= 99_800, "{}", report.omitted);
    let many: String = (0..1000).map(|number| format!("x{number} = 1\n")).collect();
    scratch.write("keepalive.toml", format!("{many}[services.web]\ncommand = \"x\"\n").as_bytes());
    let report = scratch.load().unwrap_err();
    assert!(report.to_string().ends_with("1000 errors in the configuration, 200 of them shown\n"));
}

#[test]
fn deep_nesting_is_an_error() {
    let scratch = Scratch::new();
    for text in ["[".repeat(100_000), format!("a = {}", "[".repeat(100_000)), format!("a = {}", "{a=".repeat(50_000))] {
        scratch.write("keepalive.toml", text.as_bytes());
        assert!(scratch.load().is_err());
    }
}
