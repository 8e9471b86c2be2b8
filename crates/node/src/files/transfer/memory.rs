//! What a folder remembers of the last transfer to it, `.cortex/base`: the tree that it was made into, with
//! all objects, so that the next one tells what was changed here since (SYNC rule 7).
//!
//! `"CXB1" | root | undone u32 × (path_len u16, path, what was there 33) | objects u32 × (len u32, bytes) |
//! blake3 of all before`. Whoever may write in the folder could write this as well: it is read like anything
//! foreign, and a damaged one is none.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;

use bytes::{Buf as _, BufMut as _, Bytes};
use cortex_content::graph::{GraphCheck, TreeQuota};
use cortex_content::object::{Node, Object, read_object};
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::files::path::RelPath;
use cortex_core::limits::{TREE_OBJECT_BYTES_MAX, WANTS_MAX};

use super::super::apply::Undone;
use super::super::beneath::Dir;
use super::super::fault::Fault;
use super::super::scan::{OURS, Objects};
use super::super::seam::{Moment, Seam, Synced};

/// Its name in the folder of ours.
const NAME: &[u8] = b"base";
/// Under which it is written; of two who do so at once the transfer's lock keeps one out.
const TEMP: &[u8] = b"base~";
/// How one of this version begins.
const MAGIC: [u8; 4] = *b"CXB1";
/// A larger one is neither kept nor read: it would take the memory of whoever receives.
const BYTES_MAX: u64 = 256 * 1024 * 1024;
const HASH_BYTES: usize = 32;
/// Bytes of the mark of what was there.
const MARK_BYTES: usize = 33;

/// No tree that a folder was made into is above this.
pub(super) const QUOTA: TreeQuota = TreeQuota { entries: u32::MAX, bytes: u64::MAX, depth: u16::MAX };

/// What a folder remembers.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    /// What it was made into.
    pub(super) root: TreeId,
    /// All objects of that.
    pub(super) objects: Objects,
    /// What of it could not be done.
    pub(super) undone: Vec<Undone>,
}

impl Memory {
    /// What the folder remembers; `None` when that is nothing, or damaged.
    pub(super) fn load(dir: &Dir) -> Option<Self> {
        let file = dir.dir(OURS).and_then(|ours| ours.regular(NAME)).ok()?;
        let len = file.metadata().ok()?.len();
        if len > BYTES_MAX {
            return None;
        }
        let mut bytes = Vec::with_capacity(usize::try_from(len).ok()? + 1);
        file.take(BYTES_MAX).read_to_end(&mut bytes).ok()?;
        let memory = Self::parse(bytes.into())?;
        memory.is_whole().then_some(memory)
    }

    /// Remembers a tree, all of whose objects are in `objects`, durably. It stays as it was when that is
    /// more than is kept. Whether it is remembered.
    pub(super) fn save(
        dir: &Dir,
        root: TreeId,
        objects: &Objects,
        undone: &[Undone],
        seam: &dyn Seam,
    ) -> Result<bool, Fault> {
        let Some(bytes) = write(root, objects, undone) else { return Ok(false) };
        let ours = dir.dir(OURS)?;
        match ours.unlink(TEMP) {
            Err(fault) if !fault.is_absent() => return Err(fault),
            Ok(()) | Err(_) => {}
        }
        let mut file = ours.create(TEMP)?;
        let written = file.write_all(&bytes).map_err(Fault::from);
        let synced = written.and_then(|()| seam.sync(file.as_fd(), Synced::Content));
        if synced.is_ok() {
            seam.pass(Moment::BaseWritten);
        }
        if let Err(fault) = synced.and_then(|()| ours.rename(TEMP, &ours, NAME)) {
            // Nobody misses it.
            let _removed = ours.unlink(TEMP);
            return Err(fault);
        }
        seam.pass(Moment::BaseNamed);
        seam.sync(ours.as_fd(), Synced::Names)?;
        Ok(true)
    }

    fn parse(mut bytes: Bytes) -> Option<Self> {
        let hash = bytes.split_off(bytes.len().checked_sub(HASH_BYTES)?);
        if blake3::hash(&bytes).as_bytes()[..] != hash[..] || bytes.len() < 36 || bytes[..4] != MAGIC {
            return None;
        }
        bytes.advance(4);
        let root = TreeId::from_slice(&take(&mut bytes, 32)?)?;
        let mut undone = Vec::new();
        for _ in 0..bytes.try_get_u32_le().ok()? {
            let len = usize::from(bytes.try_get_u16_le().ok()?);
            let path = RelPath::parse(std::str::from_utf8(&take(&mut bytes, len)?).ok()?).ok()?;
            let was = take(&mut bytes, MARK_BYTES)?[..].try_into().ok()?;
            undone.push(Undone { path, was });
        }
        let mut objects = Objects::default();
        for _ in 0..bytes.try_get_u32_le().ok()? {
            let len = bytes.try_get_u32_le().ok()? as usize;
            if len > TREE_OBJECT_BYTES_MAX {
                return None;
            }
            let object = take(&mut bytes, len)?;
            objects.put(ContentId::of(&object), object);
        }
        bytes.is_empty().then_some(Self { root, objects, undone })
    }

    /// Whether all of the tree is there, and a tree.
    fn is_whole(&self) -> bool {
        let mut check = GraphCheck::new(self.root, QUOTA);
        while !check.is_whole() {
            let ids = check.wanted(WANTS_MAX);
            if ids.is_empty() {
                return false;
            }
            for id in ids {
                let fed = self.objects.get(&id).map(|bytes| check.feed(id, bytes).is_ok());
                if fed != Some(true) {
                    return false;
                }
            }
        }
        true
    }
}

fn write(root: TreeId, objects: &Objects, undone: &[Undone]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    out.put_slice(&MAGIC);
    out.put_slice(root.as_bytes());
    out.put_u32_le(u32::try_from(undone.len()).ok()?);
    for Undone { path, was } in undone {
        out.put_u16_le(u16::try_from(path.as_str().len()).ok()?);
        out.put_slice(path.as_str().as_bytes());
        out.put_slice(was);
    }
    let count_at = out.len();
    out.put_u32_le(0);
    let (mut seen, mut next) = (HashSet::new(), vec![ContentId::from(root)]);
    while let Some(id) = next.pop() {
        if !seen.insert(id) {
            continue;
        }
        let bytes = objects.get(&id)?;
        if (out.len() + bytes.len() + HASH_BYTES) as u64 >= BYTES_MAX {
            return None;
        }
        out.put_u32_le(u32::try_from(bytes.len()).ok()?);
        out.put_slice(bytes);
        match read_object(bytes).ok()? {
            Object::Dir(entries) => next.extend(entries.iter().filter_map(|entry| match &entry.node {
                Node::Dir { id, .. } => Some(ContentId::from(*id)),
                Node::File(file) => file.map,
                Node::Link { .. } => None,
            })),
            Object::DirIndex { parts, .. } => next.extend(parts.iter().map(|part| part.id)),
            Object::MapIndex { parts, .. } => next.extend(parts.iter().map(|part| part.id)),
            Object::Map(_) => {}
        }
    }
    out[count_at..count_at + 4].copy_from_slice(&u32::try_from(seen.len()).ok()?.to_le_bytes());
    let hash = blake3::hash(&out);
    out.put_slice(hash.as_bytes());
    Some(out)
}

/// The next `len` bytes, when there are so many.
fn take(from: &mut Bytes, len: usize) -> Option<Bytes> {
    (from.len() >= len).then(|| from.split_to(len))
}
