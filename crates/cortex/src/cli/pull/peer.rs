//! The hub as whoever receives a tree here sees it. The receiving side blocks, in a thread of its own; this
//! end of the channels is its, the other one belongs to the connection.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use cortex_content::object::{Object, read_object, write_object};
use cortex_content::pack::{Added, PackWriter};
use cortex_content::packs::Stream;
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::transfer::Progress;
use cortex_core::{Code, Refusal};
use cortex_node::local::{LocalHeard, LocalPeer};
use tokio::sync::mpsc;

/// The receiving thread's end.
pub(super) struct Peer {
    pub(super) wants: mpsc::Sender<Vec<ContentId>>,
    pub(super) heard: mpsc::Receiver<LocalHeard>,
    pub(super) progress: Arc<Mutex<Progress>>,
    /// The object at the top, when the tree is called otherwise here: it is had already.
    pub(super) top: Option<(ContentId, Bytes)>,
    /// What it is told before anything else.
    given: VecDeque<LocalHeard>,
}

impl Peer {
    pub(super) fn new(
        wants: mpsc::Sender<Vec<ContentId>>,
        heard: mpsc::Receiver<LocalHeard>,
        progress: Arc<Mutex<Progress>>,
    ) -> Self {
        Self { wants, heard, progress, top: None, given: VecDeque::new() }
    }

    /// Has the one entry of the tree called `name`; the tree that this makes. Before anything else is asked
    /// for.
    ///
    /// # Errors
    /// When the hub is gone, and `conflict` for a tree that is not of one file.
    pub(super) fn rename(&mut self, root: TreeId, name: &str) -> Result<TreeId, Refusal> {
        let bytes = self.object(&root.into())?;
        let Object::Dir(mut entries) = read_object(&bytes)? else { return Err(changed()) };
        let [entry] = &mut entries[..] else { return Err(changed()) };
        entry.name = Bytes::copy_from_slice(name.as_bytes());
        let bytes = write_object(&Object::Dir(entries));
        let id = ContentId::of(&bytes);
        self.top = Some((id, bytes));
        Ok(TreeId::new(*id.as_bytes()))
    }

    /// One object, of which nothing else is on its way.
    pub(super) fn object(&mut self, id: &ContentId) -> Result<Bytes, Refusal> {
        self.want(&[*id])?;
        let mut stream = Stream::new();
        let mut found = None;
        // To the end of the pack: what follows belongs to the next one.
        while found.is_none() || stream.packs() == 0 {
            match self.next()? {
                LocalHeard::Missing(_) => return Err(changed()),
                LocalHeard::Pack(piece) => stream.push(piece)?,
            }
            while let Some((came, bytes)) = stream.next_chunk()? {
                if came == *id {
                    found = Some(Bytes::copy_from_slice(bytes));
                }
            }
        }
        found.ok_or_else(changed)
    }
}

impl LocalPeer for Peer {
    fn want(&mut self, ids: &[ContentId]) -> Result<(), Refusal> {
        let (top, ids): (Vec<ContentId>, Vec<ContentId>) =
            ids.iter().partition(|id| self.top.as_ref().is_some_and(|(top, _)| top == *id));
        if let Some((id, bytes)) = self.top.as_ref().filter(|_| !top.is_empty()) {
            self.given.extend(pack(*id, bytes)?);
        }
        if ids.is_empty() { Ok(()) } else { self.wants.blocking_send(ids).map_err(|_| lost()) }
    }

    fn next(&mut self) -> Result<LocalHeard, Refusal> {
        match self.given.pop_front() {
            Some(given) => Ok(given),
            None => self.heard.blocking_recv().ok_or_else(lost),
        }
    }

    fn progress(&mut self, progress: Progress) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }
}

/// A pack of one object, in one piece: an object is shorter than a piece may be.
fn pack(id: ContentId, bytes: &[u8]) -> Result<Option<LocalHeard>, Refusal> {
    let mut writer = PackWriter::new(1);
    match writer.add(id, bytes) {
        Added::Yes | Added::Already => {}
        Added::Full | Added::Never => return Err(Refusal::new(Code::Internal, "An object fits in no pack.")),
    }
    Ok(writer
        .finish()
        .map(|pack| LocalHeard::Pack([&pack.head.to_bytes()[..], &pack.tail[..]].concat().into())))
}

/// The connection is gone; whoever holds its other end says why.
pub(super) fn lost() -> Refusal {
    Refusal::new(Code::HubUnreachable, "The connection to the hub broke.")
}

fn changed() -> Refusal {
    Refusal::new(Code::Conflict, "The file was changed while it was sent.").hint("Pull it again.")
}
