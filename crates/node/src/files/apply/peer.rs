//! Who has the tree: what the receiving side needs of it.

use cortex_core::error::Refusal;
use cortex_core::files::content::ContentId;

/// What a peer says.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// An object or chunk, whose hash was compared. Also one that was not asked for.
    Chunk(ContentId, &'a [u8]),
    /// It does not have this: it changed or went away there.
    Missing(ContentId),
}

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Plain bytes of content that came or were found here.
    pub(crate) bytes: u64,
    /// Of so many.
    pub(crate) bytes_all: u64,
    /// Steps that were done.
    pub(crate) steps: u64,
    /// Of so many.
    pub(crate) steps_all: u64,
}

/// The other end of a transfer. A failure of any call ends it; what was staged stays for the next try.
pub(crate) trait Peer {
    /// Asks for these, at most [`TRANSFER_WANTS_MAX`](cortex_core::limits::TRANSFER_WANTS_MAX), behind
    /// what was asked for before. It does not wait for an answer.
    fn want(&mut self, ids: &[ContentId]) -> Result<(), Refusal>;

    /// Waits for what comes next.
    fn next(&mut self) -> Result<Event<'_>, Refusal>;

    /// Whether this transfer still may change what people see. Asked before each batch of changes.
    fn gate(&mut self) -> Result<(), Refusal>;

    /// Says how far it is; about once for 4 MiB, and once for each batch.
    fn progress(&mut self, progress: Progress);
}
