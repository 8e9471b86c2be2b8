//! The power goes at any moment: what was synced is there, of the rest the disk keeps what it likes.
//!
//! The disk is one with a journal: names change in the order in which they were changed, up to some moment
//! not before the last sync of names; the bytes of a file are there when it was synced itself, or all was.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::Index;

use super::super::*;
use super::laws::{Killed, Play, contents, edits, modes, on_disk};
use super::support::Folder;
use crate::files::fault::Fault;
use crate::files::seam::Synced;
use crate::files::support::rounds;

/// An entry as the disk knows it.
#[derive(Clone, Debug)]
enum Node {
    Dir,
    Link(PathBuf),
    File { inode: u64, mode: u32, bytes: Vec<u8> },
}

type Names = BTreeMap<PathBuf, Node>;

fn names(top: &Path) -> Names {
    let (mut found, mut next) = (Names::new(), vec![top.to_owned()]);
    while let Some(folder) = next.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("read").path();
            let meta = path.symlink_metadata().expect("it is there");
            let node = if meta.is_dir() {
                next.push(path.clone());
                Node::Dir
            } else if meta.is_symlink() {
                Node::Link(fs::read_link(&path).expect("a link"))
            } else {
                let bytes = fs::read(&path).expect("a file");
                Node::File { inode: meta.ino(), mode: meta.mode() & 0o777, bytes }
            };
            found.insert(path.strip_prefix(top).expect("below").to_owned(), node);
        }
    }
    found
}

/// A disk that knows what it was told to keep. The power goes at the n-th step, from 1; 0 never.
struct Disk<'a> {
    top: &'a Path,
    at: u32,
    boot: u8,
    seen: Cell<u32>,
    /// Names at each step since they were last synced.
    states: RefCell<Vec<Names>>,
    /// Bytes that are durable, by inode.
    kept: RefCell<HashMap<u64, Vec<u8>>>,
}

impl<'a> Disk<'a> {
    /// What is there now was there for long.
    fn new(top: &'a Path, at: u32, boot: u8) -> Self {
        let disk =
            Self { top, at, boot, seen: Cell::new(0), states: RefCell::default(), kept: RefCell::default() };
        disk.states.borrow_mut().push(names(top));
        disk.keep(|_| true);
        disk
    }

    fn keep(&self, which: impl Fn(u64) -> bool) {
        let states = self.states.borrow();
        let mut kept = self.kept.borrow_mut();
        for node in states.last().expect("one").values() {
            if let Node::File { inode, bytes, .. } = node
                && which(*inode)
            {
                kept.insert(*inode, bytes.clone());
            }
        }
    }

    fn step(&self) {
        self.seen.set(self.seen.get() + 1);
        self.states.borrow_mut().push(names(self.top));
        if self.seen.get() == self.at {
            resume_unwind(Box::new(Killed));
        }
    }

    /// What a start after a power cut finds.
    fn cut(&self, luck: &mut dyn FnMut(usize) -> usize) -> Folder {
        let (states, kept) = (self.states.borrow(), self.kept.borrow());
        let left = Folder::new();
        for (path, node) in &states[luck(states.len())] {
            let at = left.path().join(path);
            match node {
                Node::Dir => fs::create_dir(at).expect("made"),
                Node::Link(target) => symlink(target, at).expect("linked"),
                Node::File { inode, mode, bytes } => {
                    let durable = kept.get(inode).map_or(&[][..], |durable| durable);
                    let mut there = bytes.clone();
                    if durable != bytes {
                        let same = durable.iter().zip(bytes).take_while(|(one, two)| one == two).count();
                        match luck(3) {
                            0 => there = durable.to_vec(),
                            1 => there[same..].fill(0),
                            _ => {}
                        }
                    }
                    fs::write(&at, there).expect("written");
                    let mode = std::os::unix::fs::PermissionsExt::from_mode(*mode);
                    fs::set_permissions(at, mode).expect("set");
                }
            }
        }
        left
    }
}

impl Seam for Disk<'_> {
    fn sync(&self, fd: BorrowedFd<'_>, what: Synced) -> Result<(), Fault> {
        self.step();
        match what {
            Synced::Content => {
                let inode = nix::sys::stat::fstat(fd)?.st_ino;
                self.keep(|one| one == inode);
            }
            Synced::Names => {}
            Synced::Tree => self.keep(|_| true),
        }
        if what != Synced::Content {
            let mut states = self.states.borrow_mut();
            let last = states.pop();
            *states = last.into_iter().collect();
        }
        Ok(())
    }

    fn pass(&self, _moment: Moment) {
        self.step();
    }

    fn boot(&self) -> Option<[u8; 16]> {
        Some([self.boot; 16])
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(rounds(24, 2_000)))]

    #[test]
    fn sync_04_a_power_cut_at_any_moment_leaves_no_half_file_and_the_next_try_comes_to_the_same_end(
        first in edits(20), target in edits(8), local in edits(8), mode in modes(),
        cuts in proptest::collection::vec(any::<Index>(), 1..3), seed in any::<u64>(),
    ) {
        let play = Play::new(&first, &target, &local, mode);
        prop_assume!(play.plan.halt.is_none());
        let mut state = seed | 1;
        let mut luck = move |of: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 33).expect("31 bits") % of
        };
        let twin = play.folder();
        let count = Disk::new(twin.path(), 0, 0);
        play.receive(&twin, &count);
        let steps = count.seen.get();
        prop_assume!(steps > 0);
        let mut to = play.folder();
        for (boot, cut) in (1..).zip(cuts) {
            let left = {
                let at = u32::try_from(cut.index(steps as usize)).expect("few") + 1;
                let disk = Disk::new(to.path(), at, boot);
                play.survives(&to, &disk);
                disk.cut(&mut luck)
            };
            to = left;
            let there = contents(&on_disk(&to));
            prop_assert!(there.is_subset(&play.all), "what nobody wrote has a name: {:?}", to.paths());
        }
        let disk = Disk::new(to.path(), 0, 9);
        play.receive(&to, &disk);
        // What was acknowledged is there, whatever becomes of the rest.
        let kept = disk.cut(&mut luck);
        if play.is_one_way() {
            prop_assert_eq!(&on_disk(&kept), &play.after, "{:?}", play.plan.to_node);
        }
        let there = contents(&on_disk(&kept));
        prop_assert!(!play.keeps_own() || play.own.is_subset(&there), "{:?}", kept.paths());
        prop_assert!(to.is_clean());
    }
}
