//! Refuses a system call to the program that follows and to all its children, as a sandbox does. seccomp(2)

use super::execute_after;

/// The offset of the number of the system call in the kernel's `struct seccomp_data`.
const CALL_NUMBER: u32 = 0;

/// `CALL ERRNO PROGRAM ARGUMENT…`: executes the program, for which the system call with this number fails.
pub(super) fn refuse(call: &str, errno: &str, program: &[&str]) -> u8 {
    let (call, errno): (u32, u32) = (call.parse().expect("a call"), errno.parse().expect("an errno"));
    let statement = |code: u32, k| libc::sock_filter { code: u16::try_from(code).expect("a code"), jt: 0, jf: 0, k };
    let mut filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, CALL_NUMBER),
        libc::sock_filter { jf: 1, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, call) },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    let install = || {
        nix::sys::prctl::set_no_new_privs().expect("prctl");
        let mode = libc::SECCOMP_MODE_FILTER;
        // SAFETY: `filter` has the four statements that its length says.
        let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter) };
        assert_eq!(result, 0, "seccomp: {}", std::io::Error::last_os_error());
    };
    execute_after(install, program)
}
