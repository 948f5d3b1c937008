//! The steps between clone(2) and execve(2) by number, in the order in which the child takes them.

pub(super) const SESSION: u8 = 0;
pub(super) const STDIO: u8 = 1;
pub(super) const OOM_SCORE_ADJ: u8 = 2;
pub(super) const LIMIT: u8 = 3;
pub(super) const NICE: u8 = 4;
pub(super) const GROUPS: u8 = 5;
pub(super) const GROUP: u8 = 6;
pub(super) const USER: u8 = 7;
pub(super) const DIRECTORY: u8 = 8;
pub(super) const NO_NEW_PRIVS: u8 = 9;
pub(super) const EXEC: u8 = 10;
pub(super) const DESCRIPTORS: u8 = 11;
pub(super) const STATE: u8 = 12;
pub(super) const STORED: u8 = 13;
pub(super) const ENV_FILE: u8 = 14;
pub(super) const ENV_LINE: u8 = 15;
pub(super) const INTERPRETER: u8 = 16;
pub(super) const ARCHITECTURE: u8 = 17;
