//! What the user is told when there is no io_uring to be had: one sentence with the cure, and exit code 1.
#![expect(unsafe_code, reason = "the child forbids itself the system call before it becomes seedring")]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

fn statement(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// Answers a system call with `errno` from now on, in this process and all it becomes.
fn forbid(call: libc::c_long, errno: u32) -> std::io::Result<()> {
    let mut filter = [
        // The number of the system call lies first in `seccomp_data`.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: plain numbers.
    let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if done != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the kernel reads the program and its filter during the call, and both live until after it.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if done != 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// `seedring seed` of a small file, in a folder that everybody may write to.
fn seed_command(folder: &std::path::Path) -> Command {
    // A copy, since nobody else may reach the place of the original.
    let program = folder.join("seedring");
    std::fs::copy(env!("CARGO_BIN_EXE_seedring"), &program).unwrap();
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::write(folder.join("content"), "some bytes").unwrap();
    let mut command = Command::new(program);
    command.args(["seed", "content", "--bind", "127.0.0.1", "--port", "0", "--tracker-port", "0"]);
    command.arg("--state-dir").arg(folder.join("state")).current_dir(folder);
    command
}

/// Runs the command to its end; answers what it said on stderr.
fn failure(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    said
}

#[test]
fn a_seccomp_filter_that_forbids_io_uring_is_named_with_its_cure() {
    for (errno, cure) in [(libc::EPERM, "seccomp=unconfined"), (libc::ENOSYS, "Linux 6.1")] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = seed_command(folder.path());
        // SAFETY: the closure only makes system calls, on memory of its own.
        unsafe { command.pre_exec(move || forbid(libc::SYS_io_uring_setup, errno as u32)) };
        let said = failure(&mut command);
        assert!(said.contains("io_uring") && said.contains(cure), "{said}");
    }
}

#[test]
fn a_limit_of_locked_memory_that_is_too_low_is_named_with_its_cure() {
    const NOBODY: u32 = 65_534;
    let folder = tempfile::tempdir().unwrap();
    let mut command = seed_command(folder.path());
    // Root is not bound by the limit.
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let lower = || {
        let limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the kernel reads the limit during the call.
        let done = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
        if done != 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: the closure only makes a system call, on memory of its own.
    unsafe { command.pre_exec(lower) };
    let said = failure(&mut command);
    assert!(said.contains("the limit is 0 KiB") && said.contains("ulimit -l"), "{said}");
}

#[test]
fn a_ring_that_the_kernel_refuses_under_way_ends_the_process_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = seed_command(folder.path());
    // The ring is made, and whatever is asked of it is refused.
    // SAFETY: the closure only makes system calls, on memory of its own.
    unsafe { command.pre_exec(|| forbid(libc::SYS_io_uring_enter, libc::EIO as u32)) };
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("has ended, since the kernel refused its ring"), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
}
