//! The pid of a former main process is reused by a process of another service.

use super::*;
use crate::harness::have_root;

/// Makes its child the main process, becomes the main process again, and reaps the child.
const FORMER: &str = r#"import sd, os
main = os.getpid()
there, here = os.pipe()
child = os.fork()
if child == 0:
    os.setsid()
    os.close(here)
    os.read(there, 1)
    os._exit(0)
sd.say(f"READY=1\nMAINPID={child}")
sd.say(f"MAINPID={main}\nSTATUS=from web")
sd.barrier()
os.close(here)
os.waitpid(child, 0)
with open(os.path.dirname(__file__) + "/pid", "w") as file:
    file.write(str(child))
sd.show("reaped", child)
sd.wait()
"#;

/// Creates a process with the pid in the file, clone3(2) `set_tid`, in a session of its own.
const REUSES: &str = r#"import sd, os, ctypes
pid = ctypes.c_uint64(int(open(os.path.dirname(__file__) + "/pid").read()))
SIGCHLD, SYS_clone3 = 17, 435
words = [0, 0, 0, 0, SIGCHLD, 0, 0, 0, ctypes.addressof(pid), 1, 0]
libc = ctypes.CDLL(None, use_errno=True)
child = libc.syscall(SYS_clone3, (ctypes.c_uint64 * 11)(*words), 88)
assert child >= 0, os.strerror(ctypes.get_errno())
if child == 0:
    os.setsid()
    sd.say("READY=1\nSTATUS=from other")
    sd.barrier()
    sd.show("reused", os.getpid())
sd.wait()
sd.show("is alive:", os.waitpid(child, os.WNOHANG) == (0, 0))
sd.wait()
"#;

// sd_notify(3), MAINPID=
#[test]
fn a_reused_pid_of_a_former_main_process_belongs_to_the_service_that_has_it_now() {
    if !have_root() {
        return;
    }
    let service = |name: &str, more: &str| {
        format!("[services.{name}]\ncommand = [\"python3\", \"DIR/{name}.py\"]\nready = \"notify\"\n{more}")
    };
    let text = service("web", "") + &service("other", "autostart = false\n");
    let set = set(&text, &[("web.py", FORMER), ("other.py", REUSES)]);
    in_every_place(|place| {
        let (running, control) = begin(&set, place);
        let former = running.number("reaped");
        assert_eq!(control.post("/v1/services/other/start").status, 200);
        assert_eq!(running.number("reused"), former);
        assert_eq!(notified(&control, "web.0")[0], "from web");
        assert_eq!(notified(&control, "other.0")[0], "from other");
        assert_eq!(control.post("/v1/services/web/stop").status, 200);
        assert_eq!(control.post("/v1/services/other/signal?signal=USR1").status, 200);
        running.expect("is alive: True");
        finish(running);
    });
}
