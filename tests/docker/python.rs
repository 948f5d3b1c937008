//! Python of this machine in an image, with the parts of its library that a program needs.

use std::path::Path;
use std::process::Command;

use super::archive::Archive;
use super::client::lossy;
use super::engine::skip;
use super::host;

/// Prints the path of the interpreter, then that of each loaded module, and of the library that the C library loads when
/// a thread exits.
const MODULES: &str = r#"
import encodings.idna, os, runpy, sys, traceback
print(os.path.realpath(sys.executable))
for module in list(sys.modules.values()):
    if path := getattr(module, "__file__", None):
        print(path)
        main = os.path.join(os.path.dirname(path), "__main__.py")
        if os.path.basename(path) == "__init__.py" and os.path.exists(main):
            print(main)
with open("/proc/self/maps") as maps:
    libc = next(line.split()[-1] for line in maps if line.endswith("/libc.so.6\n"))
print(os.path.join(os.path.dirname(libc), "libgcc_s.so.1"))
"#;

/// Adds Python with these modules and their imports, also as `python3`, and returns its path. `None` if something is
/// missing; the test is skipped.
pub(crate) fn add_python(archive: &mut Archive, modules: &str) -> Option<String> {
    let Some(python) = host::find("python3") else {
        skip("python3 is not installed");
        return None;
    };
    let script = format!("import {modules}{MODULES}");
    let output = Command::new(python).args(["-I", "-c", &script]).output().unwrap();
    if !output.status.success() {
        skip(&format!("python3 has not all of {modules}: {}", lossy(&output.stderr)));
        return None;
    }
    let paths = lossy(&output.stdout);
    let (interpreter, modules) = paths.split_once('\n').unwrap();
    host::add_program(archive, Path::new(interpreter));
    for module in modules.lines().map(Path::new) {
        if module.extension().is_some_and(|extension| extension == "so" || extension == "1") {
            host::add_program(archive, module);
        } else {
            host::add_file(archive, module);
        }
    }
    archive.symlink("/usr/bin/python3", interpreter);
    Some(interpreter.to_owned())
}
