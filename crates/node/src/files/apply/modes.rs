//! Permissions of what is received: of a mode only the exec bit travels, never setuid, setgid or sticky
//! (SYNC rule 16), and what git runs by itself is not made executable from afar (ABUSE 60).

use std::fs::File;

use cortex_core::files::path::RelPath;
use nix::sys::stat::{Mode, UtimensatFlags, fchmod, futimens, utimensat};
use nix::sys::time::TimeSpec;

use super::super::acl;
use super::super::beneath::{Dir, Stat};
use super::super::fault::Fault;

/// Of a new folder.
pub(super) const DIR_MODE: u16 = 0o755;

/// Of a new file.
pub(super) const fn of(exec: bool) -> u16 {
    if exec { 0o755 } else { 0o644 }
}

/// What a file that is there has with another exec bit: whoever may read it may execute it.
pub(super) const fn with_exec(mode: u16, exec: bool) -> u16 {
    let plain = mode & 0o666;
    if exec { plain | (plain & 0o444) >> 2 } else { plain }
}

/// Whether git executes what lies there by itself: anything in a folder `hooks` below `.git`, in any
/// spelling that a disk may take for these.
pub(super) fn is_hook(path: &RelPath) -> bool {
    let mut parts = path.parts();
    let is_in_git = parts.any(|part| part.eq_ignore_ascii_case(".git"));
    is_in_git && parts.any(|part| part.eq_ignore_ascii_case("hooks")) && parts.next().is_some()
}

/// Sets the permissions of a file.
pub(crate) fn set(file: &File, mode: u16) -> Result<(), Fault> {
    Ok(fchmod(file, Mode::from_bits_truncate(mode.into()))?)
}

/// Gives a new file what it is to have beside content, if it has not; what is known of it then.
pub(super) fn dress(file: &File, exec: bool, mtime_ns: Option<i64>) -> Result<Stat, Fault> {
    mtime_ns.map_or(Ok(()), |ns| set_time(file, ns))?;
    let stat = Stat::of_open(file)?;
    if stat.mode == of(exec) {
        return Ok(stat);
    }
    set(file, of(exec))?;
    Stat::of_open(file)
}

/// Sets when a file was written.
pub(super) fn set_time(file: &File, mtime_ns: i64) -> Result<(), Fault> {
    let time = time(mtime_ns);
    Ok(futimens(file, &time, &time)?)
}

/// Sets when an entry was written, itself and not what it leads to.
pub(super) fn set_entry_time(folder: &Dir, name: &[u8], mtime_ns: i64) -> Result<(), Fault> {
    let time = time(mtime_ns);
    Ok(utimensat(folder, name, &time, &time, UtimensatFlags::NoFollowSymlink)?)
}

fn time(ns: i64) -> TimeSpec {
    TimeSpec::new(ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000))
}

/// Gives a file that takes the place of another what that one allows, its owner and its access list as far
/// as this user may. So what only its owner may read stays so.
pub(super) fn take_over(from: &File, old: &Stat, to: &File, exec: bool) -> Result<(), Fault> {
    use nix::unistd::{Gid, Uid, fchown};
    let new = Stat::of_open(to)?;
    if new.gid != old.gid {
        let _kept = fchown(to, None, Some(Gid::from_raw(old.gid)));
    }
    if new.uid != old.uid {
        let _kept = fchown(to, Some(Uid::from_raw(old.uid)), None);
    }
    set(to, with_exec(old.mode, exec))?;
    let _kept = acl::copy(from, to);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a60_what_git_runs_is_known_in_each_spelling() {
        let is = |path: &str| is_hook(&RelPath::parse(path).expect("a path"));
        for path in [".git/hooks/pre-commit", "a/.git/hooks/x/y", ".GIT/Hooks/x", ".git/modules/m/hooks/x"] {
            assert!(is(path), "{path}");
        }
        for path in [".git/hooks", "hooks/x", ".git/x", "hooks/.git/x", ".github/hooks/x"] {
            assert!(!is(path), "{path}");
        }
    }

    #[test]
    fn who_may_read_may_execute_and_nobody_else_gets_anything() {
        for (mode, exec, is) in
            [(0o600, true, 0o700), (0o4755, false, 0o644), (0o6644, true, 0o755), (0o640, true, 0o750)]
        {
            assert_eq!(with_exec(mode, exec), is, "{mode:o}");
        }
    }
}
