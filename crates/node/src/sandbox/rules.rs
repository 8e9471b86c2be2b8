//! What Landlock is told: the base set, the roots of the policy, and what is the run's own. Built
//! in the guard, once everything is mounted: a rule holds for what a path leads to at that moment, and
//! a root has to be the file that the node looked at.

use std::path::{Path, PathBuf};

use cortex_core::sandbox::{Access, Network};

use super::base;
use super::landlock::{Rule, RuleAccess};
use super::walls::Room;

/// All rules of a run. `scratch` is its own folder.
pub(crate) fn of(room: &Room, scratch: &Path) -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut add_file = |path: &Path, access, file| rules.push(Rule { path: path.to_owned(), access, file });
    for tree in &room.trees {
        add_file(&tree.path, access_of(tree.access, tree.exec), Some(tree.file));
    }
    let mut add = |path: &Path, access| add_file(path, access, None);
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

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use cortex_core::sandbox::Level;

    use super::super::landlock::ruleset;
    use super::super::walls::{Bound, FileId};
    use super::*;

    /// What a run with rights above a root does while the next one is made.
    #[test]
    fn a_root_that_was_exchanged_for_a_link_has_no_ruleset() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("it is there").join("root");
        std::fs::create_dir(&root).expect("made");
        let file = FileId::of(&root.metadata().expect("it is there"));
        let bound = Bound {
            path: root.clone(),
            source: root.clone(),
            access: Access::Write,
            exec: true,
            is_dir: true,
            file,
        };
        let room = Room {
            level: Level::Kernel,
            trees: vec![bound],
            masks: Vec::new(),
            network: Network::None,
            user: None,
            host: String::new(),
        };
        let made = || ruleset(&of(&room, folder.path()), &room.network).map_err(|error| error.kind());
        made().expect("it is the file that was looked at");
        std::fs::rename(&root, folder.path().join("before")).expect("renamed");
        std::os::unix::fs::symlink("/", &root).expect("linked");
        assert_eq!(made().map(drop), Err(ErrorKind::StaleNetworkFileHandle));
    }
}
