//! Who has the tree: what the receiving side needs of it.

use bytes::Bytes;
use cortex_core::error::Refusal;
use cortex_core::files::content::ContentId;
use cortex_core::transfer::Progress;

/// What a peer says.
#[derive(Debug)]
pub(crate) enum Event {
    /// An object or chunk, whose hash was compared. Also one that was not asked for. It may be a part of something
    /// larger, all of which stays as long as it does.
    Chunk(ContentId, Bytes),
    /// It does not have this: it changed or went away there.
    Missing(ContentId),
}

/// The other end of a transfer. A failure of any call ends it; what was staged stays for the next try.
pub(crate) trait Peer {
    /// Asks for these, at most [`WANTS_MAX`](cortex_core::limits::WANTS_MAX), behind
    /// what was asked for before. It does not wait for an answer.
    fn want(&mut self, ids: &[ContentId]) -> Result<(), Refusal>;

    /// Waits for what comes next.
    fn next(&mut self) -> Result<Event, Refusal>;

    /// Whether this transfer still may change what people see. Asked before each batch of changes.
    fn gate(&mut self) -> Result<(), Refusal>;

    /// Says how far it is, with each chunk and each step: whoever passes it on does that now and then.
    fn progress(&mut self, progress: Progress);
}
