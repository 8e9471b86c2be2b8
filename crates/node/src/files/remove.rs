//! Entries are removed: a file only if it is what was expected, a folder from its leaves upward.

use std::os::fd::AsFd as _;

use cortex_core::error::Refusal;
use cortex_core::files::answer::FileAnswer;
use cortex_core::files::entity::unknown_outcome;
use cortex_core::files::op::{Expect, Kind};
use cortex_core::name::printable;

use super::beneath::Dir;
use super::fault::{Fault, unfit};
use super::place::{Place, Work};
use super::read;
use super::seam::{Moment, Synced};
use super::swap::{Seen, Swapped, put_back};
use super::target::mismatch;
use super::write::beside;
use super::{temp, tree};
use crate::sandbox::walls::FileId;

/// What is going to be removed.
#[derive(Debug)]
pub(crate) struct Removal<'a> {
    place: Place<'a>,
    folder: Dir,
    name: &'a str,
    kind: Kind,
    id: FileId,
    /// What a file must still be.
    seen: Option<Seen>,
    recursive: bool,
    /// Entries, with the one that is named.
    entries: u64,
}

/// Looks at what is there, and counts.
///
/// # Errors
///
/// `etag_mismatch`; `conflict` for a folder that is not empty, or in which a file system is mounted;
/// `unsupported_entry` for the root itself.
pub(crate) fn prepare<'a>(place: Place<'a>, recursive: bool, expect: Expect) -> Result<Removal<'a>, Refusal> {
    let failed = |fault: Fault| place.refusal(fault);
    let (folder, name) = place.parent()?;
    let there = folder.stat(name.as_bytes()).map_err(failed)?;
    let mut removal =
        Removal { place, folder, name, kind: there.kind, id: there.id, seen: None, recursive, entries: 1 };
    if there.kind == Kind::Dir {
        let dir = removal.folder.dir(name.as_bytes()).map_err(failed)?;
        if !recursive && !dir.names(std::ops::Bound::Unbounded, 1).map_err(failed)?.names.is_empty() {
            return Err(failed(Fault::Sys(nix::errno::Errno::ENOTEMPTY)));
        }
        removal.entries += tree::tally(&dir).map_err(failed)?.entries;
    }
    if let Expect::Etag(etag) = expect {
        if there.kind != Kind::File {
            return Err(unfit(place.path.as_str(), there.kind));
        }
        let file = removal.folder.regular(name.as_bytes()).map_err(failed)?;
        let hashed = read::hash(&file).map_err(failed)?;
        if hashed.etag != etag {
            return Err(mismatch(&place, Some(&hashed)));
        }
        // There is no file of ours by which the file system's clock could be read, so it is hashed again.
        removal.seen = Some(Seen { stat: hashed.stat, etag, is_racy: true });
    }
    Ok(removal)
}

impl Removal<'_> {
    /// What would come of it.
    pub(crate) fn told(&self) -> FileAnswer {
        done(self.entries, true)
    }

    /// Removes it.
    ///
    /// # Errors
    ///
    /// `etag_mismatch` with the file where it was; `unknown_outcome` when a part is gone, with the counts,
    /// and when the disk cannot say whether it stays so.
    pub(crate) fn commit(self, work: &Work<'_>) -> Result<FileAnswer, Refusal> {
        let place = self.place;
        let failed = |fault: Fault| place.refusal(fault);
        let name = self.name.as_bytes();
        work.seam.pass(Moment::Prepared);
        let mut removed = 0;
        match (&self.seen, self.kind) {
            (Some(seen), _) => {
                self.checked(work, seen)?;
                removed = 1;
            }
            (None, Kind::Dir) if self.recursive => {
                // Another folder under this name is not the one that was counted.
                if self.folder.stat(name).map_err(failed)?.id != self.id {
                    return Err(failed(Fault::Restless));
                }
                tree::remove(&self.folder, name, &mut removed)
                    .map_err(|fault| self.cut_off(work, fault, removed))?;
            }
            (None, Kind::Dir) => {
                self.folder.remove_dir(name).map_err(failed)?;
                removed = 1;
            }
            (None, Kind::File | Kind::Link | Kind::Other) => {
                self.folder.unlink(name).map_err(failed)?;
                removed = 1;
            }
        }
        work.seam.pass(Moment::Renamed);
        work.seam
            .sync(self.folder.as_fd(), Synced::Names)
            .map_err(|fault| self.cut_off(work, fault, removed))?;
        work.seam.pass(Moment::DirSynced);
        Ok(done(removed, false))
    }

    /// Takes the name away first, and looks at what that was.
    fn checked(&self, work: &Work<'_>, seen: &Seen) -> Result<(), Refusal> {
        let place = self.place;
        let failed = |fault: Fault| place.refusal(fault);
        let was = temp::seen(work.id);
        let was = was.as_bytes();
        match self.folder.rename_new(self.name.as_bytes(), &self.folder, was) {
            Err(fault) if fault.is_absent() => return Err(mismatch(&place, None)),
            renamed => renamed.map_err(failed)?,
        }
        if seen.is_there(&self.folder, was).unwrap_or(false) {
            let Err(fault) = self.folder.unlink(was) else { return Ok(()) };
            put_back(work, &self.folder, was, &self.folder, self.name).map_err(failed)?;
            return Err(failed(fault));
        }
        let Swapped::Changed { kept } =
            put_back(work, &self.folder, was, &self.folder, self.name).map_err(failed)?
        else {
            return Ok(());
        };
        let now = self.folder.regular(self.name.as_bytes()).and_then(|file| read::hash(&file)).ok();
        Err(beside(mismatch(&place, now.as_ref()), kept))
    }

    fn cut_off(&self, work: &Work<'_>, fault: Fault, removed: u64) -> Refusal {
        let why = self.place.refusal(fault);
        if removed == 0 {
            return why;
        }
        let path = printable(self.place.path.as_str(), 300);
        let (entries, message) = (self.entries, why.message.trim_end_matches('.'));
        unknown_outcome(
            work.id,
            &format!("{removed} of {entries} entries of `{path}` were removed, and then: {message}"),
        )
    }
}

fn done(removed: u64, dry_run: bool) -> FileAnswer {
    FileAnswer::Done { removed, made: 0, notes: Vec::new(), dry_run }
}

#[cfg(test)]
mod tests {
    use cortex_core::error::Code;
    use std::os::unix::fs::symlink;

    use cortex_core::files::content::ContentId;

    use super::*;
    use crate::files::support::{Failing, Meanwhile, PLAIN, Scene};

    fn remove(
        work: &Work<'_>,
        scene: &Scene,
        path: &str,
        recursive: bool,
        expect: Expect,
    ) -> Result<u64, Code> {
        let at = scene.at(path);
        let done = prepare(at.place(), recursive, expect).and_then(|removal| removal.commit(work));
        match done {
            Ok(FileAnswer::Done { removed, made: 0, dry_run: false, .. }) => Ok(removed),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal.code),
        }
    }

    fn of(content: &[u8]) -> Expect {
        Expect::Etag(ContentId::of(content))
    }

    #[test]
    fn an_entry_is_removed_and_nothing_that_it_leads_to() {
        let scene = Scene::new();
        std::fs::create_dir(scene.outside("kept")).expect("made");
        std::fs::write(scene.outside("kept/f"), "x").expect("written");
        for (path, expect) in [("f", Expect::Any), ("ملف", of(b"x"))] {
            scene.write(path, "x");
            assert_eq!(remove(&PLAIN, &scene, path, false, expect), Ok(1));
        }
        symlink("../kept", scene.disk("link")).expect("linked");
        assert_eq!(remove(&PLAIN, &scene, "link", true, Expect::Any), Ok(1));
        scene.write("d/e/f", "x");
        symlink("../../kept", scene.disk("d/link")).expect("linked");
        nix::unistd::mkfifo(&scene.disk("d/fifo"), nix::sys::stat::Mode::S_IRWXU).expect("made");
        let told = prepare(scene.at("d").place(), true, Expect::Any).expect("counted").told();
        assert_eq!(told, FileAnswer::Done { removed: 5, made: 0, notes: vec![], dry_run: true });
        assert_eq!(remove(&PLAIN, &scene, "d", false, Expect::Any), Err(Code::Conflict));
        assert_eq!(remove(&PLAIN, &scene, "d", true, Expect::Any), Ok(5));
        std::fs::create_dir(scene.disk("empty")).expect("made");
        assert_eq!(remove(&PLAIN, &scene, "empty", false, Expect::Any), Ok(1));
        assert!(scene.names("").is_empty());
        assert_eq!(std::fs::read(scene.outside("kept/f")).expect("there"), b"x");
    }

    #[test]
    fn what_is_not_there_or_not_expected_stays() {
        let scene = Scene::new();
        scene.write("d/f", "x");
        for (path, recursive, expect, code) in [
            ("none", false, Expect::Any, Code::NotFound),
            ("none/f", false, Expect::Any, Code::NotFound),
            ("d/f", false, of(b"y"), Code::EtagMismatch),
            ("d", false, of(b"y"), Code::UnsupportedEntry),
            ("", true, Expect::Any, Code::UnsupportedEntry),
            ("d/f/x", false, Expect::Any, Code::UnsupportedEntry),
        ] {
            let refused = remove(&PLAIN, &scene, path, recursive, expect);
            assert!(refused == Err(code) || path == "d" && refused.is_err(), "{path} {refused:?}");
        }
        assert_eq!(scene.read("d/f"), b"x");
    }

    #[test]
    fn sync_06_a_file_that_changed_since_it_was_looked_at_is_not_removed() {
        for what in ["written", "replaced", "removed"] {
            let scene = Scene::new();
            scene.write("f", "old");
            let seam = Meanwhile::new(Moment::Prepared, || match what {
                "written" => scene.write("f", "new"),
                "replaced" => {
                    std::fs::write(scene.outside("t"), "new").expect("written");
                    std::fs::rename(scene.outside("t"), scene.disk("f")).expect("renamed");
                }
                _ => std::fs::remove_file(scene.disk("f")).expect("removed"),
            });
            let work = Work { seam: &seam, ..PLAIN };
            assert_eq!(remove(&work, &scene, "f", false, of(b"old")), Err(Code::EtagMismatch), "{what}");
            let there = if what == "removed" { vec![] } else { vec!["f".to_owned()] };
            assert_eq!(scene.names(""), there);
            assert!(what == "removed" || scene.read("f") == b"new");
        }
    }

    #[test]
    fn sync_05_a_removal_that_is_not_durable_is_not_acknowledged() {
        let scene = Scene::new();
        scene.write("f", "old");
        let seam = Failing { nth: 0, synced: std::cell::RefCell::default() };
        let work = Work { seam: &seam, ..PLAIN };
        assert_eq!(remove(&work, &scene, "f", false, Expect::Any), Err(Code::UnknownOutcome));
        assert_eq!(seam.synced.borrow().len(), 1, "asked once");
    }
}
