//! Attempts on the kernel: namespaces and mounts, rights, its rarer calls, a terminal's input.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use nix::libc;

use super::sys::{act, c_path, call, leave, reason};
use super::{Attempt, Outcome, Scene, reached};

const NEWUSER: usize = libc::CLONE_NEWUSER as usize;
const NEWNS: usize = libc::CLONE_NEWNS as usize;
const SIGCHLD: usize = libc::SIGCHLD as usize;
/// Keyrings by their standing numbers: of this process, which goes with it, and of the user.
const PROCESS_KEYRING: usize = -2_i32 as usize;
const USER_KEYRING: usize = -4_i32 as usize;
const KEYCTL_DESCRIBE: usize = 6;
/// A name that nothing has.
const NOBODY: &std::ffi::CStr = c"/no-such-file-of-an-attempt";

/// Before all others, which open descriptors themselves.
pub(super) const INHERITED: &[Attempt] = &[("inherited_descriptors", |_| inherited())];

pub(super) const ALL: &[Attempt] = &[
    ("unshare_user", |_| act(libc::SYS_unshare, &[NEWUSER])),
    ("unshare_mount", |_| act(libc::SYS_unshare, &[NEWNS])),
    ("clone_user", |_| in_child(call(libc::SYS_clone, &[NEWUSER | SIGCHLD, 0, 0, 0, 0]))),
    ("clone3_user", |_| clone3()),
    ("mount_tmpfs", |scene| mount(Path::new(scene.text("mount")?))),
    ("mount_bind", |scene| bind(Path::new(scene.text("outside")?), Path::new(scene.text("mount")?))),
    ("umount", |scene| umount(Path::new(scene.text("mount")?))),
    ("pivot_root", |scene| pivot_root(Path::new(scene.text("work")?))),
    ("chroot", |scene| with_path(scene, "work", |work| act(libc::SYS_chroot, &[work]))),
    ("fsopen", |_| act(libc::SYS_fsopen, &[c"tmpfs".as_ptr() as usize, 0])),
    ("open_tree", |scene| {
        with_path(scene, "work", |work| {
            act(libc::SYS_open_tree, &[libc::AT_FDCWD as usize, work, libc::OPEN_TREE_CLONE as usize])
        })
    }),
    ("become_root", |_| act(libc::SYS_setresuid, &[0, 0, 0])),
    ("drop_groups", |_| act(libc::SYS_setgroups, &[0, 0])),
    ("take_capability", |_| take_capability()),
    // To the least first, so that one more is a raise for whoever starts this.
    ("raise_priority", |_| {
        act(libc::SYS_setpriority, &[0, 0, 19])?;
        act(libc::SYS_setpriority, &[0, 0, 18])
    }),
    ("raise_limit", |_| raise_limit()),
    ("add_key", |_| add_key()),
    ("request_key", |_| {
        let (kind, name) = (c"user".as_ptr() as usize, c"attempt".as_ptr() as usize);
        act(libc::SYS_request_key, &[kind, name, 0, 0]).or_else(|errno| {
            // Not there is an answer too.
            if errno == libc::ENOKEY { Ok(()) } else { Err(errno) }
        })
    }),
    ("keyctl", |_| act(libc::SYS_keyctl, &[KEYCTL_DESCRIBE, USER_KEYRING, 0, 0])),
    ("io_uring", |_| {
        let mut parameters = [0_u64; 16];
        act(libc::SYS_io_uring_setup, &[8, parameters.as_mut_ptr() as usize])
    }),
    ("memfd_create", |_| act(libc::SYS_memfd_create, &[c"attempt".as_ptr() as usize, 0])),
    ("memfd_secret", |_| act(libc::SYS_memfd_secret, &[0])),
    ("bpf_map", |_| {
        let map = [2_u32, 4, 4, 1, 0, 0, 0, 0];
        act(libc::SYS_bpf, &[0, map.as_ptr() as usize, size_of_val(&map)])
    }),
    ("perf_event", |_| perf_event()),
    ("userfaultfd", |_| act(libc::SYS_userfaultfd, &[1])),
    ("kexec_load", |_| reached(act(libc::SYS_kexec_load, &[0, 0, 0, 0xffff_0000]))),
    ("init_module", |_| {
        let module = [0_u64; 4];
        let (at, length) = (module.as_ptr() as usize, size_of_val(&module));
        reached(act(libc::SYS_init_module, &[at, length, c"".as_ptr() as usize]))
    }),
    ("delete_module", |_| reached(act(libc::SYS_delete_module, &[c"no_such".as_ptr() as usize, 0]))),
    ("swapon", |_| reached(act(libc::SYS_swapon, &[NOBODY.as_ptr() as usize, 0]))),
    ("quotactl", |_| act(libc::SYS_quotactl, &[0x8000_0100, 0, 0, 0])),
    ("acct", |_| reached(act(libc::SYS_acct, &[NOBODY.as_ptr() as usize]))),
    ("syslog", |_| {
        let mut text = [0_u8; 64];
        act(libc::SYS_syslog, &[3, text.as_mut_ptr() as usize, text.len()])
    }),
    ("set_clock", |_| set_clock()),
    ("adjust_clock", |_| adjust_clock()),
    ("set_hostname", |_| set_name(libc::SYS_sethostname, "/proc/sys/kernel/hostname")),
    ("set_domainname", |_| set_name(libc::SYS_setdomainname, "/proc/sys/kernel/domainname")),
    ("reboot", |_| reached(act(libc::SYS_reboot, &[0xdead, 0xbeef, 0]))),
    ("personality", |_| act(libc::SYS_personality, &[libc::ADDR_NO_RANDOMIZE as usize])),
    ("io_ports", |_| io_ports()),
    ("shared_memory", |_| made(libc::SYS_shmget, libc::SYS_shmctl, &[0, 4096, 0o1600], 1)),
    ("semaphores", |_| made(libc::SYS_semget, libc::SYS_semctl, &[0, 1, 0o1600], 2)),
    ("messages", |_| made(libc::SYS_msgget, libc::SYS_msgctl, &[0, 0o1600], 1)),
    ("message_queue", |_| message_queue()),
    ("terminal_selection", |scene| on_terminal(scene, libc::TIOCLINUX as usize)),
    ("terminal_discipline", |scene| on_terminal(scene, libc::TIOCSETD as usize)),
    // The last one: a terminal hangs up when the leader of its session ends.
    ("terminal_input", |scene| {
        let _session = act(libc::SYS_setsid, &[]);
        on_terminal(scene, libc::TIOCSTI as usize)
    }),
];

/// Whether there is a descriptor beside the standard streams.
fn inherited() -> Outcome {
    let fds = 3..1_024;
    let found = fds.map(|fd| act(libc::SYS_fcntl, &[fd, libc::F_GETFD as usize]));
    found.reduce(|one, next| one.or(next)).unwrap_or(Err(libc::EBADF))
}

fn with_path(scene: &Scene, name: &str, attempt: impl FnOnce(usize) -> Outcome) -> Outcome {
    let path = c_path(Path::new(scene.text(name)?))?;
    attempt(path.as_ptr() as usize)
}

/// A child of an attempt has done its part by being there.
fn in_child(pid: Result<usize, i32>) -> Outcome {
    match pid? {
        0 => leave(Ok(())),
        _ => Ok(()),
    }
}

fn clone3() -> Outcome {
    let mut arguments = [0_u64; 11];
    arguments[0] = NEWUSER as u64;
    arguments[4] = SIGCHLD as u64;
    in_child(call(libc::SYS_clone3, &[arguments.as_ptr() as usize, size_of_val(&arguments)]))
}

/// Whoever may mount does so where nobody else sees it.
fn alone() -> Outcome {
    let private = (libc::MS_REC | libc::MS_PRIVATE) as usize;
    match act(libc::SYS_unshare, &[NEWNS]) {
        Ok(()) => act(libc::SYS_mount, &[0, c"/".as_ptr() as usize, 0, private, 0]),
        // Then it may not mount either, or the attempt shows that it may.
        Err(_) => Ok(()),
    }
}

fn mount(at: &Path) -> Outcome {
    alone()?;
    let (kind, at) = (c"tmpfs", c_path(at)?);
    act(libc::SYS_mount, &[kind.as_ptr() as usize, at.as_ptr() as usize, kind.as_ptr() as usize, 0, 0])
}

fn bind(from: &Path, at: &Path) -> Outcome {
    alone()?;
    let (from, at) = (c_path(from)?, c_path(at)?);
    act(libc::SYS_mount, &[from.as_ptr() as usize, at.as_ptr() as usize, 0, libc::MS_BIND as usize, 0])
}

fn umount(at: &Path) -> Outcome {
    // Something to take off, for whoever may.
    let _mounted = mount(at);
    let at = c_path(at)?;
    act(libc::SYS_umount2, &[at.as_ptr() as usize, libc::MNT_DETACH as usize])
}

fn pivot_root(at: &Path) -> Outcome {
    alone()?;
    let at = c_path(at)?;
    reached(act(libc::SYS_pivot_root, &[at.as_ptr() as usize, at.as_ptr() as usize]))
}

/// The right to administer the system.
fn take_capability() -> Outcome {
    let header = [0x2008_0522_u32, 0];
    let wanted = 1_u32 << 21;
    let data = [wanted, wanted, 0, 0, 0, 0];
    act(libc::SYS_capset, &[header.as_ptr() as usize, data.as_ptr() as usize])
}

fn raise_limit() -> Outcome {
    let mut limit = [0_u64; 2];
    let nofile = libc::RLIMIT_NOFILE as usize;
    act(libc::SYS_prlimit64, &[0, nofile, 0, limit.as_mut_ptr() as usize])?;
    let more = [limit[0], limit[1] + 1];
    act(libc::SYS_prlimit64, &[0, nofile, more.as_ptr() as usize, 0])
}

fn add_key() -> Outcome {
    let (kind, name) = (c"user".as_ptr() as usize, c"attempt".as_ptr() as usize);
    act(libc::SYS_add_key, &[kind, name, name, 4, PROCESS_KEYRING])
}

/// The clock of the processor, of this process alone.
fn perf_event() -> Outcome {
    let mut event = [0_u64; 16];
    // A software event, the size of what is told of it; the kernel is not counted.
    event[0] = 1 | 128 << 32;
    event[5] = 1 << 5 | 1 << 6;
    act(libc::SYS_perf_event_open, &[event.as_ptr() as usize, 0, usize::MAX, usize::MAX, 0])
}

/// The time zone, to what it is.
fn set_clock() -> Outcome {
    let mut zone = [0_i32; 2];
    act(libc::SYS_gettimeofday, &[0, zone.as_mut_ptr() as usize])?;
    act(libc::SYS_settimeofday, &[0, zone.as_ptr() as usize])
}

/// The length of a tick, to what it is.
#[expect(unsafe_code, reason = "the structure of the call has no constructor")]
fn adjust_clock() -> Outcome {
    // SAFETY: it consists of numbers, for which zero is one.
    let mut clock: libc::timex = unsafe { std::mem::zeroed() };
    act(libc::SYS_adjtimex, &[&raw mut clock as usize])?;
    clock.modes = libc::ADJ_TICK;
    act(libc::SYS_adjtimex, &[&raw mut clock as usize])
}

/// To what it is.
fn set_name(number: i64, of: &str) -> Outcome {
    let name = fs::read_to_string(of).map_err(|error| reason(&error))?;
    let name = name.trim();
    act(number, &[name.as_ptr() as usize, name.len()])
}

#[cfg(target_arch = "x86_64")]
fn io_ports() -> Outcome {
    act(libc::SYS_ioperm, &[0x80, 1, 1])
}

#[cfg(not(target_arch = "x86_64"))]
fn io_ports() -> Outcome {
    Err(libc::ENOSYS)
}

/// Makes something that outlives its maker, and takes it away again by its last-but-one argument.
fn made(get: i64, control: i64, arguments: &[usize], command_at: usize) -> Outcome {
    let id = call(get, arguments)?;
    let mut remove = vec![id];
    remove.resize(command_at, 0);
    remove.extend([libc::IPC_RMID as usize, 0]);
    act(control, &remove)
}

fn message_queue() -> Outcome {
    let name = c"cortex-attempt".as_ptr() as usize;
    act(libc::SYS_mq_open, &[name, (libc::O_CREAT | libc::O_RDWR) as usize, 0o600, 0])?;
    act(libc::SYS_mq_unlink, &[name])
}

/// A request to the terminal that was handed over, or to that of the scene. `TIOCSTI` puts a letter
/// into what was typed there, and wants the terminal to be one's own.
fn on_terminal(scene: &Scene, request: usize) -> Outcome {
    use std::io::IsTerminal as _;
    let opened = if std::io::stdin().is_terminal() {
        None
    } else {
        let file = File::options().read(true).write(true).open(scene.text("terminal")?);
        Some(file.map_err(|error| reason(&error))?)
    };
    let fd = opened.as_ref().map_or(0, |file| file.as_raw_fd() as usize);
    let _ours = act(libc::SYS_ioctl, &[fd, libc::TIOCSCTTY as usize, 0]);
    let letter = [0_u8; 8];
    match act(libc::SYS_ioctl, &[fd, request, letter.as_ptr() as usize]) {
        // The terminal itself answers that it has no such request.
        Err(libc::ENOTTY) => Ok(()),
        other => other,
    }
}
