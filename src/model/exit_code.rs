//! keepalive's own exit codes: sysexits(3), and those of a shell. The exit code of a panic is in `logs::bug`.

/// Invalid command line.
pub const USAGE: u8 = 2;
/// `EX_OSERR`: the system refuses something that keepalive cannot work without.
pub const OS_ERROR: u8 = 71;
/// `EX_CONFIG`: the configuration cannot be read or is invalid.
pub const INVALID_CONFIG: u8 = 78;
/// The command was found but cannot be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// The command was not found.
pub const NOT_FOUND: u8 = 127;
