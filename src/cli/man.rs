//! The manual page, keepalive(1), in the macros of man(7).

use std::fmt::Write as _;

use super::definitions::{Definition, PROGRAM, commands};
use super::help::CONCLUSION;

const DESCRIPTION: &str = "\
.SH DESCRIPTION
keepalive is PID 1 of a container, or a supervisor elsewhere. It runs one command as a tiny init does: it reaps zombies,
forwards signals and returns the exit code. Or it runs a set of services from one file: it starts them in order, restarts
them with backoff when they fail, stops them in order, and returns the exit code of the service that ended it. The other
commands below control a running keepalive.
";

const END: &str = "\
.SH EXIT STATUS
That of the process that ended it, 128+N if signal N killed it; 0 after an orderly shutdown; 2 wrong usage; 70 a bug in
keepalive; 71 a system call that keepalive depends on failed; 78 the configuration cannot be read or is invalid; 126 the
command is not executable; 127 the command was not found.
.PP
Of commands to a running keepalive: 0 done; 1 refused, not found, not finished in time or not ready; 2 wrong usage;
3 no response.
.B keepalive health
returns only 0 and 1.
.SH ENVIRONMENT
.TP
.B KEEPALIVE_CONFIG
The configuration file, unless \\fB\\-c\\fR is given.
.TP
.B KEEPALIVE_SOCKET
The control socket, unless \\fB\\-\\-socket\\fR or \\fB\\-c\\fR is given.
.TP
.B KEEPALIVE_LOG
The level of log messages on stderr: error, warn, info, debug, off.
.TP
.B NO_COLOR
If it is set and not empty, output has no colors.
.SH FILES
.TP
.I ./keepalive.toml\\fR, \\fI/etc/keepalive/keepalive.toml\\fR, \\fI/etc/keepalive.toml
The configuration: the first that exists.
.TP
.I /run/keepalive.sock\\fR, \\fI$XDG_RUNTIME_DIR/keepalive.sock\\fR, \\fI/tmp/keepalive\\-UID.sock
The control socket of a keepalive that is PID 1: the first that exists. Any other one has a hash of the path of its
configuration file in the name: \\fIkeepalive\\-HASH.sock\\fR.
.TP
.I /dev/termination\\-log
If it exists, the reason of an unrequested shutdown is written to it.
";

/// The whole page.
pub(super) fn page() -> String {
    let mut text =
        format!(".TH KEEPALIVE 1 \"\" \"keepalive {}\" \"keepalive\"\n.SH NAME\n", env!("CARGO_PKG_VERSION"));
    let _ = writeln!(text, "keepalive \\- {}\n.SH SYNOPSIS\n.nf", escaped(PROGRAM.summary));
    let clients = commands().map(|definition| definition.forms);
    for (form, _) in std::iter::once(PROGRAM.forms).chain(clients).flatten() {
        let _ = writeln!(text, "{}", escaped(form));
    }
    text.push_str(".fi\n");
    text.push_str(DESCRIPTION);
    text.push_str(".SH OPTIONS FOR ONE COMMAND\n");
    push_options(&mut text, &PROGRAM);
    text.push_str(".SH COMMANDS\n");
    commands().for_each(|definition| push_section(&mut text, definition));
    text.push_str(END);
    text.push_str(".SH EXAMPLES\n");
    let example = CONCLUSION
        .lines()
        .skip_while(|line| !line.starts_with("  "))
        .take_while(|line| line.is_empty() || line.starts_with("  "));
    push_lines(&mut text, example);
    text
}

fn push_section(text: &mut String, definition: &Definition) {
    let _ = writeln!(text, ".SS keepalive {}\n{}", definition.name, sentence(definition.summary));
    for (form, meaning) in definition.forms {
        let _ = match *meaning {
            "" => writeln!(text, ".PP\n.B {}", escaped(form)),
            meaning => writeln!(text, ".TP\n.B {}\n{}", escaped(form), sentence(meaning)),
        };
    }
    if !definition.text.is_empty() {
        begin_paragraph(text);
    }
    push_lines(text, definition.text.lines());
    push_options(text, definition);
}

/// Appends paragraphs and indented examples.
fn push_lines<'l>(text: &mut String, lines: impl Iterator<Item = &'l str>) {
    let mut in_example = false;
    for line in lines {
        let is_example = line.starts_with("  ") || (in_example && line.is_empty());
        match (in_example, is_example) {
            (false, true) => {
                begin_paragraph(text);
                text.push_str(".nf\n.RS\n");
            }
            (true, false) => {
                text.push_str(".RE\n.fi\n");
                begin_paragraph(text);
            }
            (false, false) | (true, true) => {}
        }
        in_example = is_example;
        let line = if is_example { line.strip_prefix("  ").unwrap_or(line) } else { line };
        match line {
            "" if is_example => text.push_str(".sp\n"),
            "" => begin_paragraph(text),
            line => {
                let _ = writeln!(text, "{}", escaped(line));
            }
        }
    }
    if in_example {
        text.push_str(".RE\n.fi\n");
    }
}

fn push_options(text: &mut String, definition: &Definition) {
    for option in definition.options() {
        let names: Vec<String> = option.names().iter().map(|name| format!("\\fB{}\\fR", escaped(name))).collect();
        let value = if option.value.is_empty() { String::new() } else { format!(" \\fI{}\\fR", escaped(option.value)) };
        let _ = writeln!(text, ".TP\n{}{value}\n{}", names.join(", "), sentence(option.help));
    }
}

/// Begins a paragraph, unless `text` already ends with the beginning of one.
fn begin_paragraph(text: &mut String) {
    if ![".PP\n", ".SH EXAMPLES\n"].iter().any(|request| text.ends_with(request)) {
        text.push_str(".PP\n");
    }
}

/// Escapes `text` and ends it with a full stop.
fn sentence(text: &str) -> String {
    let full_stop = if text.ends_with(['?', '.']) { "" } else { "." };
    escaped(text) + full_stop
}

/// Escapes minus signs, backslashes and control characters at the beginning of a line.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('…', "\\&...").replace('’', "\\(cq");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}
