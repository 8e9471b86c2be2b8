//! Objects of trees in memory.

use std::collections::HashMap;

use bytes::Bytes;
use cortex_content::object::{Node, Object, read_object};
use cortex_core::files::content::{ContentId, TreeId};

/// So many that no tree has any more are kept in any case.
const STALE_MAX: usize = 1_024;

/// Objects by their ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    by_id: HashMap<ContentId, Bytes>,
    /// How many there were when those were removed that the tree has no more.
    settled: usize,
}

impl Objects {
    /// The bytes of one.
    pub(crate) fn get(&self, id: &ContentId) -> Option<&Bytes> {
        self.by_id.get(id)
    }

    /// Copies one to `room`, which is as long as it; whether it is. `None` when there is none.
    pub(crate) fn copy_to(&self, id: &ContentId, room: &mut [u8]) -> Option<bool> {
        let object = self.by_id.get(id)?;
        let fits = object.len() == room.len();
        if fits {
            room.copy_from_slice(object);
        }
        Some(fits)
    }

    /// Takes one in. Whoever has it from elsewhere has compared its hash.
    pub(crate) fn put(&mut self, id: ContentId, bytes: Bytes) {
        self.by_id.entry(id).or_insert(bytes);
    }

    /// Takes in those of another.
    pub(super) fn add(&mut self, other: Self) {
        self.by_id.extend(other.by_id);
    }

    /// All, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ContentId, &Bytes)> {
        self.by_id.iter()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Removes those that the tree has no more when they may be as many as those that it has: so that
    /// the cost is that of having taken them in.
    pub(super) fn settle(&mut self, root: TreeId) {
        if self.settled == 0 {
            self.settled = self.len();
        } else if self.len() > 2 * self.settled + STALE_MAX {
            self.keep_only(root);
        }
    }

    /// Removes all that is no object of this tree.
    pub(super) fn keep_only(&mut self, root: TreeId) {
        let mut kept = HashMap::with_capacity(self.settled);
        let mut next = vec![ContentId::from(root)];
        while let Some(id) = next.pop() {
            let Some(bytes) = self.by_id.remove(&id) else { continue };
            match read_object(&bytes) {
                Ok(Object::Dir(entries)) => {
                    next.extend(entries.iter().filter_map(|entry| match &entry.node {
                        Node::Dir { id, .. } => Some(ContentId::from(*id)),
                        Node::File(file) => file.map,
                        Node::Link { .. } => None,
                    }))
                }
                Ok(Object::DirIndex { parts, .. }) => next.extend(parts.iter().map(|part| part.id)),
                Ok(Object::MapIndex { parts, .. }) => next.extend(parts.iter().map(|part| part.id)),
                Ok(Object::Map(_)) | Err(_) => {}
            }
            kept.insert(id, bytes);
        }
        self.settled = kept.len();
        self.by_id = kept;
    }
}
