//! As whom a run executes: never as root, without capabilities, and without a way to get any.
//!
//! What happens between fork and exec is system calls on values that were made before. Never here:
//! the rights of files, namespaces.

use std::io;

use cortex_core::name::printable;
use cortex_core::{Code, Refusal};
use nix::libc::{self, c_int, c_long, c_ulong};

use super::step::{Failed, Step};

/// The system user for runs, where it was made.
const USUAL_NAME: &str = "cortex-run";
/// The number for runs where that user is missing. Neither distributions nor systemd's dynamic
/// users have it, and it exists where numbers end at 65535.
const USUAL_NUMBER: u32 = 65_521;

/// What tells the system to leave a user or group as it is: a run would stay root.
const UNCHANGED: u32 = u32::MAX;

const CAP_KILL: u32 = 5;
const CAP_SETPCAP: u32 = 8;
/// The newest version of the call's format, with 64 capabilities in two words.
const CAPABILITY_VERSION: u32 = 0x2008_0522;
/// More capabilities than there are; the system says where they end.
const CAPABILITIES_MAX: u32 = 64;

/// A user and group for runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunUser {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) name: String,
}

impl RunUser {
    /// For a node process that is root: as configured (a name, or `uid:gid`), or the usual one.
    /// `None` for any other, whose runs are its own. Refused `bad_config`: a user that is not
    /// there, and root.
    pub(crate) fn find(configured: Option<&str>) -> Result<Option<Self>, Refusal> {
        if !nix::unistd::geteuid().is_root() {
            return match configured {
                Some(_) => Err(bad("Only a node process that is root can give its runs another user.")),
                None => Ok(None),
            };
        }
        let found = match configured {
            Some(text) => Self::parse(text)?,
            None => Self::named(USUAL_NAME).unwrap_or_else(|| Self {
                uid: USUAL_NUMBER,
                gid: USUAL_NUMBER,
                name: USUAL_NAME.to_owned(),
            }),
        };
        if found.uid == 0 || found.gid == 0 {
            return Err(bad("Runs behind walls are never root."));
        }
        if found.uid == UNCHANGED || found.gid == UNCHANGED {
            return Err(bad("4294967295 is no number of a user or group."));
        }
        Ok(Some(found))
    }

    fn parse(text: &str) -> Result<Self, Refusal> {
        if let Some((uid, gid)) = text.split_once(':')
            && let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse())
        {
            return Ok(Self { uid, gid, name: USUAL_NAME.to_owned() });
        }
        Self::named(text).ok_or_else(|| bad(&format!("This machine has no user `{}`.", printable(text, 80))))
    }

    fn named(name: &str) -> Option<Self> {
        let user = nix::unistd::User::from_name(name).ok().flatten()?;
        Some(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw(), name: user.name })
    }
}

fn bad(what: &str) -> Refusal {
    Refusal::new(Code::BadConfig, format!("The user for runs cannot be used: {what}"))
        .hint("Set `node.run_user` to a system user or to `uid:gid`, or leave it out.")
}

/// Between fork and exec: drops every capability, and the ways to them, and becomes the run's user.
pub(crate) fn leave_rights(user: Option<(u32, u32)>) -> Result<(), Failed> {
    let has_capabilities = permitted().map_err(Failed::by(Step::Capabilities))? != 0;
    if has_capabilities {
        drop_bounds().map_err(Failed::by(Step::Capabilities))?;
    }
    if let Some((uid, gid)) = user {
        become_user(uid, gid).map_err(Failed::by(Step::User))?;
    }
    keep(0).map_err(Failed::by(Step::Capabilities))
}

/// Of all capabilities only the one to signal the run's processes.
pub(crate) fn keep_kill_only() -> io::Result<()> {
    let has = permitted()?;
    keep(has & (1 << CAP_KILL))
}

/// What no exec may ever give back, and no change of the user.
fn drop_bounds() -> io::Result<()> {
    if effective()? & (1 << CAP_SETPCAP) == 0 {
        // It cannot be done then; `no_new_privs` has the same end, and the user changes.
        return Ok(());
    }
    for capability in 0..CAPABILITIES_MAX {
        match prctl(libc::PR_CAPBSET_DROP, capability.into()) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            dropped => dropped?,
        }
    }
    prctl(libc::PR_CAP_AMBIENT, 4 /* PR_CAP_AMBIENT_CLEAR_ALL */)?;
    let bits = libc::SECBIT_NOROOT
        | libc::SECBIT_NOROOT_LOCKED
        | libc::SECBIT_NO_SETUID_FIXUP
        | libc::SECBIT_NO_SETUID_FIXUP_LOCKED
        | libc::SECBIT_KEEP_CAPS_LOCKED
        | libc::SECBIT_NO_CAP_AMBIENT_RAISE
        | libc::SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;
    prctl(libc::PR_SET_SECUREBITS, c_ulong::from(bits.cast_unsigned()))
}

/// Without the other groups of the node process, real, effective and saved alike. By system call:
/// the C library's functions would look for the threads of a process that it does not know.
#[expect(unsafe_code, reason = "setgroups, setresgid and setresuid by number have no safe form")]
fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (c_long::from(uid), c_long::from(gid));
    // SAFETY: no list of groups is read for a length of 0, and the others take numbers alone.
    unsafe {
        check(libc::syscall(libc::SYS_setgroups, 0, 0))?;
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))
    }
}

#[repr(C)]
struct Header {
    version: u32,
    pid: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Words {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn words() -> io::Result<[Words; 2]> {
    let mut header = Header { version: CAPABILITY_VERSION, pid: 0 };
    let mut words = [Words::default(); 2];
    #[expect(unsafe_code, reason = "capget(2) has no safe form")]
    // SAFETY: both have the layout of the call's version, and outlive it.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, words.as_mut_ptr()) })?;
    Ok(words)
}

/// The capabilities that this thread may use.
pub(crate) fn permitted() -> io::Result<u64> {
    words().map(|[low, high]| u64::from(low.permitted) | u64::from(high.permitted) << 32)
}

fn effective() -> io::Result<u64> {
    words().map(|[low, high]| u64::from(low.effective) | u64::from(high.effective) << 32)
}

fn keep(capabilities: u64) -> io::Result<()> {
    let mut header = Header { version: CAPABILITY_VERSION, pid: 0 };
    #[expect(clippy::cast_possible_truncation, reason = "the low word")]
    let low = capabilities as u32;
    let of = |word| Words { effective: word, permitted: word, inheritable: 0 };
    let words = [of(low), of((capabilities >> 32) as u32)];
    #[expect(unsafe_code, reason = "capset(2) has no safe form")]
    // SAFETY: both have the layout of the call's version, and outlive it.
    let set = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, words.as_ptr()) };
    check(set)
}

#[expect(unsafe_code, reason = "prctl(2) has no safe form for these")]
fn prctl(option: c_int, argument: c_ulong) -> io::Result<()> {
    // SAFETY: the options used here take numbers alone.
    check(unsafe { libc::prctl(option, argument, 0, 0, 0) }.into())
}

fn check(returned: c_long) -> io::Result<()> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_user_is_a_name_or_numbers_and_never_root() {
        let numbers = RunUser::parse("1234:5678").expect("numbers");
        assert_eq!((numbers.uid, numbers.gid), (1234, 5678));
        assert_eq!(RunUser::parse("root").map(|user| user.uid), Ok(0));
        for text in ["no such user", "1:2:3", ":", "-1:5"] {
            assert_eq!(RunUser::parse(text).map_err(|refusal| refusal.code), Err(Code::BadConfig), "{text}");
        }
        if nix::unistd::geteuid().is_root() {
            // The last number means "leave it" to the system.
            for text in ["root", "0:0", "0:5", "5:0", "4294967295:5", "5:4294967295"] {
                assert!(RunUser::find(Some(text)).is_err(), "{text}");
            }
            let usual = RunUser::find(None).expect("there is always one").expect("for root");
            assert!(usual.uid != 0 && usual.gid != 0);
        } else {
            assert_eq!(RunUser::find(None), Ok(None));
        }
    }
}
