//! Trees of the chunk store that a node asks for. It is given what lies in the trees that the transfer is
//! about, and nothing else: to know a hash is no way to content.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;
use cortex_content::object::{Node, Object};
use cortex_content::pack::{Added, Pack, PackWriter};
use cortex_core::files::content::{ContentId, PackId, TreeId};
use cortex_core::limits::{CARRY_DATA_BYTES_MAX, WANTS_MAX, WANTS_OPEN_MAX};
use cortex_core::transfer::{Carry, Progress, TransferEnd};
use cortex_core::{Code, Refusal};

use super::asked::Asked;
use super::chunks::{Chunks, LEVEL, refusal};
use super::{Receiving, Sending, TransferStream};

/// A stored pack is sent as it lies there when that part of its plain bytes is wanted, percent.
const WHOLE_PERCENT: u64 = 75;

/// The machine. It blocks.
struct Giving {
    chunks: Chunks,
    queue: VecDeque<ContentId>,
    queued: HashSet<ContentId>,
    /// What is known to lie in the trees.
    within: HashSet<ContentId>,
    /// Objects among these that were not looked into.
    unread: VecDeque<ContentId>,
}

enum Given {
    Nothing,
    Missing(Vec<ContentId>),
    Pack(Bytes),
}

/// Serves a node that brings a folder to a tree, until it says how that ended. `trees` are those of which it
/// may ask anything; the store has them whole, and somebody holds them.
///
/// # Errors
/// The node's refusal, what it may not ask for, and those of the stream.
pub(crate) async fn serve(
    chunks: &Chunks,
    trees: Vec<TreeId>,
    stream: TransferStream,
    progress: impl Fn(Progress) + Send,
) -> Result<Box<TransferEnd>, Refusal> {
    let TransferStream { sending, receiving } = stream;
    let asked = Asked::default();
    let ended = tokio::select! {
        ended = hear(receiving, &asked, progress) => ended,
        refused = give(chunks, trees, &asked, &sending) => Err(refused),
    };
    if let Err(refusal) = &ended
        && !matches!(refusal.code, Code::NodeOffline | Code::Timeout)
    {
        sending.refuse(refusal.clone()).await;
    }
    ended
}

async fn hear(
    mut receiving: Receiving,
    asked: &Asked,
    progress: impl Fn(Progress) + Send,
) -> Result<Box<TransferEnd>, Refusal> {
    let cut = || Refusal::new(Code::NodeOffline, "The node ended the transfer without a word.");
    loop {
        match receiving.recv().await?.ok_or_else(cut)? {
            Carry::Wants(ids) => asked.push(&ids)?,
            Carry::Progress(told) => progress(told),
            Carry::End(end) => return Ok(end),
            Carry::Refused(refusal) => return Err(refusal),
            Carry::Tree(_)
            | Carry::Held(_)
            | Carry::Pack(_)
            | Carry::Missing(_)
            | Carry::Data(_)
            | Carry::DataEnd(_) => {
                let message = "The node sent a frame that does not belong to this transfer.";
                return Err(Refusal::new(Code::InvalidArgument, message));
            }
        }
    }
}

/// Ends when nothing more can be given.
async fn give(chunks: &Chunks, trees: Vec<TreeId>, asked: &Asked, sending: &Sending) -> Refusal {
    let lane = chunks.lane();
    let mut giving = Giving::new(chunks, trees);
    loop {
        let more = if giving.queue.is_empty() { asked.next().await } else { asked.take() };
        let next = lane.run(move || {
            let next = giving.want(&more).and_then(|()| giving.next());
            (giving, next)
        });
        let next = match next.await {
            Ok((machine, next)) => {
                giving = machine;
                next
            }
            Err(refusal) => return refusal,
        };
        let sent = match next {
            Err(refusal) => return refusal,
            Ok(Given::Nothing) => Ok(()),
            Ok(Given::Missing(ids)) => sending.send(Carry::Missing(ids)).await,
            Ok(Given::Pack(mut pack)) => {
                let mut sent = Ok(());
                while !pack.is_empty() && sent.is_ok() {
                    let piece = pack.split_to(pack.len().min(CARRY_DATA_BYTES_MAX));
                    sent = sending.send(Carry::Pack(piece)).await;
                }
                sent
            }
        };
        if let Err(refusal) = sent {
            return refusal;
        }
    }
}

impl Giving {
    fn new(chunks: &Chunks, trees: Vec<TreeId>) -> Self {
        let roots = trees.into_iter().map(ContentId::from);
        let (within, unread) = (roots.clone().collect(), roots.collect());
        Self { chunks: chunks.clone(), queue: VecDeque::new(), queued: HashSet::new(), within, unread }
    }

    fn want(&mut self, ids: &[ContentId]) -> Result<(), Refusal> {
        if self.queue.len() + ids.len() > WANTS_OPEN_MAX {
            return Err(too_many());
        }
        let new = ids.iter().copied().filter(|id| self.queued.insert(*id));
        self.queue.extend(new);
        Ok(())
    }

    /// Whether it lies in the trees. Objects are looked into from above, as they are asked for.
    fn is_within(&mut self, id: &ContentId) -> Result<bool, Refusal> {
        while !self.within.contains(id) {
            let Some(object) = self.unread.pop_front() else { return Ok(false) };
            match self.chunks.object(&object)? {
                Object::Dir(entries) => entries.into_iter().for_each(|entry| match entry.node {
                    Node::File(file) => {
                        self.within.insert(file.id);
                        file.map.into_iter().for_each(|map| self.add(map));
                    }
                    Node::Dir { id, .. } => self.add(id.into()),
                    Node::Link { .. } => {}
                }),
                Object::DirIndex { parts, .. } => parts.into_iter().for_each(|part| self.add(part.id)),
                Object::Map(chunks) => self.within.extend(chunks.into_iter().map(|chunk| chunk.id)),
                Object::MapIndex { parts, .. } => parts.into_iter().for_each(|part| self.add(part.id)),
            }
        }
        Ok(true)
    }

    fn add(&mut self, object: ContentId) {
        // One that is a file's content as well is looked into all the same.
        self.within.insert(object);
        self.unread.push_back(object);
    }

    /// What answers the first of what was asked for.
    fn next(&mut self) -> Result<Given, Refusal> {
        let first: Vec<ContentId> = self.queue.iter().take(WANTS_MAX).copied().collect();
        let mut missing = Vec::new();
        for id in &first {
            if !self.is_within(id)? {
                missing.push(*id);
            }
        }
        if !missing.is_empty() {
            self.forget(&missing.iter().copied().collect());
            return Ok(Given::Missing(missing));
        }
        let places = self.chunks.blobs().locate(&first).map_err(refusal)?;
        let Some(Some(place)) = places.first().copied() else {
            let Some(id) = first.first().copied() else { return Ok(Given::Nothing) };
            self.forget(&HashSet::from([id]));
            return Ok(Given::Missing(vec![id]));
        };
        let of_pack = first.iter().zip(&places).filter_map(|(id, at)| Some((*id, at.as_ref()?)));
        let of_pack: Vec<(ContentId, u64)> =
            of_pack.filter(|(_, at)| at.pack == place.pack).map(|(id, at)| (id, u64::from(at.len))).collect();
        if let Some(pack) = self.whole(&place.pack, &of_pack)? {
            return Ok(Given::Pack(pack));
        }
        self.packed(&first)
    }

    /// The pack as it lies there, when most of it is wanted and all of it may be given.
    fn whole(&mut self, id: &PackId, wanted: &[(ContentId, u64)]) -> Result<Option<Bytes>, Refusal> {
        let bytes: u64 = wanted.iter().map(|(_, len)| len).sum();
        let Some(pack) = self.chunks.blobs().read_pack(id).map_err(refusal)? else { return Ok(None) };
        if bytes * 100 < u64::from(pack.head.plain_len()) * WHOLE_PERCENT {
            return Ok(None);
        }
        for chunk in pack.head.chunks() {
            if !self.is_within(&chunk.id)? {
                return Ok(None);
            }
        }
        self.forget(&wanted.iter().map(|(id, _)| *id).collect());
        Ok(Some(to_bytes(&pack)))
    }

    /// A new pack of what comes first.
    fn packed(&mut self, first: &[ContentId]) -> Result<Given, Refusal> {
        let (mut writer, mut taken, mut missing) = (PackWriter::new(LEVEL), HashSet::new(), Vec::new());
        for id in first {
            match self.chunks.blobs().chunk(id).map_err(refusal)? {
                None => missing.push(*id),
                Some(bytes) => match writer.add(*id, &bytes) {
                    Added::Yes | Added::Already => drop(taken.insert(*id)),
                    Added::Never => missing.push(*id),
                    Added::Full => break,
                },
            }
        }
        self.forget(&taken);
        match writer.finish() {
            // What is missing comes to the front by that.
            Some(pack) => Ok(Given::Pack(to_bytes(&pack))),
            None => {
                self.forget(&missing.iter().copied().collect());
                Ok(Given::Missing(missing))
            }
        }
    }

    fn forget(&mut self, ids: &HashSet<ContentId>) {
        self.queue.retain(|id| !ids.contains(id));
        self.queued.retain(|id| !ids.contains(id));
    }
}

fn to_bytes(pack: &Pack) -> Bytes {
    [&pack.head.to_bytes()[..], &pack.tail[..]].concat().into()
}

fn too_many() -> Refusal {
    Refusal::new(Code::TooLarge, format!("The node asked for more than {WANTS_OPEN_MAX} pieces at once."))
}

#[cfg(test)]
mod tests;
