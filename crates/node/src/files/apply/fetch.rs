//! The objects of a tree: those that are here already, and the rest from the peer, each checked before what
//! it names is asked for (ABUSE 54).

use bytes::Bytes;
use cortex_content::asking::{Asking, Came};
use cortex_content::graph::GraphCheck;
use cortex_content::object::{DirEntry, Object, read_object};
use cortex_content::pack::ChunkRef;
use cortex_core::error::{Code, Refusal};
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::limits::WANTS_MAX;

use super::super::scan::Objects;
use super::peer::{Event, Peer};
use super::staging::ObjectLog;

/// As long an object is taken to be until it comes. All are kept in memory, so that no window bounds them;
/// this one bounds what is on its way.
const OBJECT_BYTES_GUESS: u32 = 16 * 1024;

/// Objects of the folder and of the trees that it is compared with.
pub(super) struct Store<'a> {
    /// Those of the folder, with all that is below each.
    pub(super) local: &'a Objects,
    /// Those that came.
    pub(super) came: Objects,
}

impl Store<'_> {
    fn get(&self, id: &ContentId) -> Result<&Bytes, Refusal> {
        let found = self.local.get(id).or_else(|| self.came.get(id));
        found.ok_or_else(|| Refusal::new(Code::Internal, format!("The object {id} of a tree is missing.")))
    }

    /// The entries of a directory, by name.
    pub(super) fn dir(&self, id: TreeId) -> Result<Vec<DirEntry>, Refusal> {
        let mut entries = Vec::new();
        self.dir_into(id.into(), &mut entries)?;
        Ok(entries)
    }

    /// As [`Self::dir`]; with `only` the entry of that name alone.
    pub(super) fn listed(&self, id: TreeId, only: Option<&str>) -> Result<Vec<DirEntry>, Refusal> {
        let mut entries = self.dir(id)?;
        if let Some(only) = only {
            entries.retain(|entry| entry.name == only.as_bytes());
        }
        Ok(entries)
    }

    fn dir_into(&self, id: ContentId, entries: &mut Vec<DirEntry>) -> Result<(), Refusal> {
        match read_object(self.get(&id)?)? {
            Object::Dir(more) if entries.is_empty() => *entries = more,
            Object::Dir(more) => entries.extend(more),
            Object::DirIndex { parts, .. } => {
                parts.iter().try_for_each(|part| self.dir_into(part.id, entries))?;
            }
            Object::Map(_) | Object::MapIndex { .. } => return Err(wrong(&id)),
        }
        Ok(())
    }

    /// The chunks of a file, in order.
    pub(super) fn chunks(
        &self,
        map: &ContentId,
        each: &mut dyn FnMut(ChunkRef) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        match read_object(self.get(map)?)? {
            Object::Map(chunks) => chunks.into_iter().try_for_each(each),
            Object::MapIndex { parts, .. } => parts.iter().try_for_each(|part| self.chunks(&part.id, each)),
            Object::Dir(_) | Object::DirIndex { .. } => Err(wrong(map)),
        }
    }

    /// Fetches what is not here of the tree that `check` is about. `log` keeps what comes.
    pub(super) fn fetch(
        &mut self,
        mut check: GraphCheck,
        peer: &mut dyn Peer,
        mut log: Option<&mut ObjectLog>,
    ) -> Result<(), Refusal> {
        let mut asking = Asking::new();
        loop {
            for id in check.wanted(WANTS_MAX) {
                if let Some(bytes) = self.local.get(&id) {
                    check.feed_known(id, bytes)?;
                } else if let Some(bytes) = self.came.get(&id) {
                    check.feed(id, bytes)?;
                } else if !asking.push(id, OBJECT_BYTES_GUESS) {
                    return Err(Refusal::new(
                        Code::Internal,
                        format!("The object {id} was asked for twice."),
                    ));
                }
            }
            if check.is_whole() {
                return log.map_or(Ok(()), ObjectLog::flush);
            }
            let ids = asking.next(WANTS_MAX);
            if !ids.is_empty() {
                peer.want(&ids)?;
            }
            if asking.open_ids() == 0 {
                // All that is wanted lies here, and names more.
                continue;
            }
            match peer.next()? {
                Event::Chunk(id, bytes) => {
                    if asking.came(id) == Came::Wanted {
                        // Of whatever larger thing it came in, nothing stays.
                        let bytes = Bytes::copy_from_slice(&bytes);
                        check.feed(id, &bytes)?;
                        if let Some(log) = log.as_deref_mut() {
                            log.put(&bytes)?;
                        }
                        self.came.put(id, bytes);
                    }
                }
                Event::Missing(id) => {
                    if asking.missing(id) {
                        return Err(gone(&id));
                    }
                }
            }
        }
    }
}

fn gone(id: &ContentId) -> Refusal {
    Refusal::new(Code::NotFound, "The other end does not have all of the tree any more.")
        .hint("Start the transfer again, so that what is there now is sent.")
        .detail("object", id.to_string())
}

fn wrong(id: &ContentId) -> Refusal {
    Refusal::new(Code::Internal, format!("The object {id} of a tree is of another kind than it was."))
}
