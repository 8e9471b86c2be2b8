//! The content of one pull between its node and its reader. The hub keeps nothing of it: what the reader asks
//! for goes to the node, what the node sends goes to the reader, and the reader's pace holds the node back.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cortex_core::files::content::ContentId;
use cortex_core::limits::{CARRIES_WAITING_MAX, WANTS_MAX, WANTS_OPEN_MAX};
use cortex_core::transfer::{PathNote, TreeTold};
use cortex_core::{Code, Refusal};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

/// Lists of ids that wait for the node: as many as it lets a receiver have open.
const WANTS_WAITING_MAX: usize = WANTS_OPEN_MAX / WANTS_MAX;

/// What a reader is given.
#[derive(Debug)]
pub(crate) enum Frame {
    /// The tree. First.
    Tree(TreeTold),
    /// Paths of which the tree says nothing.
    Held(Vec<PathNote>),
    /// The next bytes of packs.
    Pack(Bytes),
    /// These cannot be given.
    Missing(Vec<ContentId>),
    /// Last: all of it was taken, or why no more comes.
    End(Result<(), Refusal>),
}

/// The content of one pull.
#[derive(Debug, Default)]
pub(crate) struct Pull {
    state: Mutex<State>,
    came: Notify,
    taken: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    /// One that came, and that nobody serves so far.
    next: Option<Reader>,
    /// Of the newest reader.
    wants: Option<mpsc::Sender<Vec<ContentId>>>,
    displaced: CancellationToken,
}

/// One who reads, for whoever serves it.
#[derive(Debug)]
pub(crate) struct Reader {
    frames: mpsc::Sender<Frame>,
    wants: mpsc::Receiver<Vec<ContentId>>,
    displaced: CancellationToken,
}

impl Pull {
    /// Somebody reads: from the tree on. Whoever read before is cut off.
    pub(crate) fn read(&self) -> mpsc::Receiver<Frame> {
        let (frames, read) = mpsc::channel(CARRIES_WAITING_MAX);
        let (ask, wants) = mpsc::channel(WANTS_WAITING_MAX);
        let displaced = CancellationToken::new();
        let before = {
            let mut state = self.lock();
            state.wants = Some(ask);
            state.next = Some(Reader { frames, wants, displaced: displaced.clone() });
            std::mem::replace(&mut state.displaced, displaced)
        };
        before.cancel();
        self.came.notify_one();
        read
    }

    /// The next one who reads.
    pub(crate) async fn reader(&self) -> Reader {
        loop {
            let came = self.came.notified();
            if let Some(reader) = self.lock().next.take() {
                return reader;
            }
            came.await;
        }
    }

    /// The reader asks for these. Waits while the node is behind, at most so long.
    ///
    /// # Errors
    /// `conflict` when nobody reads, `rate_limited` when the node takes no more.
    pub(crate) async fn ask(&self, ids: Vec<ContentId>, wait: Duration) -> Result<(), Refusal> {
        let wants = self.lock().wants.clone();
        let unread = || {
            Refusal::new(Code::Conflict, "Nobody reads the content of this pull.")
                .hint("Read `content` first, and ask for what it lacks while that goes on.")
        };
        let wants = wants.ok_or_else(unread)?;
        match wants.send_timeout(ids, wait).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(unread()),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                let message = format!("More than {WANTS_OPEN_MAX} pieces were asked for and not read.");
                Err(Refusal::new(Code::RateLimited, message)
                    .hint("Read what was asked for, then ask for more."))
            }
        }
    }

    /// The reader has all.
    pub(crate) fn finish(&self) {
        self.taken.cancel();
    }

    /// Waits until the reader has all.
    pub(crate) async fn taken(&self) {
        self.taken.cancelled().await;
    }

    /// Nobody reads any more: whoever does is cut off.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        (state.next, state.wants) = (None, None);
        state.displaced.cancel();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// What it gives and what it takes, for what goes on in both at once.
    pub(crate) fn split(self) -> (Giving, mpsc::Receiver<Vec<ContentId>>) {
        (Giving { frames: self.frames, displaced: self.displaced }, self.wants)
    }
}

/// The way to a reader.
#[derive(Clone, Debug)]
pub(crate) struct Giving {
    frames: mpsc::Sender<Frame>,
    displaced: CancellationToken,
}

impl Giving {
    /// Gives it something; waits while it is behind. `false` when it is gone.
    pub(crate) async fn give(&self, frame: Frame) -> bool {
        tokio::select! {
            given = self.frames.send(frame) => given.is_ok(),
            () = self.displaced.cancelled() => false,
        }
    }

    /// Waits until it is gone.
    pub(crate) async fn gone(&self) {
        tokio::select! {
            () = self.frames.closed() => {}
            () = self.displaced.cancelled() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn id(number: u8) -> ContentId {
        ContentId::of(&[number])
    }

    #[tokio::test]
    async fn a_reader_that_comes_again_takes_the_place_of_the_one_before() {
        let pull = Pull::default();
        let mut first = pull.read();
        let (giving, mut wants) = pull.reader().await.split();
        assert!(giving.give(Frame::Missing(vec![id(1)])).await);
        pull.ask(vec![id(2)], SOON).await.expect("it reads");
        assert_eq!(wants.recv().await, Some(vec![id(2)]));
        let second = pull.read();
        tokio::time::timeout(SOON, giving.gone()).await.expect("it is told");
        assert!(!giving.give(Frame::Missing(vec![id(3)])).await || first.recv().await.is_some());
        drop((giving, wants));
        let (giving, _wants) = pull.reader().await.split();
        drop(second);
        tokio::time::timeout(SOON, giving.gone()).await.expect("it went away");
    }

    #[tokio::test]
    async fn who_asks_without_reading_or_for_more_than_is_read_is_refused() {
        let pull = Pull::default();
        let short = Duration::from_millis(20);
        assert_eq!(pull.ask(vec![id(1)], short).await.expect_err("nobody reads").code, Code::Conflict);
        let _reading = pull.read();
        for _ in 0..WANTS_WAITING_MAX {
            pull.ask(vec![id(1)], short).await.expect("the node may have so many open");
        }
        assert_eq!(pull.ask(vec![id(1)], short).await.expect_err("too many").code, Code::RateLimited);
        pull.close();
        assert_eq!(pull.ask(vec![id(1)], short).await.expect_err("it is over").code, Code::Conflict);
    }

    #[tokio::test]
    async fn a_slow_reader_holds_up_who_gives() {
        let pull = Pull::default();
        let mut reading = pull.read();
        let (giving, _wants) = pull.reader().await.split();
        for _ in 0..CARRIES_WAITING_MAX {
            assert!(giving.give(Frame::Pack(Bytes::from_static(b"x"))).await);
        }
        let more = giving.give(Frame::Pack(Bytes::from_static(b"y")));
        tokio::pin!(more);
        let waits = tokio::time::timeout(Duration::from_millis(20), &mut more).await;
        assert!(waits.is_err(), "it waits for the reader");
        assert!(reading.recv().await.is_some());
        assert!(tokio::time::timeout(SOON, more).await.expect("there is room"));
    }
}
