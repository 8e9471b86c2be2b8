//! What an operation left behind that was cut off: looked at, and then removed, put back, or kept under a
//! name that people see. Content that nobody else has is never removed.

use std::os::fd::AsFd as _;

use cortex_core::files::content::ContentId;
use cortex_core::files::op::Kind;
use cortex_core::id::OpId;

use super::beneath::Dir;
use super::fault::Fault;
use super::place::Work;
use super::read;
use super::seam::Synced;
use super::swap::{Swapped, keep};
use super::{temp, tree};

/// What the node remembers of the operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    /// The name in the folder that was to be changed.
    pub(crate) name: &'a str,
    /// What it was about to hold.
    pub(crate) intended: Option<ContentId>,
    /// What it was expected to hold before.
    pub(crate) expected: Option<ContentId>,
    /// Whether the file was to be removed.
    pub(crate) removes: bool,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// Entries that were removed: half-made, or what had been replaced or removed on purpose.
    pub(crate) removed: u64,
    /// Whether something came back to its name.
    pub(crate) restored: bool,
    /// The name under which something was kept.
    pub(crate) kept: Option<String>,
}

/// Cleans up in one folder after one operation, which is not under way any more. It can be repeated.
///
/// # Errors
///
/// Those of the disk; what could not be looked at stays.
pub(crate) fn sweep(work: &Work<'_>, folder: &Dir, known: &Known<'_>) -> Result<Swept, Fault> {
    let mut swept = Swept::default();
    half_made(folder, work.id, &mut swept)?;
    let was = temp::seen(work.id);
    let was = was.as_bytes();
    if let Some(there) = folder.find(was)? {
        let etag = match there.kind {
            Kind::File => Some(read::hash(&folder.regular(was)?)?.etag),
            Kind::Dir | Kind::Link | Kind::Other => None,
        };
        let is_new = etag.is_some() && etag == known.intended;
        let is_old = etag.is_some() && etag == known.expected;
        let has_name = folder.find(known.name.as_bytes())?.is_some();
        if is_new || (is_old && (has_name || known.removes)) {
            folder.unlink(was)?;
            swept.removed += 1;
        } else {
            // Of somebody else, or moved and not yet whole at the other end.
            match folder.rename_new(was, folder, known.name.as_bytes()) {
                Ok(()) => swept.restored = true,
                Err(fault) if fault.is_taken() => {
                    if let Swapped::Changed { kept } = keep(work, folder, was, folder, known.name)? {
                        swept.kept = kept;
                    }
                }
                Err(fault) => return Err(fault),
            }
        }
    }
    if swept != Swept::default() {
        work.seam.sync(folder.as_fd(), Synced::Names)?;
    }
    Ok(swept)
}

/// What was under this name has been seen by nobody.
fn half_made(folder: &Dir, id: OpId, swept: &mut Swept) -> Result<(), Fault> {
    let unseen = temp::unseen(id);
    let unseen = unseen.as_bytes();
    match folder.find(unseen)?.map(|there| there.kind) {
        None => Ok(()),
        Some(Kind::Dir) => tree::remove(folder, unseen, &mut swept.removed),
        Some(Kind::File | Kind::Link | Kind::Other) => {
            folder.unlink(unseen)?;
            swept.removed += 1;
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use cortex_core::files::op::{Expect, WriteHow};

    use super::*;
    use crate::files::beneath::Follow;
    use crate::files::remove;
    use crate::files::seam::{Moment, Seam};
    use crate::files::support::{PLAIN, Scene, rel};
    use crate::files::write::{Declared, Draft, Wanted};

    fn of(content: &[u8]) -> Option<ContentId> {
        Some(ContentId::of(content))
    }

    fn sweep_root(scene: &Scene, known: &Known<'_>) -> Swept {
        let folder = scene.root.dir(&rel(""), Follow::Within).expect("the root");
        let swept = sweep(&PLAIN, &folder, known).expect("swept");
        assert_eq!(sweep(&PLAIN, &folder, known), Ok(Swept::default()), "a second time finds nothing");
        swept
    }

    /// Copies what is on the disk at one moment: what a kill leaves then, without what a process that goes
    /// on does afterwards.
    struct Killed<'a> {
        at: Moment,
        scene: &'a Scene,
        left: &'a Scene,
    }

    impl Seam for Killed<'_> {
        fn pass(&self, moment: Moment) {
            if moment == self.at {
                for name in self.scene.names("") {
                    self.left.write(&name, self.scene.read(&name));
                }
            }
        }
    }

    #[test]
    fn what_a_write_leaves_at_any_moment_is_cleaned_up_and_the_file_is_old_or_new() {
        for moment in [Moment::TempSynced, Moment::Prepared, Moment::Renamed, Moment::DirSynced] {
            for foreign in [false, true] {
                let (scene, left) = (Scene::new(), Scene::new());
                scene.write("f", "old");
                let seam = Killed { at: moment, scene: &scene, left: &left };
                let work = Work { seam: &seam, ..PLAIN };
                let expect = Expect::Etag(ContentId::of(b"old"));
                let wanted = Wanted { how: WriteHow::Put, expect, mkdirs: false, mode: None, dry_run: false };
                let at = scene.at("f");
                let mut draft = Draft::begin(&work, at.place(), &wanted).expect("begun");
                draft.write(b"new").expect("written");
                let prepared = draft.finish(&work, Declared::default()).expect("prepared");
                prepared.commit(&work).expect("committed");
                let is_half = matches!(moment, Moment::TempSynced | Moment::Prepared);
                assert_eq!(left.disk(&temp::unseen(PLAIN.id)).exists(), is_half, "{moment:?}");
                let was = temp::seen(PLAIN.id);
                assert_eq!(left.disk(&was).exists(), moment == Moment::Renamed);
                let is_theirs = foreign && moment == Moment::Renamed;
                if is_theirs {
                    left.write(&was, "theirs");
                }
                let known = Known { name: "f", intended: of(b"new"), expected: of(b"old"), removes: false };
                let swept = sweep_root(&left, &known);
                assert_eq!(left.read("f"), if is_half { b"old".to_vec() } else { b"new".to_vec() });
                if is_theirs {
                    let kept = swept.kept.expect("kept");
                    assert_eq!((left.read(&kept), left.names("").len()), (b"theirs".to_vec(), 2));
                } else {
                    assert_eq!(left.names(""), ["f"], "{moment:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_half_made_goes_and_what_somebody_may_miss_stays() {
        let (half, was) = (temp::unseen(PLAIN.id), temp::seen(PLAIN.id));
        let none = Known { name: "f", intended: None, expected: None, removes: false };
        for (lies, known, is, files) in [
            (&[][..], none, Swept::default(), &[][..]),
            (&[(&*half, "x")][..], none, Swept { removed: 1, ..Swept::default() }, &[][..]),
            (&[(&*was, "x")], none, Swept { restored: true, ..Swept::default() }, &[("f", "x")]),
            (
                &[(&*was, "x"), ("f", "y")],
                none,
                Swept { kept: Some(temp::conflict("f", PLAIN.id)), ..Swept::default() },
                &[("f", "y")],
            ),
            (
                &[(&*was, "old")],
                Known { expected: of(b"old"), removes: true, ..none },
                Swept { removed: 1, ..Swept::default() },
                &[],
            ),
            (
                &[(&*was, "old")],
                Known { expected: of(b"old"), ..none },
                Swept { restored: true, ..Swept::default() },
                &[("f", "old")],
            ),
            (
                &[(&*was, "new"), ("f", "old")],
                Known { intended: of(b"new"), ..none },
                Swept { removed: 1, ..Swept::default() },
                &[("f", "old")],
            ),
        ] {
            let scene = Scene::new();
            lies.iter().for_each(|(name, content)| scene.write(name, content));
            assert_eq!(sweep_root(&scene, &known), is, "{lies:?} {known:?}");
            files.iter().for_each(|(name, content)| assert_eq!(scene.read(name), content.as_bytes()));
            assert_eq!(scene.names("").len(), files.len() + usize::from(is.kept.is_some()));
        }
        let scene = Scene::new();
        scene.write(&format!("{half}/a/b"), "x");
        assert_eq!(sweep_root(&scene, &none).removed, 3, "a half-made copy of a folder");
    }

    #[test]
    fn a_removal_that_was_cut_off_is_finished_or_taken_back() {
        for theirs in [false, true] {
            let scene = Scene::new();
            scene.write("f", "old");
            let expect = Expect::Etag(ContentId::of(b"old"));
            let was = temp::seen(PLAIN.id);
            drop(remove::prepare(scene.at("f").place(), false, expect).expect("prepared"));
            std::fs::rename(scene.disk("f"), scene.disk(&was)).expect("as far as the kill");
            if theirs {
                scene.write(&was, "theirs");
            }
            let known = Known { name: "f", intended: None, expected: of(b"old"), removes: true };
            assert_eq!(sweep_root(&scene, &known).restored, theirs);
            assert_eq!(scene.names("").len(), usize::from(theirs));
        }
    }
}
