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
    let found = descendants(std::process::id().cast_signed(), spared, processes());
    for pid in &found {
        let _gone = kill(Pid::from_raw(*pid), signal);
    }
    found.len()
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
    fn a_program_name_with_parentheses_does_not_hide_the_parent() {
        assert_eq!(parent_of(b"12 (a) R 99 (b)) S 7 12 12 0"), Some(7));
        assert_eq!(parent_of(b"12 no name"), None);
    }
}
