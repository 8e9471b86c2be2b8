//! Following a run. A follower is a place in the log, not a queue: one that does not read costs
//! nothing, and delays nobody.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use cortex_core::Refusal;
use cortex_core::run::{Run, RunState};
use cortex_core::stream::{Positions, Stream};
use tokio::sync::watch;

use crate::mesh::{Following, Live, Progress};
use crate::runlog::{Chunk, RunLog};

/// Bytes that a follower takes out of the log at a time.
const READ_BYTES: usize = 128 * 1024;

/// What a follower sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// Output.
    Output {
        /// Which stream.
        stream: Stream,
        /// Offset of the first byte in its stream.
        offset: u64,
        /// The bytes.
        data: Bytes,
    },
    /// Output is missing; it goes on here.
    Lost(Positions),
    /// The run has another state than before.
    State(RunState),
    /// The run has ended; nothing follows.
    Ended(Box<Run>),
}

/// A place in the output of one run.
#[derive(Debug)]
pub struct Follower {
    log: Arc<RunLog>,
    position: u64,
    progress: watch::Receiver<Progress>,
    /// Keeps the channel of a run that has ended open.
    _kept: Option<watch::Sender<Progress>>,
    ready: VecDeque<Chunk>,
    state: Option<RunState>,
    over: bool,
    _following: Following,
}

impl Follower {
    pub(super) fn live(live: &Live, following: Following) -> Self {
        Self::new(Arc::clone(&live.log), live.progress.subscribe(), None, following)
    }

    pub(super) fn kept(log: Arc<RunLog>, run: Arc<Run>, following: Following) -> Self {
        let end = log.end().total();
        let (sender, receiver) = watch::channel(Progress { end, run, input_taken: 0 });
        Self::new(log, receiver, Some(sender), following)
    }

    fn new(
        log: Arc<RunLog>,
        progress: watch::Receiver<Progress>,
        kept: Option<watch::Sender<Progress>>,
        following: Following,
    ) -> Self {
        Self {
            log,
            position: 0,
            progress,
            _kept: kept,
            ready: VecDeque::new(),
            state: None,
            over: false,
            _following: following,
        }
    }

    /// Begins at a position of the common order of both streams.
    #[must_use]
    pub fn from(mut self, position: u64) -> Self {
        self.position = position;
        self.ready.clear();
        self
    }

    /// The next update; `None` after the end. Waits without a deadline of its own: the run has
    /// one, or its node's grace ends it. A disk that fails is an error, not a loss: what follows it
    /// is another try at the same place.
    pub async fn next(&mut self) -> Option<Result<Update, Refusal>> {
        while !self.over {
            if let Some(chunk) = self.ready.pop_front() {
                self.position = chunk.end().total();
                return Some(Ok(update(chunk)));
            }
            let now = self.progress.borrow_and_update().clone();
            if self.position < now.end {
                match self.log.read(self.position, READ_BYTES).await {
                    Ok(chunks) => self.ready.extend(chunks),
                    Err(refusal) => return Some(Err(refusal)),
                }
                if !self.ready.is_empty() {
                    continue;
                }
            }
            if now.run.state.is_final() {
                return Some(Ok(self.end(now.run)));
            }
            if self.state != Some(now.run.state) {
                self.state = Some(now.run.state);
                return Some(Ok(Update::State(now.run.state)));
            }
            if self.progress.changed().await.is_err() {
                self.over = true;
            }
        }
        None
    }

    /// The end, or first the mark for output that the log does not have.
    fn end(&mut self, run: Arc<Run>) -> Update {
        if run.output.total() > self.position {
            self.position = run.output.total();
            return Update::Lost(run.output);
        }
        self.over = true;
        Update::Ended(Box::new(Run::clone(&run)))
    }
}

fn update(chunk: Chunk) -> Update {
    match chunk {
        Chunk::Output { stream, at, data } => Update::Output { stream, offset: at.of(stream), data },
        Chunk::Lost { to, .. } => Update::Lost(to),
    }
}
