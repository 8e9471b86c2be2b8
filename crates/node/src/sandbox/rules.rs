//! What Landlock is told: the base set, the roots of the policy, and what is the run's own. Built
//! in the guard, once everything is mounted: a rule holds for what a path leads to at that moment.

use std::path::{Path, PathBuf};

use cortex_core::sandbox::{Access, Network};

use super::base;
use super::landlock::{Rule, RuleAccess};
use super::walls::Room;

/// All rules of a run. `scratch` is its own folder.
pub(crate) fn of(room: &Room, scratch: &Path) -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut add = |path: &Path, access| rules.push(Rule { path: path.to_owned(), access });
    let is_folder = |path: &&Path| path.symlink_metadata().is_ok_and(|data| data.is_dir());
    for folder in base::FOLDERS.iter().map(Path::new).filter(is_folder) {
        add(folder, RuleAccess::ReadExec);
    }
    let resolver = (room.network != Network::None).then_some(&base::RESOLV);
    for path in base::FILES.iter().chain(base::ETC_FOLDERS).chain(resolver) {
        add(Path::new(path), RuleAccess::Read);
    }
    for device in base::DEVICES {
        add(Path::new(device), RuleAccess::Device);
    }
    add(Path::new("/proc"), RuleAccess::ProcRead);
    for tree in &room.trees {
        add(&tree.path, access_of(tree.access, tree.exec));
    }
    add(scratch, access_of(Access::Write, room.may_run_what_it_writes()));
    rules
}

const fn access_of(access: Access, exec: bool) -> RuleAccess {
    match (access, exec) {
        (Access::Read, false) => RuleAccess::Read,
        (Access::Read, true) => RuleAccess::ReadExec,
        (Access::Write, false) => RuleAccess::Write,
        (Access::Write, true) => RuleAccess::WriteExec,
    }
}

/// Whether programs of the base set lie there.
pub(crate) fn is_base(path: &Path) -> bool {
    base::FOLDERS.iter().any(|folder| path.starts_with(folder))
}

/// Where a program may lie: the base set, and the roots from which programs are executed.
pub(crate) fn may_execute(room: &Room, path: &Path) -> bool {
    let within = |tree: &PathBuf| path.starts_with(tree);
    is_base(path) || room.trees.iter().any(|tree| tree.exec && (within(&tree.path) || within(&tree.source)))
}
