//! What needs a look between two steps: crashes at any of them, disks that lose what was not synced.

mod collect;
mod lost;
mod trees;

use std::fs;
use std::io::{self, Cursor};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use cortex_content::object::{DirEntry, FileNode, Node, Totals};
use cortex_content::pack::{Added, ChunkRef, Pack, PackWriter};
use cortex_content::tree::{write_dir, write_map};
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::time::WallTime;

use super::folder::Step;
use super::{Blobs, FolderBlobs, MemoryBlobs, Root, Rules, Sweep};

/// Nothing waits, so that tests need no clock.
const AT_ONCE: Rules = Rules { young_ms: 0, condemned_ms: 0, live_percent_min: 50, repack_bytes: u64::MAX };

fn content(number: u16) -> Bytes {
    format!("content {number} ").repeat(1 + usize::from(number) % 9).into_bytes().into()
}

/// The chunks of a tree, its objects behind the content that they name.
#[derive(Clone, Debug, Default)]
struct Made {
    chunks: Vec<(ContentId, Bytes)>,
}

impl Made {
    fn file(&mut self, number: u16) -> DirEntry {
        let bytes = content(number);
        let id = ContentId::of(&bytes);
        let size = bytes.len() as u64;
        self.chunks.push((id, bytes));
        let node = Node::File(FileNode { id, size, exec: false, mtime_ns: 0, map: None });
        DirEntry { name: format!("ملف {number}").into(), node }
    }

    /// A file of more than one chunk; the chunks are as long as such chunks are.
    fn long(&mut self, first: u16) -> DirEntry {
        let mut refs = Vec::new();
        for number in 0..20 {
            let bytes: Bytes = content(first + number).repeat(65_536).split_off(0)[..65_536].to_vec().into();
            let id = ContentId::of(&bytes);
            refs.push(ChunkRef { id, len: 65_536 });
            self.chunks.push((id, bytes));
        }
        let (map, size) = write_map(refs, &mut |id, bytes| self.chunks.push((id, bytes))).expect("a map");
        let id = ContentId::of(&first.to_le_bytes());
        let node = Node::File(FileNode { id, size, exec: true, mtime_ns: 0, map: Some(map) });
        DirEntry { name: format!("long {first}").into(), node }
    }

    fn dir(&mut self, entries: Vec<DirEntry>) -> (TreeId, Totals) {
        write_dir(entries, &mut |id, bytes| self.chunks.push((id, bytes))).expect("a directory")
    }

    fn sub(&mut self, name: &str, entries: Vec<DirEntry>) -> DirEntry {
        let (id, totals) = self.dir(entries);
        DirEntry { name: name.to_owned().into(), node: Node::Dir { id, totals } }
    }
}

/// Packs of these chunks, `each` in one.
fn packs(chunks: &[(ContentId, Bytes)], each: usize) -> Vec<Pack> {
    let mut writer = PackWriter::new(1);
    let pack = |part: &[(ContentId, Bytes)]| {
        part.iter().for_each(|(id, bytes)| assert_ne!(writer.add(*id, bytes), Added::Full));
        writer.finish().expect("a pack")
    };
    chunks.chunks(each).map(pack).collect()
}

fn put_all(blobs: &dyn Blobs, made: &Made, pin: &super::Pin) {
    for pack in packs(&made.chunks, 4) {
        blobs.put_pack(&pack.head, &mut Cursor::new(&pack.tail), pin).expect("right");
    }
}

fn root(tree: TreeId) -> Root {
    Root { tree, content: true }
}

fn collect(blobs: &dyn Blobs, roots: &[Root], rules: Rules) -> super::Collected {
    let since = blobs.begin().expect("pins");
    blobs.collect(Sweep { since, roots, now: WallTime(0), rules }).expect("a whole graph")
}

/// One that keeps content, and what is left of it by a crash.
enum Subject {
    Memory(MemoryBlobs),
    Folder(Box<FolderBlobs>, tempfile::TempDir),
}

impl Subject {
    fn all() -> [Self; 2] {
        [Self::Memory(MemoryBlobs::new()), Self::folder()]
    }

    fn folder() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (blobs, _) = FolderBlobs::open(folder.path()).expect("an empty folder");
        Self::Folder(Box::new(blobs), folder)
    }

    fn blobs(&self) -> &dyn Blobs {
        match self {
            Self::Memory(blobs) => blobs,
            Self::Folder(blobs, _) => &**blobs,
        }
    }

    /// Ends in the `at`th step of `work`, as by a kill; behind it when it has fewer steps.
    fn crash_in(self, at: usize, work: impl FnOnce(&dyn Blobs)) -> Self {
        match self {
            Self::Memory(blobs) => {
                work(&blobs);
                blobs.crash().expect("memory");
                Self::Memory(blobs)
            }
            Self::Folder(mut blobs, folder) => {
                let left = tempfile::tempdir().expect("a folder");
                let (from, to) = (folder.path().to_owned(), left.path().to_owned());
                let steps = AtomicUsize::new(0);
                let reached = Arc::new(AtomicUsize::new(0));
                let seen = Arc::clone(&reached);
                blobs.watch(Box::new(move |_: Step, _: &Path| {
                    if steps.fetch_add(1, Ordering::SeqCst) == at {
                        copy(&from, &to);
                        seen.store(1, Ordering::SeqCst);
                    }
                    Ok(())
                }));
                work(&*blobs);
                if reached.load(Ordering::SeqCst) == 0 {
                    copy(folder.path(), left.path());
                }
                drop(blobs);
                let (blobs, recovered) = FolderBlobs::open(left.path()).expect("what a crash left");
                assert_eq!(recovered.damaged, 0);
                assert!(!recovered.rebuilt, "a crash does not harm the index");
                Self::Folder(Box::new(blobs), left)
            }
        }
    }
}

/// Copies all files below a folder.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("a kind").is_dir() {
            fs::create_dir_all(&to).expect("made");
            copy(&entry.path(), &to);
        } else {
            match fs::copy(entry.path(), &to) {
                Err(fault) if fault.kind() == io::ErrorKind::NotFound => {}
                copied => drop(copied.map(drop).map_err(|fault| panic!("{fault}"))),
            }
        }
    }
}
