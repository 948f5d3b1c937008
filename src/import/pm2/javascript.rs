//! A configuration in JavaScript, evaluated by node.

use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::import::import_error::ImportError;
use crate::import::node::{self, Data, Node};

/// How long node may be silent, in milliseconds.
const NODE_TIMEOUT: u16 = 10_000;
/// The maximum size of the JSON in bytes.
const MAX_OUTPUT_SIZE: usize = 4 << 20;
/// Loads the file three times: with the environment as it is, with a mark for each variable, and without any variable.
const SCRIPT: &str = include_str!("evaluate.js");

/// The value that the file `path` exports.
pub(super) fn evaluate(path: &Path) -> Result<Node, ImportError> {
    let place = path.display().to_string();
    let output = run(path).map_err(|error| {
        let is_missing = error.kind() == io::ErrorKind::NotFound;
        let message = if is_missing {
            "a JavaScript file is read by node, which is not in PATH".to_owned()
        } else {
            format!("node, which reads a JavaScript file, has failed: {error}")
        };
        let remedy =
            "import it where node is, or a JSON file: node -p 'JSON.stringify(require(\"./ecosystem.config.js\"))'";
        ImportError::new(place.clone(), message, remedy)
    })?;
    let result = node::from_json(path, &output)
        .map_err(|_| ImportError::new(place.clone(), "node has ended before it printed the configuration", ""))?;
    if let Some(error) = result.get("error").and_then(Node::text) {
        let is_module = result.get("code").and_then(Node::text).is_some_and(|code| code == "ERR_REQUIRE_ESM");
        let remedy = if is_module {
            "PM2 reads CommonJS: name it .cjs, with `module.exports = …`"
        } else {
            "it must be possible to load it: node -e 'require(\"./ecosystem.config.js\")'"
        };
        return Err(ImportError::new(place, format!("node cannot load it: {error}"), remedy));
    }
    Ok(result.get("value").cloned().unwrap_or(Node { data: Data::Null, line: 0 }))
}

/// What node prints.
#[expect(clippy::disallowed_methods, reason = "this program is not PID 1, and has no other child")]
fn run(path: &Path) -> io::Result<String> {
    let mut command = Command::new("node");
    command.arg("-e").arg(SCRIPT).arg("--").arg(path);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let output = read(&mut child);
    // It has ended, or it must.
    child.kill().ok();
    child.wait()?;
    output
}

fn read(child: &mut Child) -> io::Result<String> {
    let mut stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut output = Vec::new();
    let mut buffer = [0; 1 << 16];
    loop {
        let mut wanted = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
        if poll(&mut wanted, PollTimeout::from(NODE_TIMEOUT))? == 0 {
            return Err(io::Error::other("it did not end within 10 seconds"));
        }
        let count = stdout.read(&mut buffer)?;
        if count == 0 {
            return String::from_utf8(output).map_err(io::Error::other);
        }
        output.extend_from_slice(buffer.get(..count).unwrap_or_default());
        if output.len() > MAX_OUTPUT_SIZE {
            return Err(io::Error::other("its output is larger than 4 MiB"));
        }
    }
}
