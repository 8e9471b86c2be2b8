//! A pull at its node. Each reader has a stream of its own to the node, from the tree on: one that went away
//! lost what was on its way, and asks for what it lacks.

use std::time::Duration;

use cortex_core::files::content::ContentId;
use cortex_core::transfer::{Carry, TransferEnd, TreeTold};
use cortex_core::{Code, Refusal};
use tokio::sync::mpsc;

use super::Order;
use super::drive::{Drive, Ended, Tried, cut, send_ask, strange};
use super::shown::Stage;
use crate::mesh::Asked;
use crate::transfer::pace::Pace;
use crate::transfer::pull::{Frame, Giving, Pull, Reader};
use crate::transfer::{Receiving, Sending, TransferStream};

/// What became of one reader.
enum Read {
    /// The pull is over.
    Ended(Ended),
    /// The reader is gone, or was told to come again.
    Gone,
}

impl Drive {
    /// Serves one reader after the other, until one has all.
    pub(super) async fn pull(&self, pull: &Pull) -> Ended {
        loop {
            let patience = self.inner.patience().reader;
            let reader = tokio::select! {
                reader = pull.reader() => reader,
                () = pull.taken() => return Ended::Over(Box::default()),
                () = tokio::time::sleep(patience) => {
                    let message = format!("Nobody read the pull for {} s.", patience.as_secs());
                    return Ended::Refused(Refusal::new(Code::Timeout, message).hint("Pull again."));
                }
            };
            if let Read::Ended(ended) = self.serve(pull, reader).await {
                return ended;
            }
            self.transfer.stage(self.seat, Stage::Queued);
        }
    }

    async fn serve(&self, pull: &Pull, reader: Reader) -> Read {
        let (giving, wants) = reader.split();
        let patience = self.inner.patience().caller;
        let tried = tokio::select! {
            tried = self.read_once(&giving, wants, pull) => tried,
            () = giving.gone() => {
                self.place.cancel();
                return Read::Gone;
            }
        };
        let (end, read) = match tried {
            Tried::Ended(Ended::Over(end)) => (Ok(()), Read::Ended(Ended::Over(end))),
            Tried::Ended(Ended::InSync(end)) => (Ok(()), Read::Ended(Ended::InSync(end))),
            Tried::Ended(Ended::Refused(refusal)) => {
                self.place.cancel();
                (Err(refusal.clone()), Read::Ended(Ended::Refused(refusal)))
            }
            Tried::Ended(Ended::Cancelled(refusal)) => {
                (Err(refusal.clone()), Read::Ended(Ended::Cancelled(refusal)))
            }
            Tried::Lost(refusal) => (Err(refusal), Read::Gone),
        };
        // One that stands still hears it from the view.
        let _told =
            tokio::time::timeout(patience.min(Duration::from_secs(5)), giving.give(Frame::End(end))).await;
        read
    }

    async fn read_once(&self, giving: &Giving, wants: mpsc::Receiver<Vec<ContentId>>, pull: &Pull) -> Tried {
        let Order::Pull(order) = &self.transfer.order else {
            return Refusal::new(Code::Internal, "A push was taken for a pull.").into();
        };
        let _turn = self.inner.turn(self.node.id).await;
        let stream = match self.ask(send_ask(order)).await {
            Ok(Asked::Stream(stream)) => stream,
            Ok(Asked::Over(_)) => return strange(),
            Err(refusal) => return refusal.into(),
        };
        let TransferStream { sending, receiving } = stream;
        let mut told = None;
        let tried = tokio::select! {
            tried = self.hand_on(receiving, giving, Pace::new(order.rate_max), &mut told) => tried,
            refusal = pass_wants(&sending, wants) => refusal.into(),
            () = pull.taken() => Tried::Ended(Ended::Over(Box::default())),
        };
        if let Tried::Ended(Ended::Over(end)) = &tried {
            let end = TransferEnd { root: told.map(|told: TreeTold| told.root), ..TransferEnd::clone(end) };
            // One that is gone has it from the view.
            let _told = sending.send(Carry::End(Box::new(end.clone()))).await;
            return Tried::Ended(Ended::Over(Box::new(end)));
        }
        tried
    }

    /// What the node sends goes to the reader, at its pace.
    async fn hand_on(
        &self,
        mut receiving: Receiving,
        giving: &Giving,
        mut pace: Pace,
        told: &mut Option<TreeTold>,
    ) -> Tried {
        let patience = self.inner.patience().caller;
        loop {
            let carry = match receiving.recv().await {
                Ok(Some(carry)) => carry,
                Ok(None) => return cut(),
                // It waits for the reader to ask for more.
                Err(idle) if idle.code == Code::Timeout && told.is_some() => continue,
                Err(refusal) => return refusal.into(),
            };
            let frame = match (carry, &told) {
                (Carry::Tree(tree), None) => {
                    self.transfer.tree(self.seat, &tree);
                    self.transfer.stage(self.seat, Stage::Moving);
                    *told = Some(tree);
                    Frame::Tree(tree)
                }
                (Carry::Progress(_), _) => continue,
                (Carry::Refused(refusal), _) => return refusal.into(),
                (Carry::Held(notes), Some(_)) => Frame::Held(notes),
                (Carry::Missing(ids), Some(_)) => Frame::Missing(ids),
                (Carry::Pack(bytes), Some(_)) => {
                    let len = bytes.len();
                    pace.take(len).await;
                    self.transfer.moved(self.seat, len as u64, len as u64);
                    Frame::Pack(bytes)
                }
                (
                    Carry::Tree(_)
                    | Carry::Held(_)
                    | Carry::Missing(_)
                    | Carry::Pack(_)
                    | Carry::Wants(_)
                    | Carry::End(_)
                    | Carry::Data(_)
                    | Carry::DataEnd(_),
                    _,
                ) => return strange(),
            };
            match tokio::time::timeout(patience, giving.give(frame)).await {
                Ok(true) => {}
                // Whoever serves it sees that it is gone.
                Ok(false) => std::future::pending().await,
                Err(_stalled) => {
                    let message = format!("The reader took nothing for {} s.", patience.as_secs());
                    let refusal = Refusal::new(Code::Conflict, message);
                    return Tried::Ended(Ended::Refused(refusal.hint("Pull again, and read what comes.")));
                }
            }
        }
    }
}

/// What the reader asks for goes to the node. Ends when nothing more can be said to it.
async fn pass_wants(sending: &Sending, mut wants: mpsc::Receiver<Vec<ContentId>>) -> Refusal {
    while let Some(ids) = wants.recv().await {
        if let Err(refusal) = sending.send(Carry::Wants(ids)).await {
            return refusal;
        }
    }
    // The reader was displaced, which whoever serves it sees.
    std::future::pending().await
}
