//! The processes below this one, found in `/proc` by their parents. Never here: waiting.

use std::collections::{BTreeMap, BTreeSet};

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
    for pid in &found {
        let _gone = kill(Pid::from_raw(*pid), signal);
    }
    found.len()
}

/// What descends from `root`, asked of the kernel parent by parent: a hundred guards that end their
/// runs at once must not read every process of the machine a hundred times. One that is born or ends
/// meanwhile may hide a sibling, so callers ask again until nothing is left. `None` when this kernel
/// does not say.
fn below(root: i32, spared: &BTreeSet<i32>) -> Option<Vec<i32>> {
    let mut found = children(root)?;
    found.retain(|pid| !spared.contains(pid));
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        let more = children(*pid).unwrap_or_default();
        found.extend(more.into_iter().filter(|pid| !spared.contains(pid)));
        next += 1;
    }
    Some(found)
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
fn descendants(root: i32, spared: &BTreeSet<i32>, processes: Vec<(i32, i32)>) -> Vec<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for (pid, parent) in processes {
        if !spared.contains(&pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = children.remove(&root).unwrap_or_default();
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        let below = children.remove(pid).unwrap_or_default();
        found.extend(below);
        next += 1;
    }
    found
}

/// Every process with its parent.
fn processes() -> Vec<(i32, i32)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
            Some((pid, parent_of(&stat)?))
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
        let processes = vec![(1, 0), (7, 1), (8, 7), (9, 7), (10, 8), (11, 9), (12, 1)];
        assert_eq!(descendants(7, &BTreeSet::new(), processes.clone()), [8, 9, 10, 11]);
        assert_eq!(descendants(7, &BTreeSet::from([8]), processes), [9, 11]);
    }

    #[test]
    fn the_kernel_tells_the_children_of_a_process() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a child");
        let pid = child.id().cast_signed();
        // A kernel that does not say has the other way.
        if let Some(found) = below(std::process::id().cast_signed(), &BTreeSet::new()) {
            assert!(found.contains(&pid), "{found:?}");
            let spared = below(std::process::id().cast_signed(), &BTreeSet::from([pid]));
            assert!(!spared.expect("it says so").contains(&pid));
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
