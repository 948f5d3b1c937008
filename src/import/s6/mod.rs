//! Service directories of s6-overlay (`s6-rc.d`, `services.d`, `cont-init.d`) and runit.

mod directory;
mod script;
mod tree;

pub(super) use tree::import;
