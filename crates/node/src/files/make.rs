//! Folders are made, one after the other from the top, each durable before the next.

use std::os::fd::AsFd as _;

use cortex_core::error::Refusal;
use cortex_core::files::answer::FileAnswer;
use cortex_core::files::op::Kind;
use cortex_core::files::path::RelPath;
use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod};

use super::beneath::{Dir, Follow, Root};
use super::fault::{Fault, unfit};
use super::place::{Place, Work};
use super::seam::{Moment, Synced};

/// Permissions of a new folder when the caller does not say.
const MODE: u16 = 0o755;

/// Folders that an operation made for what it is about to do, outermost first. They are removed when they
/// are dropped, as long as nothing is in them.
#[derive(Debug, Default)]
pub(crate) struct Made(Vec<(Dir, String)>);

impl Made {
    /// How many.
    pub(crate) fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// One that was made just now: it gets its permissions and is made durable.
    fn add(&mut self, work: &Work<'_>, above: Dir, name: &str, mode: Option<u16>) -> Result<(), Fault> {
        // First, so that it goes again when the rest fails.
        self.0.push((above, name.to_owned()));
        let Some((above, name)) = self.0.last() else { return Ok(()) };
        if let Some(mode) = mode {
            let folder = above.dir(name.as_bytes())?;
            // A folder within one of a group belongs to that group, and so do those in it.
            let inherited = folder.stat_self()?.mode & 0o2000;
            fchmod(&folder, Mode::from_bits_truncate((mode | inherited).into()))?;
        }
        work.seam.sync(above.as_fd(), Synced::Names)
    }

    /// They stay.
    pub(crate) fn keep(&mut self) {
        self.0.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for (above, name) in self.0.iter().rev() {
            // One in which somebody put something meanwhile stays.
            let _removed = above.remove_dir(name.as_bytes());
        }
    }
}

/// Opens a folder, and makes it and those above it that are missing.
pub(crate) fn folders(
    work: &Work<'_>,
    root: &Root,
    rel: &RelPath,
    mode: Option<u16>,
) -> Result<(Dir, Made), Fault> {
    let mut made = Made::default();
    match root.dir(rel, Follow::Within) {
        Err(fault) if fault.is_absent() => {}
        found => return Ok((found?, made)),
    }
    let mut at = RelPath::root();
    let mut folder = root.dir(&at, Follow::Within)?;
    for part in rel.parts() {
        at = at.join(part).map_err(|_| Fault::TooMany)?;
        let next = match root.dir(&at, Follow::Within) {
            Err(fault) if fault.is_absent() => {
                if make(&folder, part)? {
                    made.add(work, folder, part, mode)?;
                }
                root.dir(&at, Follow::Within)?
            }
            found => found?,
        };
        folder = next;
    }
    Ok((folder, made))
}

/// Makes one folder. Whether it was not there: a second caller who makes it at the same time is good.
fn make(above: &Dir, name: &str) -> Result<bool, Fault> {
    match above.make_dir(name.as_bytes(), Mode::from_bits_truncate(MODE.into())) {
        Ok(()) => Ok(true),
        Err(fault) if fault.is_taken() => Ok(false),
        Err(fault) => Err(fault),
    }
}

/// Makes a folder as a caller asked for it.
///
/// # Errors
///
/// `conflict` when it is there already and `parents` does not make that good, `unsupported_entry` when
/// something else is there, `not_found` when the folder above is missing.
pub(crate) fn make_dir(
    work: &Work<'_>,
    place: &Place<'_>,
    parents: bool,
    mode: Option<u16>,
) -> Result<FileAnswer, Refusal> {
    let failed = |fault| place.refusal(fault);
    work.seam.pass(Moment::Prepared);
    let mut made = if parents {
        folders(work, place.root, place.rel, mode).map_err(failed)?.1
    } else {
        let (folder, name) = place.parent()?;
        if !make(&folder, name).map_err(failed)? {
            let there = folder.stat(name.as_bytes()).map_err(failed)?;
            return Err(match there.kind {
                Kind::Dir => failed(Fault::Sys(Errno::EEXIST)),
                kind @ (Kind::File | Kind::Link | Kind::Other) => unfit(place.path.as_str(), kind),
            });
        }
        let mut made = Made::default();
        made.add(work, folder, name, mode).map_err(failed)?;
        made
    };
    let count = made.count();
    made.keep();
    work.seam.pass(Moment::DirSynced);
    Ok(FileAnswer::Done { removed: 0, made: count, notes: Vec::new(), dry_run: false })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use cortex_core::error::Code;

    use super::*;
    use crate::files::support::{Failing, PLAIN, Scene};

    fn made(scene: &Scene, path: &str, parents: bool, mode: Option<u16>) -> Result<u64, Code> {
        match make_dir(&PLAIN, &scene.at(path).place(), parents, mode) {
            Ok(FileAnswer::Done { removed: 0, made, .. }) => Ok(made),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal.code),
        }
    }

    #[test]
    fn a_folder_is_made_with_those_above_it_when_that_is_asked_for() {
        let scene = Scene::new();
        scene.write("f", "");
        std::os::unix::fs::symlink("../..", scene.disk("out")).expect("linked");
        std::os::unix::fs::symlink("in", scene.disk("dangling")).expect("linked");
        for (path, parents, mode, expected) in [
            ("a", false, None, Ok(1)),
            ("a", false, None, Err(Code::Conflict)),
            ("a", true, None, Ok(0)),
            ("b/c", false, None, Err(Code::NotFound)),
            ("b/مجلد/d", true, Some(0o700), Ok(3)),
            ("b/مجلد/e", false, Some(0o775), Ok(1)),
            ("f", false, None, Err(Code::UnsupportedEntry)),
            ("f", true, None, Err(Code::UnsupportedEntry)),
            ("f/x", true, None, Err(Code::UnsupportedEntry)),
            ("out/x", false, None, Err(Code::PathOutsideRoots)),
            ("out/x/y", true, None, Err(Code::PathOutsideRoots)),
            ("dangling/x", true, None, Err(Code::NotFound)),
            ("", true, None, Ok(0)),
            ("", false, None, Err(Code::UnsupportedEntry)),
        ] {
            assert_eq!(made(&scene, path, parents, mode), expected, "{path} {parents}");
        }
        let mode = |path: &str| scene.disk(path).metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!([mode("a"), mode("b/مجلد"), mode("b/مجلد/e")], [0o755, 0o700, 0o775]);
        assert_eq!(scene.names(""), ["a", "b", "dangling", "f", "out"]);
    }

    #[test]
    fn a_folder_that_is_not_durable_is_not_acknowledged_and_goes_again() {
        for nth in 0..3 {
            let scene = Scene::new();
            let seam = Failing { nth, synced: std::cell::RefCell::default() };
            let work = Work { seam: &seam, ..PLAIN };
            let refusal = make_dir(&work, &scene.at("a/b/c").place(), true, None).expect_err("not durable");
            assert_eq!(refusal.code, Code::Internal, "{nth}");
            assert_eq!((seam.synced.borrow().len(), scene.names("").len()), (nth + 1, 0));
        }
    }
}
