//! catatonit.

use std::ffi::OsString;

use super::getopt::{Getopt, KnownOptions, Opt};
use super::parsed::{Context, LICENCE, Output, Parsed};

use crate::init::{Compat, Options, Placement, Subreaper};
use crate::model::Signal;

/// `docker info` parses it.
const VERSION: &str = "tini version 0.2.1_catatonit\n";
const LETTERS: &str = "ghLPV";
const NAMES: &[(&str, u8)] = &[("version", b'V')];
/// The stop signals of the terminal: the command receives them itself.
const NEVER_FORWARDED: [Signal; 3] = [Signal::TSTP, Signal::TTIN, Signal::TTOU];
const USAGE: &str = "usage: catatonit [-ghLPV] [--] <progname> [<arguments>...]\n";
const HELP: &str = "
options:
  -g              Forward signals to pid1's process group.
  -h              Print this help page.
  -L              Print license information.
  -P              Run in pause mode (no program is run and quit on SIGINT).
  -V, --version   Print version information.

The source code can be found at <https://github.com/openSUSE/catatonit/>.
For bug reporting instructions, please see: <https://bugs.opensuse.org/>.
";

pub(super) fn read(program: &str, words: &[OsString], context: &Context<'_>) -> Parsed {
    let variable = context.variable;
    let error = |what: &str| format!("ERROR (catatonit:{}): {what}\n", context.id);
    if variable("CATATONIT_LOG").is_some() {
        return Err(Output::error(error("CATATONIT_LOG is reserved for future use")));
    }
    let mut options = Options {
        compat: Compat::Catatonit,
        subreaper: Subreaper::Yes,
        rewrite: NEVER_FORWARDED.map(|signal| (signal, None)).to_vec(),
        verbosity: u8::from(variable("CATATONIT_DEBUG").is_some()),
        ..Options::default()
    };
    let known = KnownOptions { letters: LETTERS, names: NAMES, permutes: variable("POSIXLY_CORRECT").is_none() };
    let mut getopt = Getopt::new(program, known, words);
    while let Some(option) = getopt.next().map_err(|line| Output::error(line + USAGE))? {
        set(&mut options, &option)?;
    }
    let command = getopt.operands();
    if command.is_empty() && options.placement != Placement::NoCommand {
        return Err(Output::error(error("missing program name") + USAGE));
    }
    Ok((options, command))
}

fn set(options: &mut Options, option: &Opt) -> Result<(), Output> {
    match option.letter {
        b'g' => options.group = true,
        b'P' => options.placement = Placement::NoCommand,
        b'h' => return Err(Output::requested_on_stderr(format!("{USAGE}{HELP}"))),
        b'L' => return Err(Output::requested(LICENCE)),
        b'V' => return Err(Output::requested(VERSION)),
        _ => {}
    }
    Ok(())
}
