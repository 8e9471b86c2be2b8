//! System calls as numbers, and attempts in processes of their own.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::libc;

use super::Outcome;

/// Seconds after which an attempt is taken to hang.
const ATTEMPT_S_MAX: u32 = 10;

/// A system call with arguments that are numbers or addresses of what lives.
#[expect(unsafe_code, reason = "most of what is attempted has no safe form")]
pub(super) fn call(number: i64, arguments: &[usize]) -> Result<usize, i32> {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    let [a, b, c, d, e, f] = all;
    // SAFETY: addresses are of values that the caller holds, as large as the call says. `clone` is
    // asked for without a stack, and so is a fork.
    let told = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    usize::try_from(told).map_err(|_| errno())
}

/// The same, when only success matters.
pub(super) fn act(number: i64, arguments: &[usize]) -> Outcome {
    call(number, arguments).map(drop)
}

pub(super) fn errno() -> i32 {
    reason(&io::Error::last_os_error())
}

/// The number in an error of the standard library.
pub(super) fn reason(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// A path for a system call.
pub(super) fn c_path(path: &Path) -> Result<CString, i32> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| libc::EINVAL)
}

/// Runs an attempt in a process of its own, so that what it changes is gone afterwards.
#[expect(unsafe_code, reason = "fork and _exit have no safe form; there is one thread")]
pub(super) fn apart(attempt: impl FnOnce() -> Outcome) -> Outcome {
    // SAFETY: this process has one thread.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(errno());
    }
    if pid == 0 {
        // SAFETY: no memory is passed.
        unsafe { libc::alarm(ATTEMPT_S_MAX) };
        leave(attempt());
    }
    let mut status = 0;
    // SAFETY: the status lives.
    if unsafe { libc::waitpid(pid, &raw mut status, 0) } != pid {
        return Err(errno());
    }
    match libc::WEXITSTATUS(status) {
        _ if !libc::WIFEXITED(status) => Err(libc::ETIME),
        0 => Ok(()),
        errno => Err(errno),
    }
}

/// Ends this process with the outcome for a status.
#[expect(unsafe_code, reason = "_exit runs nothing that belongs to the parent")]
pub(super) fn leave(outcome: Outcome) -> ! {
    // SAFETY: it does not return.
    unsafe { libc::_exit(outcome.err().unwrap_or(0)) }
}

/// Becomes another program. Returns only when that failed.
pub(super) fn become_program(program: &Path, arguments: &[&str]) -> Outcome {
    let program = c_path(program)?;
    let texts: Vec<CString> = arguments
        .iter()
        .map(|text| CString::new(*text))
        .collect::<Result<_, _>>()
        .map_err(|_| libc::EINVAL)?;
    let mut argv: Vec<usize> = vec![program.as_ptr() as usize];
    argv.extend(texts.iter().map(|text| text.as_ptr() as usize));
    argv.push(0);
    act(libc::SYS_execve, &[program.as_ptr() as usize, argv.as_ptr() as usize, 0])
}

/// Whether this process acts as the administrator for somebody who is not.
pub(super) fn has_gained() -> bool {
    nix::unistd::geteuid().is_root() && !nix::unistd::getuid().is_root()
}

/// This very program.
pub(super) fn own_program() -> Result<std::path::PathBuf, i32> {
    std::env::current_exe().map_err(|error| reason(&error))
}
