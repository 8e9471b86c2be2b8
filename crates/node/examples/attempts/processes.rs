//! Attempts on other processes: a sibling run of the same user, and the node.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use nix::libc;

use super::sys::{act, call, reason};
use super::{Attempt, Outcome, Scene, reached};

/// A signal that harms nobody: it is ignored by who does not ask for it.
const HARMLESS: usize = libc::SIGURG as usize;
const PTRACE_SEIZE: usize = 0x4206;
const KCMP_VM: usize = 1;
const RLIMIT_CORE: usize = 4;
const PRIO_PROCESS: usize = 0;
const PRIO_USER: usize = 2;
/// No system gives it to anybody.
const USER_OF_NOBODY: usize = 65_532;
const IOPRIO_WHO_PROCESS: usize = 1;
/// Best effort, in the middle: what everybody has.
const IOPRIO_USUAL: usize = 2 << 13 | 4;

pub(super) const ALL: &[Attempt] = &[
    ("environ_of_sibling", |scene| read_proc(scene, "sibling", "environ")),
    ("cmdline_of_sibling", |scene| read_proc(scene, "sibling", "cmdline")),
    ("maps_of_sibling", |scene| read_proc(scene, "sibling", "maps")),
    ("memory_of_sibling", |scene| read_memory(scene, "sibling")),
    ("files_of_sibling", |scene| read_link(scene, "sibling")),
    ("environ_of_node", |scene| read_proc(scene, "node", "environ")),
    ("cmdline_of_node", |scene| read_proc(scene, "node", "cmdline")),
    ("memory_of_node", |scene| read_memory(scene, "node")),
    ("files_of_node", |scene| read_link(scene, "node")),
    ("signal_sibling", |scene| signal(scene, "sibling")),
    ("signal_node", |scene| signal(scene, "node")),
    ("signal_by_queue", |scene| signal_by_queue(scene.number("sibling")?)),
    ("pidfd_of_sibling", |scene| pidfd(scene).map(drop)),
    ("signal_by_pidfd", |scene| act(libc::SYS_pidfd_send_signal, &[pidfd(scene)?, HARMLESS, 0, 0])),
    ("signal_by_proc", |scene| signal_by_proc(scene.number("sibling")?)),
    ("descriptor_of_sibling", |scene| act(libc::SYS_pidfd_getfd, &[pidfd(scene)?, 0, 0])),
    ("ptrace_sibling", |scene| {
        act(libc::SYS_ptrace, &[PTRACE_SEIZE, scene.number("sibling")? as usize, 0, 0])
    }),
    ("ptrace_node", |scene| act(libc::SYS_ptrace, &[PTRACE_SEIZE, scene.number("node")? as usize, 0, 0])),
    ("vm_read_sibling", |scene| memory_call(libc::SYS_process_vm_readv, scene.number("sibling")?)),
    ("vm_write_sibling", |scene| memory_call(libc::SYS_process_vm_writev, scene.number("sibling")?)),
    ("madvise_sibling", |scene| madvise(pidfd(scene)?)),
    ("compare_sibling", |scene| {
        act(libc::SYS_kcmp, &[scene.number("sibling")? as usize, own(), KCMP_VM, 0, 0])
    }),
    ("limits_of_sibling", |scene| limits(scene.number("sibling")?)),
    ("priority_of_sibling", |scene| {
        act(libc::SYS_setpriority, &[PRIO_PROCESS, scene.number("sibling")? as usize, 0])
    }),
    ("priority_of_user", |_| priority_of_user()),
    ("io_priority_of_sibling", |scene| {
        let sibling = scene.number("sibling")? as usize;
        act(libc::SYS_ioprio_set, &[IOPRIO_WHO_PROCESS, sibling, IOPRIO_USUAL])
    }),
    ("affinity_of_sibling", |scene| affinity(scene.number("sibling")?)),
    ("scheduler_of_sibling", |scene| {
        let priority = 0_i32;
        let sibling = scene.number("sibling")? as usize;
        act(
            libc::SYS_sched_setscheduler,
            &[sibling, libc::SCHED_OTHER as usize, &raw const priority as usize],
        )
    }),
    ("pages_of_sibling", |scene| {
        act(libc::SYS_move_pages, &[scene.number("sibling")? as usize, 0, 0, 0, 0, 0])
    }),
    ("futexes_of_sibling", |scene| {
        let mut told = [0_usize; 2];
        let [head, length] = [&raw mut told[0], &raw mut told[1]];
        let sibling = scene.number("sibling")? as usize;
        act(libc::SYS_get_robust_list, &[sibling, head as usize, length as usize])
    }),
    ("namespace_of_node", |scene| {
        let file = File::open(format!("/proc/{}/ns/mnt", scene.number("node")?));
        let file = file.map_err(|error| reason(&error))?;
        use std::os::fd::AsRawFd as _;
        act(libc::SYS_setns, &[file.as_raw_fd() as usize, 0])
    }),
];

fn own() -> usize {
    std::process::id() as usize
}

fn read_proc(scene: &Scene, process: &str, name: &str) -> Outcome {
    let bytes = fs::read(format!("/proc/{}/{name}", scene.number(process)?));
    let bytes = bytes.map_err(|error| reason(&error))?;
    if bytes.is_empty() { Err(libc::ENODATA) } else { Ok(()) }
}

/// The first bytes of its program.
fn read_memory(scene: &Scene, process: &str) -> Outcome {
    let pid = scene.number(process)?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).map_err(|error| reason(&error))?;
    let begin = maps.split('-').next().unwrap_or_default();
    let begin = u64::from_str_radix(begin, 16).map_err(|_| libc::ENODATA)?;
    let memory = File::open(format!("/proc/{pid}/mem")).map_err(|error| reason(&error))?;
    memory.read_exact_at(&mut [0; 4], begin).map_err(|error| reason(&error))
}

fn read_link(scene: &Scene, process: &str) -> Outcome {
    let link = fs::read_link(format!("/proc/{}/fd/0", scene.number(process)?));
    link.map(drop).map_err(|error| reason(&error))
}

fn signal(scene: &Scene, process: &str) -> Outcome {
    act(libc::SYS_kill, &[scene.number(process)? as usize, HARMLESS])
}

fn signal_by_queue(pid: u32) -> Outcome {
    // Its number, no error, sent by `sigqueue`.
    let mut info = [0_i32; 32];
    (info[0], info[2]) = (libc::SIGURG, libc::SI_QUEUE);
    act(libc::SYS_rt_sigqueueinfo, &[pid as usize, HARMLESS, info.as_ptr() as usize])
}

fn pidfd(scene: &Scene) -> Result<usize, i32> {
    call(libc::SYS_pidfd_open, &[scene.number("sibling")? as usize, 0])
}

/// A folder of /proc is as good as what `pidfd_open` gives.
fn signal_by_proc(pid: u32) -> Outcome {
    use std::os::fd::AsRawFd as _;
    let folder = File::open(format!("/proc/{pid}")).map_err(|error| reason(&error))?;
    act(libc::SYS_pidfd_send_signal, &[folder.as_raw_fd() as usize, HARMLESS, 0, 0])
}

/// At an address that need not be there: a wrong one is found out after the rights.
fn memory_call(number: i64, pid: u32) -> Outcome {
    let mut byte = [0_u8; 1];
    let own = [byte.as_mut_ptr() as usize, 1];
    let other = [0x1000_usize, 1];
    let (own, other) = (own.as_ptr() as usize, other.as_ptr() as usize);
    match act(number, &[pid as usize, own, 1, other, 1, 0]) {
        Err(libc::EFAULT) => Ok(()),
        other => other,
    }
}

fn madvise(pidfd: usize) -> Outcome {
    let range = [0x1000_usize, 4096];
    reached(act(libc::SYS_process_madvise, &[pidfd, range.as_ptr() as usize, 1, libc::MADV_COLD as usize, 0]))
}

fn limits(pid: u32) -> Outcome {
    let mut old = [0_u64; 2];
    act(libc::SYS_prlimit64, &[pid as usize, RLIMIT_CORE, 0, old.as_mut_ptr() as usize])
}

/// Of a user that has no processes: with one's own number it would set those of the whole user.
fn priority_of_user() -> Outcome {
    reached(act(libc::SYS_setpriority, &[PRIO_USER, USER_OF_NOBODY, 0]))
}

/// To what it is already.
fn affinity(pid: u32) -> Outcome {
    let mut mask = [0_usize; 128];
    let (pid, at) = (pid as usize, mask.as_mut_ptr() as usize);
    let length = call(libc::SYS_sched_getaffinity, &[pid, size_of_val(&mask), at])?;
    act(libc::SYS_sched_setaffinity, &[pid, length, at])
}
