//! A tree of a node, or of a [`caller`], that the hub takes into its chunk store: objects from the top down, each
//! held against what named it, and the chunks of files that they name.
//!
//! What counts as had is only what came in this very transfer, and what the workspace had itself at the same
//! place: to know a hash is no way to content, and no way to find out whether the hub has it.

pub(crate) mod caller;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use cortex_content::asking::{Asking, Came};
use cortex_content::graph::{GraphCheck, TreeQuota};
use cortex_content::object::{Node, Object};
use cortex_content::packs;
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::limits::{TREE_OBJECT_BYTES_MAX, WANTS_MAX};
use cortex_core::transfer::{Carry, PathNote, TreeTold};
use cortex_core::{Code, Refusal};
use cortex_store::blobs::Pin;

use super::asked::Asked;
use super::chunks::{Chunks, Putting, refusal};
use super::io::Lane;
use super::{Receiving, Sending};

/// Paths of which a tree says nothing, at most.
const HELD_MAX: usize = 100_000;

/// What came of transfers of one member that were cut off. While it is held the store keeps it.
pub(crate) struct Hold {
    pin: Pin,
    ids: HashSet<ContentId>,
}

impl Hold {
    /// Nothing came yet.
    ///
    /// # Errors
    /// `internal`.
    pub(crate) fn new(chunks: &Chunks) -> Result<Self, Refusal> {
        Ok(Self { pin: chunks.pin()?, ids: HashSet::new() })
    }

    /// What holds it.
    pub(crate) const fn pin(&self) -> &Pin {
        &self.pin
    }
}

/// Which tree, and how much of it.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// Its topmost object.
    pub(crate) root: TreeId,
    /// What it may have.
    pub(crate) quota: TreeQuota,
    /// Which content of its files is wanted as well.
    pub(crate) content: Content,
    /// Trees of the same workspace that the store has whole, with their content.
    pub(crate) scope: Vec<TreeId>,
    /// Whether the folder is looked at again by itself when this fails.
    pub(crate) is_repeated: bool,
}

/// Content of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// None: entries are compared.
    Nothing,
    /// All.
    All,
    /// Short files that differ from what the workspace has at their place, up to so many bytes of them.
    Differing(u64),
}

/// The longest file that [`Content::Differing`] brings.
const SHORT_BYTES_MAX: u64 = 256 * 1024;

type Listing = BTreeMap<Bytes, Node>;
/// What the workspace had at the place of an object, in each of its trees.
type Places = Arc<Vec<Listing>>;

/// The machine. It blocks.
struct Keeping {
    chunks: Chunks,
    order: Order,
    came: Hold,
    check: GraphCheck,
    asking: Asking,
    stream: packs::Stream,
    putting: Putting,
    /// Asked for as objects.
    objects: HashSet<ContentId>,
    missing: HashSet<ContentId>,
    /// Something that came could not be kept.
    is_lost: bool,
    /// What the workspace had, of what was looked at.
    scope: HashSet<ContentId>,
    places: HashMap<ContentId, Places>,
}

/// What came, with the machine's memory for another try.
pub(crate) struct Kept {
    /// What holds it.
    pub(crate) came: Hold,
    /// Paths that the node left out, and why.
    pub(crate) held: Vec<PathNote>,
    /// Why it is not whole.
    pub(crate) result: Result<(), Refusal>,
}

/// What there is, which the node says first.
///
/// # Errors
/// Those of the stream, and what the node refuses.
pub(crate) async fn told(receiving: &mut Receiving) -> Result<TreeTold, Refusal> {
    loop {
        match receiving.recv().await?.ok_or_else(cut)? {
            Carry::Tree(told) => return Ok(told),
            Carry::Progress(_) => {}
            Carry::Refused(refusal) => return Err(refusal),
            Carry::Held(_)
            | Carry::Wants(_)
            | Carry::Pack(_)
            | Carry::Missing(_)
            | Carry::End(_)
            | Carry::Data(_)
            | Carry::DataEnd(_) => return Err(strange()),
        }
    }
}

/// Receives a tree, objects and chunks, until it is whole and durable; with what holds it, also when it
/// fails. The end of the stream is told by the caller.
pub(crate) async fn receive(
    chunks: &Chunks,
    order: Order,
    came: Hold,
    sending: &Sending,
    receiving: &mut Receiving,
) -> Result<Kept, Refusal> {
    let lane = chunks.lane();
    let mut keeping = Keeping::new(chunks, order, came);
    let mut held = Vec::new();
    // A node that sends may hear nothing meanwhile: whoever waited for that would not take what it sends.
    let asked = Asked::default();
    let mut passing = std::pin::pin!(pass(sending, &asked));
    let result = loop {
        let (kept, wants) = step(&lane, keeping, Keeping::wants).await?;
        keeping = kept;
        match wants {
            Err(refusal) => break Err(refusal),
            Ok(Wants::Over) => break Ok(()),
            Ok(Wants::Ask(ids)) if !ids.is_empty() => match asked.push(&ids) {
                Ok(()) => continue,
                Err(refusal) => break Err(refusal),
            },
            Ok(Wants::Ask(_)) => {}
        }
        let next = tokio::select! {
            refusal = &mut passing => break Err(refusal),
            next = receiving.recv() => next,
        };
        let piece = match next {
            Ok(Some(carry)) => carry,
            Ok(None) => break Err(cut()),
            Err(refusal) => break Err(refusal),
        };
        let taken = match piece {
            Carry::Pack(bytes) => {
                let (kept, taken) = step(&lane, keeping, move |keeping| keeping.take(bytes)).await?;
                keeping = kept;
                taken
            }
            Carry::Missing(ids) => keeping.cannot(&ids),
            Carry::Held(notes) => {
                held.extend(notes);
                if held.len() > HELD_MAX { Err(too_many_held()) } else { Ok(()) }
            }
            Carry::Progress(_) => Ok(()),
            Carry::Refused(refusal) => Err(refusal),
            Carry::Tree(_) | Carry::Wants(_) | Carry::End(_) | Carry::Data(_) | Carry::DataEnd(_) => {
                Err(strange())
            }
        };
        if let Err(refusal) = taken {
            break Err(refusal);
        }
    };
    // What came is durable also when more was to come: the next try does not ask for it.
    let (keeping, settled) = step(&lane, keeping, Keeping::settle).await?;
    Ok(Kept { came: keeping.came, held, result: result.and(settled) })
}

/// What is wanted goes to the node; as much at once as waits. Ends when nothing more can be said to it.
async fn pass(sending: &Sending, asked: &Asked) -> Refusal {
    loop {
        for ids in asked.next().await.chunks(WANTS_MAX) {
            if let Err(refusal) = sending.send(Carry::Wants(ids.to_vec())).await {
                return refusal;
            }
        }
    }
}

/// Waits for what the node says before the first pack: the paths that it left out. Nothing is kept.
///
/// # Errors
/// Those of the stream.
pub(crate) async fn look(
    root: TreeId,
    sending: &Sending,
    receiving: &mut Receiving,
) -> Result<Vec<PathNote>, Refusal> {
    sending.send(Carry::Wants(vec![root.into()])).await?;
    let mut held = Vec::new();
    loop {
        match receiving.recv().await?.ok_or_else(cut)? {
            Carry::Held(notes) => held.extend(notes),
            Carry::Pack(_) | Carry::Missing(_) => return Ok(held),
            Carry::Progress(_) => {}
            Carry::Refused(refusal) => return Err(refusal),
            Carry::Tree(_) | Carry::Wants(_) | Carry::End(_) | Carry::Data(_) | Carry::DataEnd(_) => {
                return Err(strange());
            }
        }
        if held.len() > HELD_MAX {
            return Err(too_many_held());
        }
    }
}

async fn step<T: Send + 'static>(
    lane: &Lane,
    mut keeping: Keeping,
    work: impl FnOnce(&mut Keeping) -> T + Send + 'static,
) -> Result<(Keeping, T), Refusal> {
    lane.run(move || {
        let done = work(&mut keeping);
        (keeping, done)
    })
    .await
}

enum Wants {
    Ask(Vec<ContentId>),
    Over,
}

impl Keeping {
    fn new(chunks: &Chunks, order: Order, came: Hold) -> Self {
        let is_all = order.content == Content::All;
        let check = if is_all { GraphCheck::new } else { GraphCheck::of_entries };
        Self {
            chunks: chunks.clone(),
            check: check(order.root, order.quota),
            order,
            came,
            asking: Asking::new(),
            stream: packs::Stream::new(),
            putting: Putting::new(chunks),
            objects: HashSet::new(),
            missing: HashSet::new(),
            is_lost: false,
            scope: HashSet::new(),
            places: HashMap::new(),
        }
    }

    /// What to ask for next.
    fn wants(&mut self) -> Result<Wants, Refusal> {
        if self.places.is_empty() && self.scope.is_empty() {
            let mut listings = Vec::new();
            for root in self.order.scope.clone() {
                self.scope.insert(root.into());
                listings.push(self.list(root)?);
            }
            self.places.insert(self.order.root.into(), Arc::new(listings));
        }
        loop {
            let wanted = self.check.wanted(WANTS_MAX);
            if wanted.is_empty() {
                break;
            }
            for id in wanted {
                if self.scope.contains(&id) {
                    let bytes = self.chunks.chunk(&id)?;
                    self.check.feed_known(id, &bytes)?;
                } else if self.came.ids.contains(&id) {
                    self.flush()?;
                    let bytes = self.chunks.chunk(&id)?;
                    self.feed(id, &bytes)?;
                } else {
                    if self.missing.contains(&id) {
                        return Err(self.changed());
                    }
                    self.objects.insert(id);
                    self.asking.push(id, TREE_OBJECT_BYTES_MAX as u32);
                }
            }
        }
        let ids = self.asking.next(WANTS_MAX);
        if ids.is_empty() && self.asking.is_idle() && self.check.is_whole() {
            return if self.missing.is_empty() { Ok(Wants::Over) } else { Err(self.changed()) };
        }
        Ok(Wants::Ask(ids))
    }

    /// The next bytes of packs.
    fn take(&mut self, bytes: Bytes) -> Result<(), Refusal> {
        self.stream.push(bytes)?;
        let mut fed = Vec::new();
        while let Some((id, chunk)) = self.stream.next_chunk()? {
            if self.asking.came(id) == Came::Extra {
                continue;
            }
            let put = self.putting.put(id, chunk, &self.came.pin);
            self.is_lost |= put.is_err();
            put?;
            self.came.ids.insert(id);
            if self.objects.remove(&id) {
                fed.push((id, Bytes::copy_from_slice(chunk)));
            }
        }
        fed.iter().try_for_each(|(id, bytes)| self.feed(*id, bytes))
    }

    /// The node cannot give these: it changed since it was looked at.
    fn cannot(&mut self, ids: &[ContentId]) -> Result<(), Refusal> {
        for id in ids.iter().filter(|id| self.asking.missing(**id)) {
            self.missing.insert(*id);
            if self.objects.contains(id) {
                return Err(self.changed());
            }
        }
        Ok(())
    }

    fn changed(&self) -> Refusal {
        if self.order.is_repeated {
            return Refusal::new(
                Code::Conflict,
                "The folder changed while it was sent; it is looked at again.",
            );
        }
        changed()
    }

    fn flush(&mut self) -> Result<(), Refusal> {
        let flushed = self.putting.flush(&self.came.pin);
        self.is_lost |= flushed.is_err();
        flushed
    }

    fn settle(&mut self) -> Result<(), Refusal> {
        let settled = self.flush().and_then(|()| self.chunks.sync(&self.came.pin));
        if self.is_lost || settled.is_err() {
            // What was not kept is asked for by the next try.
            let ids: Vec<ContentId> = self.came.ids.drain().collect();
            for part in ids.chunks(WANTS_MAX) {
                let here = self.chunks.blobs().have(part, &self.came.pin).map_err(refusal)?;
                self.came.ids.extend(part.iter().zip(here).filter(|(_, here)| *here).map(|(id, _)| *id));
            }
        }
        settled
    }

    fn feed(&mut self, id: ContentId, bytes: &Bytes) -> Result<(), Refusal> {
        let object = self.check.feed(id, bytes)?;
        let places = self.places.remove(&id).unwrap_or_default();
        match object {
            Object::Dir(entries) => {
                for entry in entries {
                    let there = places.iter().filter_map(|listing| listing.get(&entry.name));
                    match entry.node {
                        Node::File(file) => {
                            let maps: Vec<ContentId> = there
                                .filter_map(|node| match node {
                                    Node::File(had) => {
                                        self.scope.insert(had.id);
                                        had.map
                                    }
                                    Node::Dir { .. } | Node::Link { .. } => None,
                                })
                                .collect();
                            let is_wanted = match &mut self.order.content {
                                Content::Nothing => false,
                                Content::All => true,
                                Content::Differing(left) => {
                                    let fits = file.size <= SHORT_BYTES_MAX.min(*left) && file.map.is_none();
                                    if fits && !self.scope.contains(&file.id) {
                                        *left -= file.size;
                                    }
                                    fits
                                }
                            };
                            match file.map {
                                Some(_) if is_wanted => {
                                    maps.into_iter().try_for_each(|had| self.know_map(had))?;
                                }
                                None if is_wanted && file.size > 0 => {
                                    self.want(file.id, u32::try_from(file.size).unwrap_or(u32::MAX));
                                }
                                Some(_) | None => {}
                            }
                        }
                        Node::Dir { id, .. } => {
                            let dirs: Vec<TreeId> = there
                                .filter_map(|node| match node {
                                    Node::Dir { id, .. } => Some(*id),
                                    Node::File(_) | Node::Link { .. } => None,
                                })
                                .collect();
                            self.know_dirs(id, dirs)?;
                        }
                        Node::Link { .. } => {}
                    }
                }
            }
            // Parts have the place of their folder.
            Object::DirIndex { parts, .. } => {
                self.places.extend(parts.into_iter().map(|part| (part.id, Arc::clone(&places))));
            }
            Object::Map(chunks) => chunks.into_iter().for_each(|chunk| self.want(chunk.id, chunk.len)),
            Object::MapIndex { .. } => {}
        }
        Ok(())
    }

    fn want(&mut self, id: ContentId, len: u32) {
        if !self.scope.contains(&id) && !self.came.ids.contains(&id) {
            self.asking.push(id, len);
        }
    }

    /// A folder lies where the workspace had these.
    fn know_dirs(&mut self, id: TreeId, dirs: Vec<TreeId>) -> Result<(), Refusal> {
        if dirs.is_empty() {
            return Ok(());
        }
        self.scope.extend(dirs.iter().map(|dir| ContentId::from(*dir)));
        if self.scope.contains(&id.into()) {
            return Ok(());
        }
        let listings: Vec<Listing> = dirs.into_iter().map(|dir| self.list(dir)).collect::<Result<_, _>>()?;
        self.places.insert(id.into(), Arc::new(listings));
        Ok(())
    }

    fn know_map(&mut self, map: ContentId) -> Result<(), Refusal> {
        let (chunks, objects) = self.chunks.map(map)?;
        self.scope.extend(objects);
        self.scope.extend(chunks.into_iter().map(|chunk| chunk.id));
        Ok(())
    }

    /// The entries of a folder of the workspace, and what it is made of, which the workspace has.
    fn list(&mut self, dir: TreeId) -> Result<Listing, Refusal> {
        let (mut open, mut listing) = (vec![ContentId::from(dir)], Listing::new());
        while let Some(id) = open.pop() {
            self.scope.insert(id);
            match self.chunks.object(&id)? {
                Object::Dir(entries) => {
                    listing.extend(entries.into_iter().map(|entry| (entry.name, entry.node)))
                }
                Object::DirIndex { parts, .. } => open.extend(parts.into_iter().map(|part| part.id)),
                Object::Map(_) | Object::MapIndex { .. } => {}
            }
        }
        Ok(listing)
    }
}

fn cut() -> Refusal {
    Refusal::new(Code::NodeOffline, "The node ended the transfer without a word.")
}

/// For whoever has to do it again.
fn changed() -> Refusal {
    Refusal::new(Code::Conflict, "Files changed while they were sent, so nothing came of it.")
        .hint("Do it again, when nobody writes there, or leave out what changes all the time.")
}

fn too_many_held() -> Refusal {
    Refusal::new(Code::TooLarge, format!("More than {HELD_MAX} paths of the folder cannot be sent."))
        .hint("Leave their folder out with `.cortexignore`.")
}

fn strange() -> Refusal {
    Refusal::new(Code::InvalidArgument, "The node sent a frame that does not belong to this transfer.")
}

#[cfg(test)]
mod tests;
