//! Which chunk lies in which pack, in memory: of packs that are not in an index on disk yet, and of the
//! store that is memory alone.

use std::collections::{BTreeMap, HashMap};

use cortex_content::pack::PackHead;
use cortex_core::files::content::{ContentId, PackId};

use super::Place;

/// The chunks of all packs. Of one that lies in several, the first counts.
pub(super) struct Table<P> {
    packs: BTreeMap<PackId, Kept<P>>,
    chunks: HashMap<ContentId, Place>,
}

/// One pack, and what its keeper needs to know about it.
pub(super) struct Kept<P> {
    pub(super) head: PackHead,
    pub(super) own: P,
}

impl<P> Default for Table<P> {
    fn default() -> Self {
        Self { packs: BTreeMap::new(), chunks: HashMap::new() }
    }
}

impl<P> Table<P> {
    pub(super) fn get(&self, id: &PackId) -> Option<&Kept<P>> {
        self.packs.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &PackId) -> Option<&mut Kept<P>> {
        self.packs.get_mut(id)
    }

    /// All packs.
    pub(super) fn packs(&self) -> impl Iterator<Item = &Kept<P>> {
        self.packs.values()
    }

    /// What is known of all packs, to be changed.
    pub(super) fn packs_mut(&mut self) -> impl Iterator<Item = &mut P> {
        self.packs.values_mut().map(|kept| &mut kept.own)
    }

    /// Adds a pack; `false` when it was there before.
    pub(super) fn add(&mut self, head: PackHead, own: P) -> bool {
        let pack = head.id();
        if self.packs.contains_key(&pack) {
            return false;
        }
        for (chunk, number) in head.chunks().iter().zip(0..) {
            self.chunks.entry(chunk.id).or_insert(Place { pack, number, len: chunk.len });
        }
        self.packs.insert(pack, Kept { head, own });
        true
    }

    /// Takes a pack out. Chunks of it that lie in another pack as well are found there.
    pub(super) fn remove(&mut self, id: &PackId) {
        let Some(gone) = self.packs.remove(id) else { return };
        let mut lost = Vec::new();
        for chunk in gone.head.chunks() {
            if self.chunks.get(&chunk.id).is_some_and(|place| place.pack == *id) {
                self.chunks.remove(&chunk.id);
                lost.push(chunk.id);
            }
        }
        lost.sort_unstable();
        for (pack, kept) in &self.packs {
            for (chunk, number) in kept.head.chunks().iter().zip(0..) {
                if lost.binary_search(&chunk.id).is_ok() {
                    self.chunks.entry(chunk.id).or_insert(Place { pack: *pack, number, len: chunk.len });
                }
            }
        }
    }

    pub(super) fn find(&self, id: &ContentId) -> Option<Place> {
        self.chunks.get(id).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.packs.len()
    }
}
