//! The hub's chunk store, as those who move trees use it: proofs that a tree is whole, trees as entries, and
//! new trees written into it. All of it blocks, and is for the threads of [`Io`](super::io::Io) alone.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cortex_content::object::{DirEntry, FileNode, Node, Object, read_object};
use cortex_content::pack::{Added, ChunkRef, Pack, PackWriter};
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::files::path::RelPath;
use cortex_core::sync::SideCounts;
use cortex_core::workspace::Complete;
use cortex_core::{Code, Refusal};
use cortex_store::blobs::{
    BlobError, Completeness, FolderBlobs, MemoryBlobs, Pin, Root, SharedBlobs, SpaceRules,
};

use super::io::{Io, Lane};
use crate::runlog::space::Space;

/// The level of zstd (SYNC 3).
pub(crate) const LEVEL: i32 = 1;
/// Folders whose files are counted at once; beyond, all are counted anew.
const COUNTED_MAX: usize = 65_536;

/// The chunk store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Chunks(Arc<Inner>);

struct Inner {
    blobs: SharedBlobs,
    io: Io,
    /// Files and links below folders.
    counted: Mutex<HashMap<TreeId, u64>>,
}

impl Chunks {
    /// Over what is kept there.
    pub(crate) fn new(blobs: SharedBlobs, io: Io) -> Self {
        Self(Arc::new(Inner { blobs, io, counted: Mutex::default() }))
    }

    /// Opens the store in this folder, which may fill half of its disk and leaves the reserve that output
    /// leaves. Blocks.
    ///
    /// # Errors
    /// `bad_config` when the folder cannot be used, `conflict` when another hub has it.
    pub(crate) fn folder(dir: &Path) -> Result<SharedBlobs, Refusal> {
        let failed = |why: String| {
            Refusal::new(
                Code::BadConfig,
                format!("The chunk store in {} cannot be opened: {why}.", dir.display()),
            )
            .hint("Choose a directory that can be written with `--data-dir`.")
        };
        crate::files::private_dir(dir).map_err(|error| failed(error.to_string()))?;
        let total = Space::of(dir).map_err(|error| failed(error.to_string()))?.total;
        let of = dir.to_owned();
        let room = move || {
            let space = Space::of(&of)?;
            Ok(space.free.saturating_sub(space.reserve()))
        };
        let rules = SpaceRules { bytes_max: total / 2, room: Arc::new(room) };
        let (blobs, recovered) = FolderBlobs::open_with(dir, rules).map_err(|error| {
            if matches!(error, BlobError::InUse(_)) {
                return Refusal::new(Code::Conflict, error.to_string())
                    .hint("Stop that hub, or start this one with another `--data-dir`.");
            }
            failed(error.to_string())
        })?;
        tracing::info!(?recovered, "the chunk store is open");
        Ok(Arc::new(blobs))
    }

    /// One that ends with the process.
    pub(crate) fn memory() -> SharedBlobs {
        Arc::new(MemoryBlobs::new())
    }

    /// What keeps.
    pub(crate) fn blobs(&self) -> &SharedBlobs {
        &self.0.blobs
    }

    /// A lane to the threads.
    pub(crate) fn lane(&self) -> Lane {
        self.0.io.lane()
    }

    /// Does something that blocks, in a lane of its own.
    ///
    /// # Errors
    /// What `work` says; `internal` when it panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let chunks = self.clone();
        self.lane().run(move || work(&chunks)).await?
    }

    /// Holds what is put and found from here on.
    ///
    /// # Errors
    /// `internal`.
    pub(crate) fn pin(&self) -> Result<Pin, Refusal> {
        self.0.blobs.pin().map_err(refusal)
    }

    /// Makes what was put durable.
    ///
    /// # Errors
    /// `no_space`, `internal`.
    pub(crate) fn sync(&self, pin: &Pin) -> Result<(), Refusal> {
        self.0.blobs.sync(pin).map_err(refusal)
    }

    /// The proof that a tree is whole, its content too; it holds while the pin is held. `None` when
    /// something of it is not there.
    ///
    /// # Errors
    /// `internal`, and what a tree that contradicts itself is refused for.
    pub(crate) fn complete(&self, tree: TreeId, pin: &Pin) -> Result<Option<Complete>, Refusal> {
        match self.0.blobs.complete(&Root { tree, content: true }, pin).map_err(refusal)? {
            Completeness::Missing(_) => Ok(None),
            Completeness::Whole => {
                let (files, bytes) = (self.files(tree)?, self.sums(tree)?.1);
                Ok(Some(Complete::walked_in_the_chunk_store(tree, files, bytes)))
            }
        }
    }

    /// The same for one that a row names, and that is to be whole for that.
    ///
    /// # Errors
    /// `internal` when it is not.
    pub(crate) fn whole(&self, tree: TreeId, pin: &Pin) -> Result<Complete, Refusal> {
        self.complete(tree, pin)?.ok_or_else(|| lost(&tree.into()))
    }

    /// An object of a tree.
    ///
    /// # Errors
    /// `internal` when it is not there.
    pub(crate) fn object(&self, id: &ContentId) -> Result<Object, Refusal> {
        read_object(&self.chunk(id)?)
    }

    /// A chunk.
    ///
    /// # Errors
    /// `internal` when it is not there.
    pub(crate) fn chunk(&self, id: &ContentId) -> Result<Bytes, Refusal> {
        self.0.blobs.chunk(id).map_err(refusal)?.ok_or_else(|| lost(id))
    }

    /// Entries of a folder, by name.
    ///
    /// # Errors
    /// `internal` when something of it is not there.
    pub(crate) fn dir(&self, id: TreeId) -> Result<Vec<DirEntry>, Refusal> {
        let (mut open, mut entries) = (vec![ContentId::from(id)], Vec::new());
        while let Some(id) = open.pop() {
            match self.object(&id)? {
                Object::Dir(more) => entries.extend(more),
                Object::DirIndex { parts, .. } => open.extend(parts.iter().rev().map(|part| part.id)),
                Object::Map(_) | Object::MapIndex { .. } => return Err(lost(&id)),
            }
        }
        Ok(entries)
    }

    /// Chunks of a long file in order, and the objects of its map.
    ///
    /// # Errors
    /// `internal` when something of the map is not there.
    pub(crate) fn map(&self, id: ContentId) -> Result<(Vec<ChunkRef>, Vec<ContentId>), Refusal> {
        let (mut open, mut chunks, mut objects) = (vec![id], Vec::new(), Vec::new());
        while let Some(id) = open.pop() {
            objects.push(id);
            match self.object(&id)? {
                Object::Map(more) => chunks.extend(more),
                Object::MapIndex { parts, .. } => open.extend(parts.iter().rev().map(|part| part.id)),
                Object::Dir(_) | Object::DirIndex { .. } => return Err(lost(&id)),
            }
        }
        Ok((chunks, objects))
    }

    /// What lies at a path; `None` when there is nothing, and for the root.
    ///
    /// # Errors
    /// `internal` when something of the tree is not there.
    pub(crate) fn find(&self, root: TreeId, path: &RelPath) -> Result<Option<Node>, Refusal> {
        let mut at = None;
        for part in path.parts() {
            let dir = match at {
                None => root,
                Some(Node::Dir { id, .. }) => id,
                Some(Node::File(_) | Node::Link { .. }) => return Ok(None),
            };
            let entry = self.dir(dir)?.into_iter().find(|entry| entry.name == part.as_bytes());
            let Some(entry) = entry else { return Ok(None) };
            at = Some(entry.node);
        }
        Ok(at)
    }

    /// Up to `max` bytes of a file from `from` on.
    ///
    /// # Errors
    /// `internal` when something of it is not there.
    pub(crate) fn read(&self, file: &FileNode, from: u64, max: usize) -> Result<Vec<u8>, Refusal> {
        let chunks = match file.map {
            Some(map) => self.map(map)?.0,
            None if file.size == 0 => Vec::new(),
            None => vec![ChunkRef { id: file.id, len: u32::try_from(file.size).unwrap_or(u32::MAX) }],
        };
        let (mut at, mut out) = (0_u64, Vec::new());
        for chunk in chunks {
            let end = at + u64::from(chunk.len);
            if end > from && out.len() < max {
                let bytes = self.chunk(&chunk.id)?;
                let skip = usize::try_from(from.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len());
                let take = (bytes.len() - skip).min(max - out.len());
                out.extend_from_slice(&bytes[skip..skip + take]);
            }
            at = end;
        }
        Ok(out)
    }

    /// How much there is in a tree.
    ///
    /// # Errors
    /// `internal` when something of it is not there.
    pub(crate) fn counts(&self, root: TreeId) -> Result<SideCounts, Refusal> {
        Ok(SideCounts { files: self.files(root)?, root_entries: self.dir(root)?.len() as u64 })
    }

    /// Files and links of a tree. A folder that was counted before is not looked at again.
    fn files(&self, root: TreeId) -> Result<u64, Refusal> {
        if let Some(files) = self.counted().get(&root) {
            return Ok(*files);
        }
        let mut sum: u64 = 0;
        for entry in self.dir(root)? {
            sum = sum.saturating_add(match entry.node {
                Node::File(_) | Node::Link { .. } => 1,
                // Trees are at most 512 folders deep.
                Node::Dir { id, .. } => self.files(id)?,
            });
        }
        let mut counted = self.counted();
        if counted.len() >= COUNTED_MAX {
            counted.clear();
        }
        counted.insert(root, sum);
        Ok(sum)
    }

    /// Entries and bytes of a tree, as its topmost object says.
    ///
    /// # Errors
    /// `internal` when that is not there.
    pub(crate) fn sums(&self, root: TreeId) -> Result<(u64, u64), Refusal> {
        let add =
            |sum: (u64, u64), more: (u64, u64)| (sum.0.saturating_add(more.0), sum.1.saturating_add(more.1));
        match self.object(&root.into())? {
            Object::Dir(entries) => Ok(entries.iter().map(|entry| sums_of(&entry.node)).fold((0, 0), add)),
            Object::DirIndex { parts, .. } => {
                let sums = parts.iter().map(|part| (part.totals.entries.into(), part.totals.bytes));
                Ok(sums.fold((0, 0), add))
            }
            Object::Map(_) | Object::MapIndex { .. } => Err(lost(&root.into())),
        }
    }

    fn counted(&self) -> std::sync::MutexGuard<'_, HashMap<TreeId, u64>> {
        self.0.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Entries, itself counted, and bytes.
fn sums_of(node: &Node) -> (u64, u64) {
    match node {
        Node::File(file) => (1, file.size),
        Node::Dir { totals, .. } => (u64::from(totals.entries) + 1, totals.bytes),
        Node::Link { .. } => (1, 0),
    }
}

/// Puts chunks and objects into the store, pack by pack.
pub(crate) struct Putting {
    chunks: Chunks,
    writer: PackWriter,
}

impl Putting {
    /// Nothing is put yet.
    pub(crate) fn new(chunks: &Chunks) -> Self {
        Self { chunks: chunks.clone(), writer: PackWriter::new(LEVEL) }
    }

    /// Adds a chunk whose hash was verified.
    ///
    /// # Errors
    /// `no_space`, `quota`, `internal`.
    pub(crate) fn put(&mut self, id: ContentId, bytes: &[u8], pin: &Pin) -> Result<(), Refusal> {
        loop {
            match self.writer.add(id, bytes) {
                Added::Yes | Added::Already => return Ok(()),
                Added::Never => {
                    return Err(Refusal::new(Code::Internal, format!("No pack takes the chunk {id}.")));
                }
                Added::Full => self.flush(pin)?,
            }
        }
    }

    /// Puts what is left.
    ///
    /// # Errors
    /// Those of [`put`](Self::put).
    pub(crate) fn flush(&mut self, pin: &Pin) -> Result<(), Refusal> {
        let Some(Pack { head, tail }) = self.writer.finish() else { return Ok(()) };
        let mut tail: &[u8] = &tail;
        self.chunks.blobs().put_pack(&head, &mut tail, pin).map_err(refusal).map(drop)
    }
}

/// Why the store did not do it, as callers see it.
pub(crate) fn refusal(error: BlobError) -> Refusal {
    if let BlobError::Refused(refusal) = error {
        return refusal;
    }
    tracing::error!(%error, "the chunk store failed");
    if matches!(error, BlobError::Damaged { .. }) {
        return spoilt("The hub's disk has changed something of a tree that the hub keeps.");
    }
    Refusal::new(Code::Internal, "The hub's chunk store failed.")
        .hint("Look at the hub's disk and its log, then do it again; workspaces do so by themselves.")
}

fn spoilt(message: &str) -> Refusal {
    Refusal::new(Code::Internal, message)
        .hint("It is asked of a source that has it still. When it stays, look at the hub's disk.")
}

fn lost(id: &ContentId) -> Refusal {
    tracing::error!(%id, "a tree that is kept is not whole");
    spoilt("Something of a tree that the hub keeps is not there.").detail("object", id.to_string())
}
