//! Which file a run behind walls executes: looked up once, judged on that very file, and executed by
//! it (ABUSE 35). Only files that the walls let it execute are found, so that a name finds a usable
//! one where a folder before it has another. Never here: arguments.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use cortex_core::name::printable;
use cortex_core::sandbox::Access;
use nix::libc;

use super::rules;
use super::walls::{FileId, Room};

/// A program as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Without symlinks.
    pub(crate) path: PathBuf,
    /// Which file that was.
    pub(crate) file: FileId,
    /// Whether it begins with `#!`, and the kernel starts an interpreter.
    pub(crate) is_script: bool,
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoProgram {
    /// It is not there.
    Missing,
    /// It may not be executed; the sentence names the rule.
    Denied(String),
}

/// The program of a name, or at an absolute path.
pub(crate) fn find(room: &Room, path: &OsStr, program: &str) -> Result<Found, NoProgram> {
    if program.starts_with('/') {
        let file = Path::new(program).canonicalize().map_err(|_| NoProgram::Missing)?;
        if !rules::may_execute(room, &file) {
            return Err(denied(
                &file,
                "lies in no folder from which the policy lets programs run",
                "roots.program",
            ));
        }
        return look_at(room, file);
    }
    let here = folders(room, path).into_iter().map(|folder| folder.join(program));
    let files = here.filter(|file| file.metadata().is_ok_and(|data| is_program(&data)));
    let mut real = files.filter_map(|file| file.canonicalize().ok());
    let file = real.find(|file| rules::may_execute(room, file)).ok_or(NoProgram::Missing)?;
    look_at(room, file)
}

/// The folders of a search path from which a run may execute something.
pub(crate) fn folders(room: &Room, path: &OsStr) -> Vec<PathBuf> {
    let all = std::env::split_paths(path).filter(|folder| folder.is_absolute());
    let real = |folder: &PathBuf| folder.canonicalize().is_ok_and(|real| rules::may_execute(room, &real));
    all.filter(real).collect()
}

/// The same as a search path.
pub(crate) fn search_path(room: &Room, path: &OsStr) -> OsString {
    // They came out of one, so none has a colon.
    std::env::join_paths(folders(room, path)).unwrap_or_default()
}

fn look_at(room: &Room, path: PathBuf) -> Result<Found, NoProgram> {
    let data = path.metadata().map_err(|_| NoProgram::Missing)?;
    if !is_program(&data) {
        return Err(denied(&path, "is no program", "exec.program"));
    }
    let is_work = room.trees.iter().any(|tree| {
        let is_in = path.starts_with(&tree.path) || path.starts_with(&tree.source);
        is_in && tree.exec && tree.access == Access::Write
    });
    if data.permissions().mode() & 0o022 != 0 && !is_work {
        return Err(denied(&path, "can be changed by others than its owner", "exec.program"));
    }
    Ok(Found { file: FileId::of(&data), is_script: is_script(&path), path })
}

fn is_program(data: &Metadata) -> bool {
    data.is_file() && data.permissions().mode() & 0o111 != 0
}

/// A program that cannot be read is none: the kernel could not either.
fn is_script(path: &Path) -> bool {
    // A file that somebody holds a lease on would let this wait.
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    let mut begin = [0; 2];
    let file = File::options().read(true).custom_flags(flags).open(path);
    file.is_ok_and(|mut file| file.read_exact(&mut begin).is_ok()) && begin == *b"#!"
}

fn denied(path: &Path, why: &str, rule: &str) -> NoProgram {
    let shown = printable(&path.to_string_lossy(), 200);
    NoProgram::Denied(format!("The program `{shown}` {why} ({rule})."))
}

#[cfg(test)]
mod tests {
    use cortex_core::sandbox::{Level, Network};

    use super::super::walls::Bound;
    use super::*;

    fn room(tree: &Path, access: Access, exec: bool) -> Room {
        let path = tree.canonicalize().expect("it is there");
        let bound = Bound { source: path.clone(), file: FileId::default(), is_dir: true, path, access, exec };
        Room {
            level: Level::Full,
            trees: vec![bound],
            masks: Vec::new(),
            network: Network::None,
            user: None,
            host: String::new(),
        }
    }

    fn put(folder: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        path
    }

    #[test]
    fn a_name_finds_the_file_that_may_run_and_not_one_before_it() {
        let folder = tempfile::tempdir().expect("a folder");
        put(folder.path(), "sh", "#!/bin/false\n", 0o755);
        let path = OsString::from(format!("{}:/nowhere:relative:/usr/bin:/bin", folder.path().display()));
        let closed = room(folder.path(), Access::Write, false);
        let found = find(&closed, &path, "sh").expect("every system has it");
        assert!(!found.path.starts_with(folder.path()) && !found.is_script, "{found:?}");
        assert!(!folders(&closed, &path).iter().any(|one| one.starts_with(folder.path())));
        let open = room(folder.path(), Access::Read, true);
        assert!(find(&open, &path, "sh").expect("the first one").is_script);
        assert_eq!(find(&open, &path, "no-such-program"), Err(NoProgram::Missing));
    }

    #[test]
    fn a_path_outside_and_a_file_that_others_may_change_are_denied_by_rule() {
        let folder = tempfile::tempdir().expect("a folder");
        let tool = put(folder.path(), "tool", "x", 0o777);
        let text = tool.to_str().expect("text");
        let rule = |room: &Room, program: &str| match find(room, OsStr::new(""), program) {
            Err(NoProgram::Denied(why)) => why.rsplit_once('(').map(|(_, rule)| rule.to_owned()),
            other => panic!("{other:?}"),
        };
        let outside = room(folder.path(), Access::Write, false);
        assert_eq!(rule(&outside, text).as_deref(), Some("roots.program)."));
        assert_eq!(rule(&room(folder.path(), Access::Read, true), text).as_deref(), Some("exec.program)."));
        assert!(find(&room(folder.path(), Access::Write, true), OsStr::new(""), text).is_ok());
        let plain = put(folder.path(), "plain", "x", 0o644);
        let inside = room(folder.path(), Access::Write, true);
        assert_eq!(rule(&inside, plain.to_str().expect("text")).as_deref(), Some("exec.program)."));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).expect("linked");
        assert_eq!(rule(&inside, link.to_str().expect("text")).as_deref(), Some("roots.program)."));
    }
}
