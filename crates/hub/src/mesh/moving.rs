//! Transfers of trees as the mesh knows them: who asked for each, and at which node. So that a lock, a newer
//! attempt of a task, a change of the policy and what the node says of it reach the one who drives it, at
//! any moment from before it is accepted on.

use std::sync::Arc;

use cortex_core::id::{Attempt, NodeId, TaskId, TransferId};
use cortex_core::message::ToNode;
use cortex_core::transfer::{TransferAsk, TransferEnd, TransferNews};
use cortex_core::{Code, Refusal};
use tokio::sync::{oneshot, watch};

use super::files::Asker;
use super::link::Link;
use super::{Inner, Mesh, lock};
use crate::transfer::{Opening, TransferStream};

/// One transfer at one node.
#[derive(Debug)]
pub(super) struct Moving {
    by: Asker,
    wish: watch::Sender<Wishes>,
    /// Who waits for what its node says of it.
    news: Option<oneshot::Sender<Result<Box<TransferEnd>, Refusal>>>,
}

/// What a node made of an ask.
pub(crate) enum Asked {
    /// It opened its stream.
    Stream(TransferStream),
    /// It was over at once.
    Over(Box<TransferEnd>),
}

/// What is wished of it.
#[derive(Clone, Debug, Default)]
struct Wishes {
    end: Option<Refusal>,
    /// How often it was to be judged anew.
    looks: u64,
}

/// What is wished of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Its end, for this reason.
    End(Refusal),
    /// A look at whether it may still be done.
    Look,
}

/// The place of a transfer at one node, for as long as this lives.
pub(crate) struct MovingPlace {
    mesh: Arc<Inner>,
    key: (TransferId, NodeId),
}

/// What is wished of a transfer at one node, as it comes.
#[derive(Debug)]
pub(crate) struct Wishing {
    wish: watch::Receiver<Wishes>,
    looked: u64,
}

impl Mesh {
    /// A place for a transfer at a node, from before it is accepted on. One transfer has one place at each
    /// node.
    pub(crate) fn moving(&self, id: TransferId, by: Asker) -> (MovingPlace, Wishing) {
        let (sender, wish) = watch::channel(Wishes::default());
        let key = (id, by.node);
        lock(&self.inner.moving).insert(key, Moving { by, wish: sender, news: None });
        (MovingPlace { mesh: Arc::clone(&self.inner), key }, Wishing { wish, looked: 0 })
    }

    /// Places of transfers: what must return to its idle count.
    pub fn transfers_moving(&self) -> usize {
        lock(&self.inner.moving).len()
    }

    /// Ends all transfers that `matches` holds for, with its refusal. Returns how many there were. Does not
    /// block.
    pub(crate) fn end_transfers(&self, matches: impl Fn(&Asker) -> Option<Refusal>) -> usize {
        self.inner.end_moving(matches)
    }

    /// The node says of a transfer that there is no stream for it.
    pub(crate) fn transfer_news(&self, link: &Link, news: TransferNews) {
        let waiting = {
            let mut moving = lock(&self.inner.moving);
            moving.get_mut(&(news.id, link.node())).and_then(|moving| moving.news.take())
        };
        // Of one that has its stream, the stream says how it ended.
        if let Some(waiting) = waiting {
            let _heard = waiting.send(news.end);
        }
    }

    /// The policy of a node changed: its transfers are judged anew.
    pub(crate) fn look_at_transfers(&self, node: NodeId) {
        for moving in lock(&self.inner.moving).values().filter(|moving| moving.by.node == node) {
            moving.wish.send_modify(|wish| wish.looks += 1);
        }
    }
}

impl Inner {
    fn end_moving(&self, matches: impl Fn(&Asker) -> Option<Refusal>) -> usize {
        let mut count = 0;
        for moving in lock(&self.moving).values() {
            let Some(refusal) = matches(&moving.by) else { continue };
            count += 1;
            moving.wish.send_modify(|wish| wish.end = wish.end.take().or(Some(refusal)));
        }
        count
    }

    /// Attempts of this task below `lowest` move nothing more.
    pub(super) fn fence_moving(&self, task: TaskId, lowest: Attempt) {
        self.end_moving(|by| {
            let (of, attempt) = by.attempt?;
            (of == task && attempt < lowest).then(|| {
                let message = format!("Attempt {attempt} of task {task} has ended.");
                Refusal::new(Code::StaleAttempt, message).detail("attempt", lowest.to_string())
            })
        });
    }
}

impl MovingPlace {
    /// Asks the node, with the ticket of `opening`, and waits for its stream.
    ///
    /// # Errors
    /// What the node says; `node_offline` when its link ended, `timeout` when it did nothing.
    pub(crate) async fn ask(&self, ask: TransferAsk, opening: Opening) -> Result<Asked, Refusal> {
        let (tell, news) = oneshot::channel();
        if let Some(moving) = lock(&self.mesh.moving).get_mut(&self.key) {
            moving.news = Some(tell);
        }
        self.send(ToNode::TransferAsk(Box::new(ask)));
        let asked = tokio::select! {
            stream = opening.stream() => stream.map(Asked::Stream),
            Ok(end) = news => end.map(Asked::Over),
        };
        if let Some(moving) = lock(&self.mesh.moving).get_mut(&self.key) {
            moving.news = None;
        }
        asked
    }

    /// Nobody wants it at its node any more.
    pub(crate) fn cancel(&self) {
        self.send(ToNode::TransferCancel { id: self.key.0 });
    }

    /// One that is not here is told nothing: with its link its transfers ended.
    fn send(&self, message: ToNode) {
        self.mesh.with_slot(self.key.1, |slot, state| {
            if let Some(link) = &state.link {
                link.send(message);
            }
            self.mesh.act(slot, state);
        });
    }
}

impl Wishing {
    /// What is wished next.
    pub(crate) async fn wish(&mut self) -> Wish {
        loop {
            {
                let wishes = self.wish.borrow_and_update();
                if let Some(end) = &wishes.end {
                    return Wish::End(end.clone());
                }
                if wishes.looks > self.looked {
                    self.looked = wishes.looks;
                    return Wish::Look;
                }
            }
            if self.wish.changed().await.is_err() {
                // The place is given back only when nobody looks any more.
                return Wish::End(Refusal::new(Code::Internal, "The transfer lost its place."));
            }
        }
    }
}

impl Drop for MovingPlace {
    fn drop(&mut self) {
        lock(&self.mesh.moving).remove(&self.key);
    }
}
