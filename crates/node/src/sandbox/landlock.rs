//! Landlock: which files a run may use and which ports it may connect to, as a ruleset of the
//! kernel. A ruleset is made before the fork; the child only takes it on. What a rule asks for is
//! enforced whole, or there is no ruleset: never a weaker one without a word.
//!
//! The four calls are made directly. The crate of that name chooses what to enforce by the kernel
//! that it finds and does not tell which that is, while a level is a statement about just that.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use cortex_core::sandbox::Network;
use nix::libc;

use super::walls::FileId;

/// One file, or folder with all below it, and what may be done there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Absolute. A rule on a mount point is about what is mounted on it when the rule is made.
    pub path: PathBuf,
    /// What for.
    pub access: RuleAccess,
    /// The file that the path has to lead to, when somebody looked at it before: a run that may write
    /// above it can put another in its place.
    pub file: Option<FileId>,
}

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleAccess {
    /// Files are read, folders listed.
    Read,
    /// The same, and programs executed.
    ReadExec,
    /// Files are read, made, changed, moved and removed. No device nodes and sockets are made.
    Write,
    /// The same, and programs executed.
    WriteExec,
    /// A device node is read, written and asked by `ioctl`. Only for those without power over the
    /// machine: `null`, `zero`, `full`, `random`, `urandom`.
    Device,
    /// `/proc`: read, and nothing of it written, the caller's own memory neither.
    ProcRead,
}

impl Rule {
    /// Takes the right to execute from it.
    pub(crate) fn leave_execution(&mut self) {
        self.access = match self.access {
            RuleAccess::ReadExec => RuleAccess::Read,
            RuleAccess::WriteExec => RuleAccess::Write,
            other @ (RuleAccess::Read | RuleAccess::Write | RuleAccess::Device | RuleAccess::ProcRead) => {
                other
            }
        };
    }
}

/// A ruleset of the kernel. The descriptor is closed on exec.
#[derive(Debug)]
pub struct Ruleset(OwnedFd);

/// The newest version of the kernel's interface whose rights are used. Later ones add rights that
/// nobody has decided on here; a right that is not named is not restricted.
const ABI_MAX: u32 = 7;
/// First versions with rules for TCP, and with scopes.
const ABI_NETWORK: u32 = 4;
const ABI_SCOPES: u32 = 6;

mod fs {
    //! `LANDLOCK_ACCESS_FS_*`, and which version brought which.
    pub(super) const EXECUTE: u64 = 1;
    pub(super) const WRITE_FILE: u64 = 1 << 1;
    pub(super) const READ_FILE: u64 = 1 << 2;
    pub(super) const READ_DIR: u64 = 1 << 3;
    pub(super) const REMOVE_DIR: u64 = 1 << 4;
    pub(super) const REMOVE_FILE: u64 = 1 << 5;
    pub(super) const MAKE_CHAR: u64 = 1 << 6;
    pub(super) const MAKE_DIR: u64 = 1 << 7;
    pub(super) const MAKE_REG: u64 = 1 << 8;
    pub(super) const MAKE_SOCK: u64 = 1 << 9;
    pub(super) const MAKE_FIFO: u64 = 1 << 10;
    pub(super) const MAKE_BLOCK: u64 = 1 << 11;
    pub(super) const MAKE_SYM: u64 = 1 << 12;
    pub(super) const REFER: u64 = 1 << 13;
    pub(super) const TRUNCATE: u64 = 1 << 14;
    pub(super) const IOCTL_DEV: u64 = 1 << 15;

    const FIRST: u64 = EXECUTE
        | WRITE_FILE
        | READ_FILE
        | READ_DIR
        | REMOVE_DIR
        | REMOVE_FILE
        | MAKE_CHAR
        | MAKE_DIR
        | MAKE_REG
        | MAKE_SOCK
        | MAKE_FIFO
        | MAKE_BLOCK
        | MAKE_SYM;

    /// Those that make sense on what is not a folder; the kernel refuses a rule with others there.
    pub(super) const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;

    /// All that a version knows.
    pub(super) const fn all(abi: u32) -> u64 {
        match abi {
            0 => 0,
            1 => FIRST,
            2 => FIRST | REFER,
            3 | 4 => FIRST | REFER | TRUNCATE,
            _ => FIRST | REFER | TRUNCATE | IOCTL_DEV,
        }
    }
}

const BIND_TCP: u64 = 1;
const CONNECT_TCP: u64 = 1 << 1;
/// `ABSTRACT_UNIX_SOCKET | SIGNAL`.
const SCOPES: u64 = 1 | 1 << 1;

const CREATE_VERSION: u32 = 1;
const CREATE_ERRATA: u32 = 1 << 1;
const RULE_PATH_BENEATH: i32 = 1;
const RULE_NET_PORT: i32 = 2;

#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

#[repr(C)]
struct NetPort {
    allowed_access: u64,
    port: u64,
}

/// The version of the kernel's interface and the mistakes that it has mended (a bit each), or
/// nothing where Landlock is not built in or not switched on.
pub fn abi() -> Option<(u32, u32)> {
    let version = ask(CREATE_VERSION).filter(|version| *version > 0)?;
    // A kernel without this question has mended none.
    Some((version, ask(CREATE_ERRATA).unwrap_or(0)))
}

/// A ruleset that allows just this: files by the rules, and TCP by the network. Signals and
/// abstract sockets stay among the processes that it holds, from version 6 on. A path that leads to
/// nothing allows nothing.
///
/// # Errors
///
/// `Unsupported` where Landlock is not, or is too old for the ports that are asked for;
/// `StaleNetworkFileHandle` when a path leads to another file than its rule says; else the system's.
/// With the path that it is about.
pub fn ruleset(rules: &[Rule], network: &Network) -> io::Result<Ruleset> {
    let Some((abi, _)) = abi() else {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "this kernel has no Landlock"));
    };
    ruleset_of(abi.min(ABI_MAX), rules, network)
}

impl Ruleset {
    /// Takes the ruleset on, for this thread and all that it starts, for good. Needs
    /// `no_new_privs`. One system call and no allocation, so that it can be called between fork and
    /// exec.
    #[expect(unsafe_code, reason = "landlock_restrict_self(2) has no wrapper")]
    pub fn restrict(&self) -> io::Result<()> {
        // SAFETY: a number and flags; no memory is passed.
        let done = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.0.as_raw_fd(), 0) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

fn ruleset_of(abi: u32, rules: &[Rule], network: &Network) -> io::Result<Ruleset> {
    let has_network = abi >= ABI_NETWORK;
    if matches!(network, Network::Ports(_)) && !has_network {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this kernel's Landlock has no rules for TCP",
        ));
    }
    let handled_access_net = if has_network && *network != Network::All { BIND_TCP | CONNECT_TCP } else { 0 };
    let scoped = if abi >= ABI_SCOPES { SCOPES } else { 0 };
    let ruleset = create(&RulesetAttr { handled_access_fs: fs::all(abi), handled_access_net, scoped })?;
    for rule in rules {
        add_path(&ruleset, abi, rule).map_err(|error| about(&rule.path, &error))?;
    }
    if let Network::Ports(ports) = network {
        for port in ports {
            let attr = NetPort { allowed_access: CONNECT_TCP, port: u64::from(*port) };
            add(&ruleset, RULE_NET_PORT, &attr)?;
        }
    }
    Ok(Ruleset(ruleset))
}

fn add_path(ruleset: &OwnedFd, abi: u32, rule: &Rule) -> io::Result<()> {
    let place = File::options().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(&rule.path);
    let place = match place {
        Err(error) if is_out_of_reach(&error) => return Ok(()),
        place => place?,
    };
    let data = place.metadata()?;
    if rule.file.is_some_and(|file| file != FileId::of(&data)) {
        return Err(io::Error::from_raw_os_error(libc::ESTALE));
    }
    let possible = if data.is_dir() { u64::MAX } else { fs::OF_FILES };
    let allowed_access = rule.access.rights() & possible & fs::all(abi);
    let attr = PathBeneath { allowed_access, parent_fd: place.as_raw_fd() };
    add(ruleset, RULE_PATH_BENEATH, &attr)
}

/// Whether nothing can be had by that path, so that there is nothing to allow.
fn is_out_of_reach(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | PermissionDenied | NotADirectory)
        || error.raw_os_error() == Some(libc::ELOOP)
}

impl RuleAccess {
    const fn rights(self) -> u64 {
        const READ: u64 = fs::READ_FILE | fs::READ_DIR;
        const WRITE: u64 = READ
            | fs::WRITE_FILE
            | fs::TRUNCATE
            | fs::REMOVE_DIR
            | fs::REMOVE_FILE
            | fs::MAKE_DIR
            | fs::MAKE_REG
            | fs::MAKE_FIFO
            | fs::MAKE_SYM
            | fs::REFER;
        match self {
            Self::Read | Self::ProcRead => READ,
            Self::ReadExec => READ | fs::EXECUTE,
            Self::Write => WRITE,
            Self::WriteExec => WRITE | fs::EXECUTE,
            Self::Device => fs::READ_FILE | fs::WRITE_FILE | fs::IOCTL_DEV,
        }
    }
}

/// The error with the path in front, of the same kind and readable by people.
fn about(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[expect(unsafe_code, reason = "landlock_create_ruleset(2) has no wrapper")]
fn ask(flags: u32) -> Option<u32> {
    // SAFETY: with these flags the kernel wants no memory and gives a number.
    let told = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<RulesetAttr>(), 0_usize, flags)
    };
    u32::try_from(told).ok()
}

#[expect(unsafe_code, reason = "landlock_create_ruleset(2) has no wrapper")]
fn create(attr: &RulesetAttr) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `size_of` bytes of `attr`, which lives.
    let told = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::from_ref(attr),
            size_of::<RulesetAttr>(),
            0,
        )
    };
    let Some(fd) = i32::try_from(told).ok().filter(|fd| *fd >= 0) else {
        return Err(io::Error::last_os_error());
    };
    // SAFETY: the kernel made it just now, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[expect(unsafe_code, reason = "landlock_add_rule(2) has no wrapper")]
fn add<T>(ruleset: &OwnedFd, kind: i32, attr: &T) -> io::Result<()> {
    // SAFETY: each caller passes the structure of its kind, which lives; the kernel only reads it.
    let done = unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), kind, std::ptr::from_ref(attr), 0)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
#[path = "landlock_tests.rs"]
mod tests;
