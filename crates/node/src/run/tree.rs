//! The processes below this one, found in `/proc` by their parents. Never here: waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Signals every descendant of this process. Those that ended meanwhile are passed over.
pub(super) fn signal_all(signal: Signal) {
    signal_all_but(signal, &BTreeSet::new());
}

/// The same without these children and what descends from them. How many there were.
pub(super) fn signal_all_but(signal: Signal, spared: &BTreeSet<i32>) -> usize {
    let root = std::process::id().cast_signed();
    let found = below(root, spared).unwrap_or_else(|| descendants(root, spared, processes()));
    signal_found(signal, root, &found);
    found.len()
}

/// A process that was found below `root`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    pid: i32,
    parent: i32,
}

/// Signals them. One that ended since, and whose number somebody else has, is passed over: that one
/// has another parent. A child of this process keeps its number until this process takes it in; the
/// others are held by a descriptor while that is asked.
fn signal_found(signal: Signal, root: i32, found: &[Found]) {
    for Found { pid, parent } in found.iter().copied() {
        let held = if parent == root { None } else { Some(hold(pid)) };
        match held {
            Some(Ok(held)) => {
                let now = std::fs::read(format!("/proc/{pid}/stat")).ok().and_then(|stat| parent_of(&stat));
                // Orphans become children of this process.
                if now.is_some_and(|now| now == parent || now == root) {
                    let _gone = send(&held, signal);
                }
            }
            Some(Err(Errno::ESRCH)) => {}
            // A child; or this system lets nobody be held.
            None | Some(Err(_)) => {
                let _gone = kill(Pid::from_raw(pid), signal);
            }
        }
    }
}

#[expect(unsafe_code, reason = "pidfd_open(2) has no safe form")]
fn hold(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: numbers alone.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let fd = RawFd::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: it was opened just now, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[expect(unsafe_code, reason = "pidfd_send_signal(2) has no safe form")]
fn send(held: &OwnedFd, signal: Signal) -> nix::Result<()> {
    let (fd, none) = (held.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
    // SAFETY: the descriptor is open, and no memory is passed.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal as i32, none, 0) };
    Errno::result(sent).map(drop)
}

/// What descends from `root`, asked of the kernel parent by parent: a hundred guards that end their
/// runs at once must not read every process of the machine a hundred times. One that is born or ends
/// meanwhile may hide a sibling, so callers ask again until nothing is left. `None` when this kernel
/// does not say.
fn below(root: i32, spared: &BTreeSet<i32>) -> Option<Vec<Found>> {
    let found = |parent: i32, children: Vec<i32>| {
        let found = children.into_iter().map(move |pid| Found { pid, parent });
        found.filter(|one| !spared.contains(&one.pid))
    };
    let mut all: Vec<Found> = found(root, children(root)?).collect();
    let mut next = 0;
    while let Some(Found { pid, .. }) = all.get(next).copied() {
        all.extend(found(pid, children(pid).unwrap_or_default()));
        next += 1;
    }
    Some(all)
}

/// The children of all threads of a process.
fn children(pid: i32) -> Option<Vec<i32>> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let mut found = Vec::new();
    for task in tasks.flatten() {
        let text = std::fs::read_to_string(task.path().join("children")).ok()?;
        found.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    Some(found)
}

/// All of `processes` that descend from `root`, parents before children.
fn descendants(root: i32, spared: &BTreeSet<i32>, processes: Vec<Found>) -> Vec<Found> {
    let mut children: BTreeMap<i32, Vec<Found>> = BTreeMap::new();
    for one in processes {
        if !spared.contains(&one.pid) {
            children.entry(one.parent).or_default().push(one);
        }
    }
    let mut found = children.remove(&root).unwrap_or_default();
    let mut next = 0;
    while let Some(Found { pid, .. }) = found.get(next) {
        let below = children.remove(pid).unwrap_or_default();
        found.extend(below);
        next += 1;
    }
    found
}

/// Every process with its parent.
fn processes() -> Vec<Found> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
            Some(Found { pid, parent: parent_of(&stat)? })
        })
        .collect()
}

/// The fourth field of `stat`. The second is the program's name in parentheses and may hold
/// anything, parentheses too, so the last one counts.
fn parent_of(stat: &[u8]) -> Option<i32> {
    let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let rest = std::str::from_utf8(stat.get(after_name..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_are_found_at_any_depth_and_spared_with_all_below_them() {
        let processes = [(1, 0), (7, 1), (8, 7), (9, 7), (10, 8), (11, 9), (12, 1)];
        let processes: Vec<_> = processes.map(|(pid, parent)| Found { pid, parent }).into();
        let below = |spared: &[i32]| -> Vec<i32> {
            let spared = spared.iter().copied().collect();
            descendants(7, &spared, processes.clone()).iter().map(|one| one.pid).collect()
        };
        assert_eq!(below(&[]), [8, 9, 10, 11]);
        assert_eq!(below(&[8]), [9, 11]);
    }

    #[test]
    fn whoever_has_the_number_of_one_that_ended_is_not_signalled() {
        let own = std::process::id().cast_signed();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a child");
        let pid = child.id().cast_signed();
        // No process has these numbers: neither is its parent.
        let (root, other) = (i32::MAX, i32::MAX - 1);
        signal_found(Signal::SIGKILL, root, &[Found { pid, parent: other }]);
        signal_found(Signal::SIGTERM, root, &[Found { pid, parent: own }]);
        let ended = child.wait().expect("reaped");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(Signal::SIGTERM as i32));
        signal_found(Signal::SIGKILL, root, &[Found { pid, parent: own }]);
    }

    #[test]
    fn the_kernel_tells_the_children_of_a_process() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a child");
        let pid = child.id().cast_signed();
        // A kernel that does not say has the other way.
        if let Some(found) = below(std::process::id().cast_signed(), &BTreeSet::new()) {
            assert!(found.iter().any(|one| one.pid == pid), "{found:?}");
            let spared = below(std::process::id().cast_signed(), &BTreeSet::from([pid]));
            assert!(spared.expect("it says so").iter().all(|one| one.pid != pid));
        }
        child.kill().expect("killed");
        child.wait().expect("reaped");
    }

    #[test]
    fn a_program_name_with_parentheses_does_not_hide_the_parent() {
        assert_eq!(parent_of(b"12 (a) R 99 (b)) S 7 12 12 0"), Some(7));
        assert_eq!(parent_of(b"12 no name"), None);
    }
}
