//! `keepalive import`: the configuration of another program → a keepalive.toml.
//!
//! Part of the program `keepalive-tools`, because PID 1 never needs it. It starts nothing but node, for a JavaScript file of PM2, and reads
//! nothing but the files that it is given and those that they include. What has no counterpart, or another meaning, becomes
//! a comment in the result, never silence. Start reading at [`run`]; `config_file.rs` is what each format is turned into, and
//! `text.rs` is text with the variables of the source.

mod arguments;
mod compose;
mod config_file;
mod import_error;
mod ini;
mod kind;
mod node;
mod pm2;
mod procfile;
mod run;
mod s6;
mod source;
mod supervisord;
mod systemd;
mod text;
mod units;
mod words;

pub use run::run;
