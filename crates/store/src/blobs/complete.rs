//! Whether all is there that a tree names: the check of a tree that comes from a peer, run over what is
//! kept. Below a directory that was found whole before, nothing is looked at again.

use std::collections::HashSet;
use std::sync::Mutex;

use bytes::Bytes;
use cortex_content::graph::{GraphCheck, TreeQuota};
use cortex_core::files::content::ContentId;
use cortex_core::limits::{TREE_DEPTH_MAX, TREE_ENTRIES_MAX};

use super::mark::below;
use super::{BlobError, Completeness, Pin, Root};

/// Objects that are remembered as whole, each with about 50 bytes. When there are more, all are
/// forgotten: that costs one longer walk.
const MEMO_MAX: usize = 131_072;
/// Ids that are asked about at once.
const BATCH: usize = 1_024;

/// What was found of chunks.
pub(super) struct Touched {
    /// Whether each is kept.
    pub(super) here: Vec<bool>,
    /// Whether one of them lies in a pack that is condemned.
    pub(super) condemned: bool,
}

/// What the walk needs of a store.
pub(super) trait Ground {
    fn touch(&self, ids: &[ContentId], pin: &Pin) -> Result<Touched, BlobError>;
    fn bytes(&self, id: &ContentId) -> Result<Option<Bytes>, BlobError>;
    fn memo(&self) -> &Memo;
}

/// Objects below which all is there, and no pack condemned. Whoever condemns or loses a pack
/// [`clear`](Self::clear)s it: a pin that comes later finds each chunk itself then, and so protects it.
#[derive(Default)]
pub(super) struct Memo(Mutex<Known>);

#[derive(Default)]
struct Known {
    cleared: u64,
    /// With content, and of objects alone.
    whole: [HashSet<ContentId>; 2],
}

impl Memo {
    pub(super) fn clear(&self) -> Result<(), BlobError> {
        let mut known = self.0.lock().map_err(|_| BlobError::Poisoned)?;
        known.cleared += 1;
        known.whole = Default::default();
        Ok(())
    }

    fn cleared(&self) -> Result<u64, BlobError> {
        Ok(self.0.lock().map_err(|_| BlobError::Poisoned)?.cleared)
    }

    fn knows(&self, id: &ContentId, content: bool) -> Result<bool, BlobError> {
        let known = self.0.lock().map_err(|_| BlobError::Poisoned)?;
        Ok(known.whole[0].contains(id) || (!content && known.whole[1].contains(id)))
    }

    /// Learns, unless it was cleared since.
    fn learn(&self, ids: Vec<ContentId>, content: bool, cleared: u64) -> Result<(), BlobError> {
        let mut known = self.0.lock().map_err(|_| BlobError::Poisoned)?;
        if known.cleared == cleared {
            let whole = &mut known.whole[usize::from(!content)];
            if whole.len() + ids.len() > MEMO_MAX {
                whole.clear();
            }
            whole.extend(ids);
        }
        Ok(())
    }
}

/// Walks a tree.
pub(super) fn complete(ground: &dyn Ground, root: &Root, pin: &Pin) -> Result<Completeness, BlobError> {
    loop {
        let cleared = ground.memo().cleared()?;
        let found = walk(ground, root, pin, cleared)?;
        // What it passed by may have been condemned meanwhile, before this pin had touched it.
        if ground.memo().cleared()? == cleared || !found.relied {
            return Ok(found.answer);
        }
    }
}

struct Found {
    answer: Completeness,
    /// Whether something was passed by because it was known.
    relied: bool,
}

fn walk(ground: &dyn Ground, root: &Root, pin: &Pin, cleared: u64) -> Result<Found, BlobError> {
    let entries = u32::try_from(TREE_ENTRIES_MAX).unwrap_or(u32::MAX);
    let mut check = GraphCheck::new(root.tree, TreeQuota { entries, bytes: u64::MAX, depth: TREE_DEPTH_MAX });
    let mut missing = Missing { ids: Vec::new(), condemned: false };
    let (mut passed, mut objects, mut chunks) = (Vec::new(), Vec::new(), Vec::new());
    let mut relied = false;
    loop {
        let wanted = check.wanted(BATCH);
        let here = missing.ask(ground, &wanted, pin)?;
        for (id, _) in wanted.iter().zip(here).filter(|(_, here)| *here) {
            let Some(bytes) = ground.bytes(id)? else {
                missing.add(*id);
                continue;
            };
            if ground.memo().knows(id, root.content)? {
                check.feed_known(*id, &bytes)?;
                relied = true;
                continue;
            }
            let object = check.feed(*id, &bytes)?;
            if passed.len() < MEMO_MAX {
                passed.push(*id);
            }
            if root.content {
                below(&object, &mut objects, &mut chunks);
                objects.clear();
                missing.ask(ground, &chunks, pin)?;
                chunks.clear();
            }
        }
        if wanted.is_empty() || missing.ids.len() >= Completeness::MISSING_MAX {
            break;
        }
    }
    if !missing.ids.is_empty() {
        missing.ids.truncate(Completeness::MISSING_MAX);
        return Ok(Found { answer: Completeness::Missing(missing.ids), relied: false });
    }
    if !missing.condemned {
        ground.memo().learn(passed, root.content, cleared)?;
    }
    Ok(Found { answer: Completeness::Whole, relied })
}

struct Missing {
    ids: Vec<ContentId>,
    condemned: bool,
}

impl Missing {
    fn ask(&mut self, ground: &dyn Ground, ids: &[ContentId], pin: &Pin) -> Result<Vec<bool>, BlobError> {
        let touched = ground.touch(ids, pin)?;
        self.condemned |= touched.condemned;
        let missing = ids.iter().zip(&touched.here).filter(|(_, here)| !**here);
        missing.for_each(|(id, _)| self.add(*id));
        Ok(touched.here)
    }

    fn add(&mut self, id: ContentId) {
        if !self.ids.contains(&id) {
            self.ids.push(id);
        }
    }
}
