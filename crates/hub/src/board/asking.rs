//! Who waits for payloads, by kind. One who waits is woken when something may be there, and may leave a
//! claim behind: whoever makes a payload ready carries it out in the same transaction, so that the way from
//! a submission to a waiting worker is one commit.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cortex_core::pool::lane::Lanes;
use cortex_store::{Tx, WriteError};
use tokio::sync::Notify;

use super::{Board, lock};

/// A claim that somebody else's transaction carries out; `fresh` are lanes that the board does not know
/// before that is committed. Returns how many tasks it took, or nothing when whoever left it may not claim any
/// more. What comes of it is told after the commit, to
/// whoever left it.
pub type ClaimFn = Box<dyn FnOnce(&mut dyn Tx, &Lanes) -> Result<Option<usize>, WriteError> + Send>;

/// Those who wait for one kind.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) count: usize,
    pub(super) wake: Arc<Notify>,
    /// Claims that they left, by number: who came first in front.
    left: BTreeMap<u64, Left>,
}

/// A claim that was left, until somebody takes it.
type Left = Arc<Mutex<Option<ClaimFn>>>;

/// One who waits for payloads of some kinds.
pub struct Asking {
    board: Board,
    kinds: Vec<String>,
}

/// A claim that was left behind; dropped, it is taken back.
pub struct LeftClaim<'a> {
    asking: &'a Asking,
    number: u64,
    left: Left,
}

impl Board {
    /// One asks for payloads of these kinds, until the answer is dropped.
    pub fn ask(&self, kinds: Vec<String>) -> Asking {
        let mut state = self.state();
        for kind in &kinds {
            state.workers.entry(kind.clone()).or_default().count += 1;
        }
        drop(state);
        Asking { board: self.clone(), kinds }
    }

    /// How many ask for payloads of this kind.
    pub fn asking(&self, kind: &str) -> usize {
        self.state().workers.get(kind).map_or(0, |waiting| waiting.count)
    }

    /// The claim on this kind that was left first; it is for the one who takes it.
    pub fn left_claim(&self, kind: &str) -> Option<ClaimFn> {
        loop {
            let left = self.state().workers.get_mut(kind)?.left.pop_first()?.1;
            // One on several kinds may have been taken by another.
            if let Some(claim) = lock(&left).take() {
                return Some(claim);
            }
        }
    }
}

impl Asking {
    /// Until something of these kinds may be there.
    pub async fn woken(&self) {
        let wakes: Vec<Arc<Notify>> = {
            let state = self.board.state();
            let of = |kind: &String| state.workers.get(kind).map(|waiting| Arc::clone(&waiting.wake));
            self.kinds.iter().filter_map(of).collect()
        };
        let waits = wakes.iter().map(|wake| Box::pin(wake.notified()));
        if wakes.is_empty() {
            return std::future::pending().await;
        }
        let _first = futures::future::select_all(waits).await;
    }

    /// There may be more than was taken: the next one is woken.
    pub fn pass_on(&self) {
        let state = self.board.state();
        let waiting = self.kinds.iter().filter_map(|kind| state.workers.get(kind));
        waiting.for_each(|waiting| waiting.wake.notify_one());
    }

    /// Leaves a claim for whoever makes something of these kinds ready.
    pub fn leave(&self, claim: ClaimFn) -> LeftClaim<'_> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let left = Arc::new(Mutex::new(Some(claim)));
        let mut state = self.board.state();
        for kind in &self.kinds {
            if let Some(waiting) = state.workers.get_mut(kind) {
                waiting.left.insert(number, Arc::clone(&left));
            }
        }
        drop(state);
        LeftClaim { asking: self, number, left }
    }
}

impl LeftClaim<'_> {
    /// Takes the claim back; `false` when somebody is at it, or has been.
    pub fn take_back(&self) -> bool {
        lock(&self.left).take().is_some()
    }
}

impl Drop for LeftClaim<'_> {
    fn drop(&mut self) {
        self.take_back();
        let mut state = self.asking.board.state();
        for kind in &self.asking.kinds {
            if let Some(waiting) = state.workers.get_mut(kind) {
                waiting.left.remove(&self.number);
            }
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let mut state = self.board.state();
        for kind in &self.kinds {
            let Some(waiting) = state.workers.get_mut(kind) else { continue };
            waiting.count -= 1;
            // It may have been woken and not looked.
            waiting.wake.notify_one();
            if waiting.count == 0 {
                state.workers.remove(kind);
            }
        }
    }
}
