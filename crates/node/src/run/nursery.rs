//! The nursery: one small process per node that forks the guards of its runs.
//!
//! Starting a guard by exec costs three times what the command `true` costs, nearly all of it in
//! the dynamic linker; a fork of a process that was linked once costs a tenth of that. The node
//! itself cannot fork: it has threads. So it starts its own program once as the nursery, which has
//! none, and sends it the ends of each run's pipes.
//!
//! The nursery ends when the node process does: its socket is closed then. Never here: threads, a
//! runtime, arguments of commands, waiting for a run.

use std::io::IoSliceMut;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::{ForkResult, fork};

use super::guard::{self, Ends, Streams};

/// The argument that makes a program a nursery.
pub const GUARD_ARG: &str = "__guard";
/// Control socket, standard output, standard error, and standard input when it was asked for.
pub(super) const ENDS_MAX: usize = 4;

/// Turns this process into a nursery when it was started as one, and then never returns. Call it
/// first in `main`, before any thread or runtime.
#[expect(clippy::disallowed_methods, reason = "main must not go on in a nursery or a guard")]
pub fn run_if_guard() {
    if std::env::args_os().nth(1).is_some_and(|arg| arg == GUARD_ARG) {
        std::process::exit(serve());
    }
}

/// The nursery's life, and that of each guard that it forks. Standard input is the socket to the
/// node. Returns the process's exit status.
fn serve() -> i32 {
    if prepare().is_err() {
        return 1;
    }
    loop {
        match receive() {
            Ok(Some(ends)) => match fork_guard() {
                // A node that gets no guard sees its ends closed.
                Ok(ForkResult::Parent { .. }) | Err(_) => drop(ends),
                Ok(ForkResult::Child) => return become_guard(ends),
            },
            Ok(None) => return 0,
            Err(_) => return 1,
        }
    }
}

fn prepare() -> nix::Result<()> {
    // A terminal's Ctrl-C is for the node, which ends its runs in order. A process that leads its
    // group already has no terminal to lose.
    let _own_session = nix::unistd::setsid();
    close_inherited();
    ignore_children()
}

/// The next ends, or nothing when the node process is gone.
fn receive() -> nix::Result<Option<Ends>> {
    let socket = std::io::stdin();
    let mut byte = [0];
    let mut space = nix::cmsg_space!([RawFd; ENDS_MAX]);
    let mut parts = [IoSliceMut::new(&mut byte)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Err(nix::errno::Errno::EINTR) => {}
            other => break other?,
        }
    };
    if message.bytes == 0 {
        return Ok(None);
    }
    let mut fds = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = part {
            fds.extend(numbers.into_iter().map(own));
        }
    }
    let mut fds = fds.into_iter();
    let (Some(control), Some(stdout), Some(stderr)) = (fds.next(), fds.next(), fds.next()) else {
        return Err(nix::errno::Errno::EPROTO);
    };
    let stdio = Streams { stdin: fds.next(), stdout, stderr };
    Ok(Some(Ends { control: UnixStream::from(control), stdio }))
}

fn become_guard(ends: Ends) -> i32 {
    // The nursery's socket must not stay open here: its end tells the nursery that the node is gone,
    // and that of the node that the nursery is.
    let Ok(null) = std::fs::File::open("/dev/null") else { return 1 };
    if nix::unistd::dup2_stdin(&null).is_err() {
        return 1;
    }
    drop(null);
    guard::live(ends)
}

/// Closes what came from the node's own starter beside the standard streams. What this program
/// opens itself is close-on-exec and is not among it.
fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let fds: Vec<RawFd> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for fd in fds.into_iter().filter(|fd| *fd > 2) {
        // The listing's own descriptor is closed by now; that is no failure.
        let _closed = nix::unistd::close(fd);
    }
}

/// Guards are told apart by their sockets, so nobody waits for them: the system reaps them.
#[expect(unsafe_code, reason = "signal(2) has no safe form; only SIG_IGN is set, in a single thread")]
fn ignore_children() -> nix::Result<()> {
    // SAFETY: SIG_IGN installs no handler, and no other thread exists.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.map(drop)
}

#[expect(unsafe_code, reason = "fork is safe in a process that has one thread and never had another")]
fn fork_guard() -> nix::Result<ForkResult> {
    // SAFETY: `run_if_guard` comes before any thread.
    unsafe { fork() }
}

#[expect(unsafe_code, reason = "the system gives received descriptors as numbers")]
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: it was received just now, so nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
