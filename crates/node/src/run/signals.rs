//! Signals as nursery and guard take them: read when there is time for them. Never here: handlers.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Blocks what would end this process from outside, so that only its socket, its parent's end and
/// KILL do, and gives a descriptor that tells of `watched`, which are among them.
pub(super) fn watch(watched: &[Signal]) -> nix::Result<SignalFd> {
    let mut blocked = SigSet::empty();
    for one in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        blocked.add(one);
    }
    blocked.thread_set_mask()?;
    let watched: SigSet = watched.iter().copied().collect();
    SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}
