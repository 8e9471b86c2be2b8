//! The other end of a transfer to a folder, whoever it is: frames come and go, and content is verified before
//! anybody here sees it.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cortex_content::packs::Stream;
use cortex_core::files::content::ContentId;
use cortex_core::transfer::{Carry, Phase, Progress};
use cortex_core::{Code, Refusal};

use super::super::apply::{Event, Peer};
use super::Line;

/// Progress is told so often at most, but for changes of its phase.
const TOLD_EVERY: Duration = Duration::from_millis(100);
/// Whoever works so long without a stream opens it, so that its ticket holds and there is a sign of life.
const SILENT_MAX: Duration = Duration::from_secs(5);

/// What a sender says.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The next bytes of packs.
    Pack(Bytes),
    /// It does not have these.
    Missing(Vec<ContentId>),
}

/// Who has a tree, and hears what is wanted of it.
pub(crate) trait Supply {
    /// Has the way to it opened, once.
    fn open(&mut self) -> Result<(), Refusal>;

    /// Asks for these, at most [`WANTS_MAX`](cortex_core::limits::WANTS_MAX).
    fn want(&mut self, ids: &[ContentId]) -> Result<(), Refusal>;

    /// Waits for what it says next.
    fn hear(&mut self) -> Result<Heard, Refusal>;

    /// Whether the next changes may be seen.
    fn gate(&mut self) -> Result<(), Refusal>;

    /// Says how far it is.
    fn tell(&mut self, progress: Progress);
}

/// Says when progress is told: at changes of the phase, and now and then.
#[derive(Debug, Default)]
pub(super) struct Meter {
    last: Option<(Phase, Instant)>,
}

impl Meter {
    pub(super) fn is_due(&mut self, phase: Phase) -> bool {
        let is_due = self.last.is_none_or(|(was, at)| was != phase || at.elapsed() >= TOLD_EVERY);
        if is_due {
            self.last = Some((phase, Instant::now()));
        }
        is_due
    }
}

/// Tells how far it is, once the way is open. What takes long opens it.
pub(super) struct Told<'s> {
    supply: &'s mut dyn Supply,
    opened: Option<Result<(), Refusal>>,
    began: Instant,
    meter: Meter,
}

impl<'s> Told<'s> {
    pub(super) fn new(supply: &'s mut dyn Supply) -> Self {
        Self { supply, opened: None, began: Instant::now(), meter: Meter::default() }
    }

    /// Opens the way, unless it is open.
    ///
    /// # Errors
    /// The refusal of it, each time.
    pub(super) fn open(&mut self) -> Result<(), Refusal> {
        if self.opened.is_none() {
            self.opened = Some(self.supply.open());
        }
        self.opened.clone().unwrap_or(Ok(()))
    }

    pub(super) fn tell(&mut self, progress: Progress) {
        if self.opened.is_none() && self.began.elapsed() >= SILENT_MAX {
            // Why it cannot be opened is said by whoever needs it.
            let _opened = self.open();
        }
        if matches!(self.opened, Some(Ok(()))) && self.meter.is_due(progress.phase) {
            self.supply.tell(progress);
        }
    }
}

/// A supply as those who receive a tree see it.
pub(super) struct Receiver<'t, 's> {
    told: &'t mut Told<'s>,
    stream: Stream,
    missing: VecDeque<ContentId>,
}

impl<'t, 's> Receiver<'t, 's> {
    pub(super) fn new(told: &'t mut Told<'s>) -> Self {
        Self { told, stream: Stream::new(), missing: VecDeque::new() }
    }
}

impl Peer for Receiver<'_, '_> {
    fn want(&mut self, ids: &[ContentId]) -> Result<(), Refusal> {
        self.told.supply.want(ids)
    }

    fn next(&mut self) -> Result<Event, Refusal> {
        loop {
            if let Some((id, bytes)) = self.stream.next_kept()? {
                return Ok(Event::Chunk(id, bytes));
            }
            if let Some(id) = self.missing.pop_front() {
                return Ok(Event::Missing(id));
            }
            match self.told.supply.hear()? {
                Heard::Pack(piece) => self.stream.push(piece)?,
                Heard::Missing(ids) => self.missing.extend(ids),
            }
        }
    }

    fn gate(&mut self) -> Result<(), Refusal> {
        self.told.supply.gate()
    }

    fn progress(&mut self, progress: Progress) {
        self.told.tell(progress);
    }
}

/// The hub, over the line of a clerk.
pub(super) struct OnLine<'l> {
    pub(super) line: &'l mut dyn Line,
    /// The node is gone: there is nobody to tell anything.
    pub(super) lost: Option<io::Error>,
}

impl<'l> OnLine<'l> {
    pub(super) fn new(line: &'l mut dyn Line) -> Self {
        Self { line, lost: None }
    }

    fn hold<T>(&mut self, done: io::Result<Result<T, Refusal>>) -> Result<T, Refusal> {
        done.unwrap_or_else(|error| {
            self.lost = Some(error);
            Err(Refusal::new(Code::Internal, "The node ended while a transfer was under way."))
        })
    }

    /// Says something to the hub.
    pub(super) fn send(&mut self, carry: Carry) -> Result<(), Refusal> {
        let sent = self.line.send(carry).map(Ok);
        self.hold(sent)
    }

    /// What the hub says next; `None` when it says nothing more.
    pub(super) fn recv(&mut self) -> Result<Option<Carry>, Refusal> {
        let heard = self.line.recv();
        self.hold(heard)
    }
}

impl Supply for OnLine<'_> {
    fn open(&mut self) -> Result<(), Refusal> {
        let opened = self.line.open();
        self.hold(opened)
    }

    fn want(&mut self, ids: &[ContentId]) -> Result<(), Refusal> {
        self.send(Carry::Wants(ids.to_vec()))
    }

    fn hear(&mut self) -> Result<Heard, Refusal> {
        match self.recv()? {
            Some(Carry::Pack(piece)) => Ok(Heard::Pack(piece)),
            Some(Carry::Missing(ids)) => Ok(Heard::Missing(ids)),
            Some(Carry::Refused(refusal)) => Err(refusal),
            Some(
                Carry::Tree(_)
                | Carry::Held(_)
                | Carry::Wants(_)
                | Carry::Progress(_)
                | Carry::End(_)
                | Carry::Data(_)
                | Carry::DataEnd(_),
            ) => Err(senseless()),
            None => Err(Refusal::new(
                Code::HubUnreachable,
                "The hub ended the stream of a transfer before it was over.",
            )
            .hint("Ask for it again: what is there is not moved again.")),
        }
    }

    fn gate(&mut self) -> Result<(), Refusal> {
        let may = self.line.gate();
        self.hold(may)
    }

    fn tell(&mut self, progress: Progress) {
        // Whoever is gone is noticed with what is needed of him.
        let _told = self.send(Carry::Progress(progress));
    }
}

/// A frame that has no place where it came.
pub(super) fn senseless() -> Refusal {
    Refusal::new(Code::InvalidArgument, "The hub said on a transfer what makes no sense there.")
        .hint("Update hub and node to the same version.")
}
