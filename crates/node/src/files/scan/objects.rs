//! Objects of trees in memory.

use std::collections::HashMap;

use bytes::Bytes;
use cortex_core::files::content::ContentId;

/// Objects by their ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects(HashMap<ContentId, Bytes>);

impl Objects {
    /// The bytes of one.
    pub(crate) fn get(&self, id: &ContentId) -> Option<&Bytes> {
        self.0.get(id)
    }

    /// Takes one in. Whoever has it from elsewhere has compared its hash.
    pub(crate) fn put(&mut self, id: ContentId, bytes: Bytes) {
        self.0.entry(id).or_insert(bytes);
    }

    /// All, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ContentId, &Bytes)> {
        self.0.iter()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
