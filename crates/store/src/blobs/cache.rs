//! Packs that were read a moment ago: receivers of one tree ask in the same order, and chunks of one
//! file lie beside each other.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cortex_content::pack::Pack;
use cortex_core::files::content::{ContentId, PackId};

use super::{BlobError, Place, decode};

/// Packs that are held, of each kind: 8 x 4 MiB.
const PACKS: usize = 8;

/// The packs that were used last, in order of use.
struct Recent<T>(Mutex<Vec<(PackId, Arc<T>)>>);

impl<T> Recent<T> {
    const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    fn get(&self, id: &PackId) -> Result<Option<Arc<T>>, BlobError> {
        let mut held = self.0.lock().map_err(|_| BlobError::Poisoned)?;
        let Some(at) = held.iter().position(|(held, _)| held == id) else { return Ok(None) };
        held[at..].rotate_left(1);
        Ok(held.last().map(|(_, value)| Arc::clone(value)))
    }

    fn put(&self, id: PackId, value: Arc<T>) -> Result<(), BlobError> {
        let mut held = self.0.lock().map_err(|_| BlobError::Poisoned)?;
        held.retain(|(held, _)| *held != id);
        if held.len() == PACKS {
            held.remove(0);
        }
        held.push((id, value));
        Ok(())
    }

    fn forget(&self, id: &PackId) -> Result<(), BlobError> {
        self.0.lock().map_err(|_| BlobError::Poisoned)?.retain(|(held, _)| held != id);
        Ok(())
    }
}

/// A pack whose chunks were all verified.
struct Decoded {
    plain: Vec<u8>,
    /// Where each chunk ends.
    ends: Vec<u32>,
}

/// Verified packs, as they lie on disk and decoded.
pub(super) struct Cache {
    stored: Recent<Pack>,
    decoded: Recent<Decoded>,
}

impl Cache {
    pub(super) const fn new() -> Self {
        Self { stored: Recent::new(), decoded: Recent::new() }
    }

    pub(super) fn stored(&self, id: &PackId) -> Result<Option<Arc<Pack>>, BlobError> {
        self.stored.get(id)
    }

    /// Keeps a pack that was verified.
    pub(super) fn keep(&self, pack: &Arc<Pack>) -> Result<(), BlobError> {
        self.stored.put(pack.head.id(), Arc::clone(pack))
    }

    /// A chunk from a pack that `read` gets when it is not held; `None` when `read` has none.
    pub(super) fn chunk(
        &self,
        id: &ContentId,
        place: &Place,
        read: &mut dyn FnMut() -> Result<Option<Pack>, BlobError>,
    ) -> Result<Option<Bytes>, BlobError> {
        let decoded = match self.decoded.get(&place.pack)? {
            Some(decoded) => decoded,
            None => {
                let Some(pack) = read()? else { return Ok(None) };
                let decoded = Arc::new(Decoded::of(&pack)?);
                self.decoded.put(place.pack, Arc::clone(&decoded))?;
                decoded
            }
        };
        // A copy: a small chunk that waits somewhere does not hold its whole pack.
        let bytes = decoded.nth(place.number as usize).map(Bytes::copy_from_slice);
        match bytes.filter(|bytes| bytes.len() == place.len as usize && ContentId::of(bytes) == *id) {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(BlobError::Index(format!("chunk {id} is not where it says"))),
        }
    }

    pub(super) fn forget(&self, id: &PackId) -> Result<(), BlobError> {
        self.stored.forget(id)?;
        self.decoded.forget(id)
    }
}

impl Decoded {
    fn of(pack: &Pack) -> Result<Self, BlobError> {
        let plain = decode(pack)?;
        let ends = pack.head.chunks().iter().scan(0, |end, chunk| {
            *end += chunk.len;
            Some(*end)
        });
        Ok(Self { plain, ends: ends.collect() })
    }

    fn nth(&self, number: usize) -> Option<&[u8]> {
        let start = match number.checked_sub(1) {
            Some(before) => *self.ends.get(before)? as usize,
            None => 0,
        };
        self.plain.get(start..*self.ends.get(number)? as usize)
    }
}
