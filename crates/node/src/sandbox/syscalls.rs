//! Which system calls a run may not make, and with which error they fail: the table that
//! [`super::filter`] compiles. One list of names for all architectures; what only one has stands
//! apart. Never here: calls that only tighten a process (`seccomp`, `landlock_*`), and calls that
//! the kernel refuses to an ordinary process anyway without looking at anything.
//!
//! A test looks at the low 32 bits of an argument, because so does the kernel for each of the
//! arguments below: it declares them `int`, `unsigned int` or `pid_t`, and takes the low half of
//! `clone`'s flags. A row on an argument that is 64 bits wide must compare both halves.

use cortex_core::sandbox::Network;
use nix::libc;

use super::filter::FilterSpec;

/// One call that is not always allowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// Its number on this architecture.
    pub(super) number: u32,
    /// What becomes of it.
    pub(super) rule: Rule,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    /// The error that it fails with.
    pub(super) errno: u16,
    /// When all of these hold, the call goes through after all. Empty: it never does.
    pub(super) unless: &'static [Test],
}

/// A question about the low 32 bits of one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Test {
    /// Which argument, from 0.
    pub(super) argument: u8,
    /// The bits that are looked at.
    pub(super) mask: u32,
    /// What they are compared with.
    pub(super) values: &'static [u32],
    /// Whether they must be among the values, or must not.
    pub(super) among: bool,
}

/// The highest number that this table was written for (`file_setattr`, Linux 6.17). What comes after it may
/// do anything, so it is answered as by a kernel that does not have it.
pub(super) const NEWEST: u32 = 469;

const EPERM: u16 = libc::EPERM as u16;
const EACCES: u16 = libc::EACCES as u16;
const ENOSYS: u16 = libc::ENOSYS as u16;

const ALL_BITS: u32 = u32::MAX;
/// The kind of a socket, without `SOCK_CLOEXEC` and `SOCK_NONBLOCK`.
const SOCK_TYPE_MASK: u32 = 0xf;
/// All `CLONE_NEW*` that `clone` knows: mount, cgroup, uts, ipc, user, pid, net.
const CLONE_NEW: u32 = 0x7e02_0000;
const PRIO_USER: u32 = 2;
const IOPRIO_WHO_USER: u32 = 3;
/// `setsockopt` of TCP: another protocol on top, which Landlock's rules for TCP do not see.
const TCP_ULP: u32 = 31;
/// Asks for the personality and changes nothing.
const PERSONALITY_GET: u32 = 0xffff_ffff;

const STREAM: u32 = libc::SOCK_STREAM as u32;
const DGRAM: u32 = libc::SOCK_DGRAM as u32;
const SEQPACKET: u32 = libc::SOCK_SEQPACKET as u32;
const TCP: u32 = libc::IPPROTO_TCP as u32;
const UDP: u32 = libc::IPPROTO_UDP as u32;
const FAMILIES: Test = among(0, &[libc::AF_INET as u32, libc::AF_INET6 as u32]);

const fn deny(errno: u16) -> Rule {
    Rule { errno, unless: &[] }
}

const fn unless(errno: u16, unless: &'static [Test]) -> Rule {
    Rule { errno, unless }
}

const fn among(argument: u8, values: &'static [u32]) -> Test {
    Test { argument, mask: ALL_BITS, values, among: true }
}

const fn not_among(argument: u8, values: &'static [u32]) -> Test {
    Test { argument, mask: ALL_BITS, values, among: false }
}

const fn bits(argument: u8, mask: u32, values: &'static [u32]) -> Test {
    Test { argument, mask, values, among: true }
}

/// Each name as its number here, in the order of the list.
macro_rules! numbers {
    ($($name:ident)*) => { &[$(libc::$name as u32),*] };
}

/// Namespaces, mounts: the walls themselves. `clone3` stands below, `clone` has a test.
const WALLS: &[u32] = numbers![
    SYS_unshare SYS_setns SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_move_mount SYS_open_tree
    SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick SYS_mount_setattr SYS_swapon SYS_swapoff
];

/// The same for calls that `libc` has no name for; from 424 on all architectures share numbers.
const WALLS_UNNAMED: &[u32] = &[STATMOUNT, LISTMOUNT, OPEN_TREE_ATTR];
const STATMOUNT: u32 = 457;
const LISTMOUNT: u32 = 458;
const OPEN_TREE_ATTR: u32 = 467;

/// Other processes.
const PROCESSES: &[u32] = numbers![
    SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_process_madvise SYS_process_mrelease
    SYS_pidfd_getfd SYS_kcmp
];

/// The surface of the kernel, which no work needs, and the clock and name of the machine.
const SURFACE: &[u32] = numbers![
    SYS_bpf SYS_perf_event_open SYS_userfaultfd SYS_kexec_load SYS_kexec_file_load SYS_init_module
    SYS_finit_module SYS_delete_module SYS_lookup_dcookie SYS_syslog SYS_acct SYS_quotactl SYS_quotactl_fd
    SYS_nfsservctl SYS_vhangup SYS_settimeofday SYS_clock_settime SYS_adjtimex SYS_clock_adjtime
    SYS_sethostname SYS_setdomainname SYS_reboot
];

/// What x86-64 has besides.
#[cfg(target_arch = "x86_64")]
const SURFACE_HERE: &[u32] = numbers![
    SYS_iopl SYS_ioperm SYS_modify_ldt SYS_uselib SYS_ustat SYS_sysfs
];
#[cfg(target_arch = "aarch64")]
const SURFACE_HERE: &[u32] = &[];

/// Keyrings outlive a run and are seen by others of the same user.
const KEYRINGS: &[u32] = numbers![SYS_add_key SYS_request_key SYS_keyctl];

/// Ways to a file that no path check sees.
const HANDLES: &[u32] = numbers![SYS_open_by_handle_at SYS_name_to_handle_at SYS_fanotify_init];

/// Memory, semaphores and queues by number or name, which the runs of one room would share.
const SHARED: &[u32] = numbers![
    SYS_shmget SYS_shmat SYS_shmctl SYS_shmdt SYS_semget SYS_semop SYS_semtimedop SYS_semctl SYS_msgget
    SYS_msgsnd SYS_msgrcv SYS_msgctl SYS_mq_open SYS_mq_unlink SYS_mq_timedsend SYS_mq_timedreceive
    SYS_mq_notify SYS_mq_getsetattr
];

/// Programs fall back to something else when the kernel does not have these: `io_uring` goes round
/// every filter, `clone3` has its flags where a filter cannot look, and Landlock does not see a
/// program in a memory file.
const ABSENT: &[u32] = numbers![
    SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register SYS_clone3 SYS_memfd_create SYS_memfd_secret
];

/// Calls that are refused for some arguments only, whatever the network.
const TESTED: &[(u32, Rule)] = &[
    (libc::SYS_clone as u32, unless(EPERM, &[bits(0, CLONE_NEW, &[0])])),
    (libc::SYS_ioctl as u32, unless(EPERM, &[not_among(1, TERMINAL_INPUT)])),
    (libc::SYS_personality as u32, unless(EPERM, &[among(0, &[0, PERSONALITY_GET])])),
    (libc::SYS_prlimit64 as u32, unless(EPERM, SELF)),
    (libc::SYS_move_pages as u32, unless(EPERM, SELF)),
    (libc::SYS_migrate_pages as u32, unless(EPERM, SELF)),
    // A pair of another kind is not bound to its partner: each end can send to a path, and so to
    // every socket of the machine that takes datagrams (the journal, a service manager).
    (
        libc::SYS_socketpair as u32,
        unless(EACCES, &[among(0, &[libc::AF_UNIX as u32]), bits(1, SOCK_TYPE_MASK, &[STREAM, SEQPACKET])]),
    ),
];

/// Requests that put words into a terminal's input, or another discipline on its line.
const TERMINAL_INPUT: &[u32] = &[libc::TIOCSTI as u32, libc::TIOCLINUX as u32, libc::TIOCSETD as u32];

/// The process that a call is about is the caller.
const SELF: &[Test] = &[among(0, &[0])];
/// The same where the kind of number comes first; a user is never meant.
const SELF_OF_KIND: &[Test] = &[not_among(0, &[PRIO_USER]), among(1, &[0])];
const SELF_OF_IO_KIND: &[Test] = &[not_among(0, &[IOPRIO_WHO_USER]), among(1, &[0])];

/// Calls on processes by number, where numbers of others can be had: beside the runs of the same
/// user that may be the node process itself.
const SHARED_NUMBERS: &[(u32, Rule)] = &[
    (libc::SYS_pidfd_open as u32, deny(EPERM)),
    (libc::SYS_setpriority as u32, unless(EPERM, SELF_OF_KIND)),
    (libc::SYS_ioprio_set as u32, unless(EPERM, SELF_OF_IO_KIND)),
    (libc::SYS_sched_setaffinity as u32, unless(EPERM, SELF)),
    (libc::SYS_sched_setscheduler as u32, unless(EPERM, SELF)),
    (libc::SYS_sched_setparam as u32, unless(EPERM, SELF)),
    (libc::SYS_sched_setattr as u32, unless(EPERM, SELF)),
];

/// The same where a run sees its own processes only.
const OWN_NUMBERS: &[(u32, Rule)] = &[
    (libc::SYS_setpriority as u32, unless(EPERM, &[not_among(0, &[PRIO_USER])])),
    (libc::SYS_ioprio_set as u32, unless(EPERM, &[not_among(0, &[IOPRIO_WHO_USER])])),
];

/// No network. The calls on sockets besides `socket` matter for one that came in by accident.
const NO_NETWORK: &[(u32, Rule)] = &[
    (libc::SYS_socket as u32, deny(EACCES)),
    (libc::SYS_connect as u32, deny(EACCES)),
    (libc::SYS_bind as u32, deny(EACCES)),
    (libc::SYS_listen as u32, deny(EACCES)),
];

/// Outgoing TCP, to ports that Landlock looks at. It looks at `connect` and `bind`; what else makes
/// a connection is closed here: data in the first packet, a listener on a port that was not bound,
/// another protocol put on top.
const TCP_OUT: &[(u32, Rule)] = &[
    (
        libc::SYS_socket as u32,
        unless(EACCES, &[FAMILIES, bits(1, SOCK_TYPE_MASK, &[STREAM]), among(2, &[0, TCP])]),
    ),
    (libc::SYS_listen as u32, deny(EACCES)),
    (libc::SYS_sendto as u32, unless(EACCES, &[bits(3, libc::MSG_FASTOPEN as u32, &[0])])),
    (libc::SYS_sendmsg as u32, unless(EACCES, &[bits(2, libc::MSG_FASTOPEN as u32, &[0])])),
    (libc::SYS_sendmmsg as u32, unless(EACCES, &[bits(3, libc::MSG_FASTOPEN as u32, &[0])])),
    (libc::SYS_setsockopt as u32, unless(EACCES, &[not_among(2, &[TCP_ULP])])),
];

/// TCP and UDP. Sockets of other families reach into this machine, not out of it.
const INTERNET: &[(u32, Rule)] = &[(
    libc::SYS_socket as u32,
    unless(EACCES, &[FAMILIES, bits(1, SOCK_TYPE_MASK, &[STREAM, DGRAM]), among(2, &[0, TCP, UDP])]),
)];

/// The whole table for these walls, in order of numbers, each number once.
pub(super) fn rows(spec: &FilterSpec) -> Vec<Row> {
    let whole = [
        (WALLS, EPERM),
        (WALLS_UNNAMED, EPERM),
        (PROCESSES, EPERM),
        (SURFACE, EPERM),
        (SURFACE_HERE, EPERM),
        (KEYRINGS, EPERM),
        (HANDLES, EPERM),
        (SHARED, EPERM),
        (ABSENT, ENOSYS),
    ];
    let numbers = if spec.pidfd { OWN_NUMBERS } else { SHARED_NUMBERS };
    let network = match &spec.network {
        Network::None => NO_NETWORK,
        Network::Ports(_) => TCP_OUT,
        Network::All => INTERNET,
    };
    let tested = [TESTED, numbers, network].into_iter().flatten();
    let mut rows: Vec<Row> = whole
        .iter()
        .flat_map(|(list, errno)| list.iter().map(|number| Row { number: *number, rule: deny(*errno) }))
        .chain(tested.map(|(number, rule)| Row { number: *number, rule: *rule }))
        .collect();
    rows.sort_by_key(|row| row.number);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs() -> Vec<FilterSpec> {
        let networks = [Network::None, Network::Ports([443].into()), Network::All];
        let spec = |network: &Network, pidfd| FilterSpec { network: network.clone(), pidfd };
        networks.iter().flat_map(|network| [spec(network, false), spec(network, true)]).collect()
    }

    #[test]
    fn each_number_is_in_the_table_once_and_not_above_the_newest() {
        for spec in specs() {
            let rows = rows(&spec);
            assert!(rows.len() > 80, "{spec:?}: {}", rows.len());
            assert!(rows.iter().all(|row| row.number <= NEWEST), "{spec:?}");
            assert!(rows.is_sorted_by(|one, next| one.number < next.number), "{spec:?}: a number twice");
        }
    }

    #[test]
    fn each_test_can_hold_and_can_fail() {
        for row in specs().iter().flat_map(rows) {
            for test in row.rule.unless {
                assert!(test.argument < 6 && !test.values.is_empty(), "{row:?}");
                assert!(test.values.iter().all(|value| value & !test.mask == 0), "{row:?}");
            }
        }
    }
}
