//! supervisord.conf, with the files of `[include]`.

mod expansion;
mod include;
mod program;
mod sections;

pub(super) use sections::import;
