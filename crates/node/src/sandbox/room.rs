//! How a nursery becomes a room, and a guard the first process of a run in it. Everything happens
//! in processes of one thread. Never here: the program, its user, its filters.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use nix::libc;
use nix::sched::{CloneFlags, unshare};

use super::mounts;
use super::step::{Failed, Step};
use super::walls::Room;

/// Where a full room has what every run brings along.
pub(crate) const SCRATCH: &str = "/tmp";

/// What one run has of its own in a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Own {
    /// Bytes of its `/tmp`.
    pub(crate) scratch_bytes: u64,
    /// Processes that may be there at once, by the kernel's bound on their numbers; where there is
    /// no other way to bound them.
    pub(crate) pid_max: Option<u32>,
}

/// Makes the namespaces and the file system, once, in the nursery.
pub(crate) fn enter(room: &Room) -> Result<(), Failed> {
    if !room.is_full() {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        become_lord_of_itself()?;
    }
    part(CloneFlags::CLONE_NEWNS, Step::MountNamespace)?;
    part(CloneFlags::CLONE_NEWIPC, Step::IpcNamespace)?;
    part(CloneFlags::CLONE_NEWUTS, Step::UtsNamespace)?;
    if room.network == cortex_core::sandbox::Network::None {
        part(CloneFlags::CLONE_NEWNET, Step::NetNamespace)?;
    }
    mounts::build(room)?;
    nix::unistd::sethostname(&room.host).map_err(Failed::by(Step::HostName))
}

/// A user namespace in which this process may do what is its own business: its user and group are
/// the only ones there, and groups cannot be left, which would open what a group is shut out of.
fn become_lord_of_itself() -> Result<(), Failed> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    part(CloneFlags::CLONE_NEWUSER, Step::UserNamespace)?;
    let write = |file: &str, text: String| fs::write(file, text).map_err(Failed::by(Step::Ids));
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

fn part(from: CloneFlags, step: Step) -> Result<(), Failed> {
    unshare(from).map_err(Failed::by(step))
}

/// Makes what is the run's own, in its guard, which is the first process of its namespace.
pub(crate) fn settle_in(room: &Room, own: &Own) -> Result<(), Failed> {
    if !room.is_full() {
        return Ok(());
    }
    part(CloneFlags::CLONE_NEWNS, Step::MountNamespace)?;
    mounts::furnish(room, own.scratch_bytes)?;
    if let Some(max) = own.pid_max {
        fs::write("/proc/sys/kernel/pid_max", max.to_string()).map_err(Failed::by(Step::Limits))?;
    }
    folder("/tmp/.shm", 0o1777).map_err(Failed::by(Step::Scratch))?;
    folder("/tmp/home", 0o700).map_err(Failed::by(Step::Scratch))?;
    if let Some(user) = &room.user {
        chown("/tmp/home", Some(user.uid), Some(user.gid)).map_err(Failed::by(Step::Scratch))?;
    }
    Ok(())
}

fn folder(path: &str, mode: u32) -> io::Result<()> {
    fs::create_dir(path)?;
    fs::set_permissions(Path::new(path), fs::Permissions::from_mode(mode))
}

/// Forks, and makes the child the first process of a namespace of its own: 0 in the child. By
/// system call, since a process can part from its process namespace only once, and there is one for
/// each run. The C library keeps the parent's number in the child; nothing here asks it for that.
#[expect(unsafe_code, reason = "clone(2) has no safe form; it is fork with one flag more")]
pub(crate) fn fork_first() -> io::Result<i32> {
    let flags = libc::CLONE_NEWPID | libc::SIGCHLD;
    // SAFETY: without a stack of its own and without CLONE_VM the child goes on here with a copy of
    // all memory, as after fork; this process has one thread and never had another.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) };
    if pid < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(pid).map_err(io::Error::other) }
}
