//! A transfer at one node, from its turn to its end: asks the node, again when its connection broke, and
//! moves content between it and its caller.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use cortex_core::event::{Event, EventKind};
use cortex_core::id::Revision;
use cortex_core::limits::TRANSFER_MS_MAX;
use cortex_core::node::Node;
use cortex_core::sync::{DeleteLimits, Mode, Push as PushMode};
use cortex_core::transfer::{ApplyAsk, Carry, Noted, SendAsk, TransferAsk, TransferEnd, TransferWork};
use cortex_core::workspace::Quoted;
use cortex_core::{Code, Refusal};
use cortex_store::Tx;
use futures::FutureExt as _;
use tokio::time::Instant;

use super::open::{Content, Transfer};
use super::shown::Stage;
use super::{Asking, Inner, Order};
use crate::mesh::{Asked, MovingPlace, Wish, Wishing};
use crate::service::Caller;
use crate::service::outcome::write_surely;
use crate::service::standing::{Place, Standing};
use crate::transfer::pace::Pace;
use crate::transfer::push::{Give, Push};
use crate::transfer::{Receiving, Sending, TransferStream};

/// The first and the longest pause before a node is asked again.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// A transfer at one node.
pub(super) struct Drive {
    pub(super) inner: Arc<Inner>,
    pub(super) transfer: Arc<Transfer>,
    pub(super) seat: usize,
    pub(super) node: Arc<Node>,
    pub(super) place: MovingPlace,
    pub(super) caller: Caller,
    pub(super) asking: Asking,
}

/// How it ended.
pub(super) enum Ended {
    /// The node says so.
    Over(Box<TransferEnd>),
    /// The node had nothing to do.
    InSync(Box<TransferEnd>),
    /// The node, or the hub, refused it.
    Refused(Refusal),
    /// Its caller ended it.
    Cancelled(Refusal),
}

/// What became of one try.
pub(super) enum Tried {
    /// It ended.
    Ended(Ended),
    /// The connection broke.
    Lost(Refusal),
}

impl From<Refusal> for Tried {
    fn from(refusal: Refusal) -> Self {
        // The node, or what leads to it: it may be there again in a moment.
        let is_lost = matches!(refusal.code, Code::NodeOffline | Code::HubUnreachable | Code::Timeout);
        if is_lost { Self::Lost(refusal) } else { Self::Ended(Ended::Refused(refusal)) }
    }
}

impl Drive {
    /// Drives it to its end, and tells that.
    pub(super) async fn run(self, wishing: Wishing) {
        let (inner, transfer, seat) = (Arc::clone(&self.inner), Arc::clone(&self.transfer), self.seat);
        let ended = AssertUnwindSafe(self.to_its_end(wishing)).catch_unwind().await;
        let ended = ended.unwrap_or_else(|_panic| {
            Ended::Refused(Refusal::new(Code::Internal, "The transfer met a defect of the hub."))
        });
        // Whoever is told of the end finds nothing of it here any more.
        drop(self.place);
        let (stage, result) = match ended {
            Ended::Over(end) => (stage_of(&end), Ok(end)),
            Ended::InSync(end) => (if end.halt.is_some() { Stage::Halted } else { Stage::InSync }, Ok(end)),
            Ended::Refused(refusal) => (Stage::Failed, Err(refusal)),
            Ended::Cancelled(refusal) => (Stage::Cancelled, Err(refusal)),
        };
        inner.end_row(&transfer, seat, stage, result).await;
        inner.tell_ended(&transfer, &self.node, stage).await;
    }

    async fn to_its_end(&self, mut wishing: Wishing) -> Ended {
        let right = self.transfer.order.right();
        let standing = Standing::new(&self.inner.context, &self.caller, right, Place::On(self.node.id));
        let wished = async {
            loop {
                match wishing.wish().await {
                    Wish::End(refusal) => return refusal,
                    Wish::Look => {
                        let judged = self.judged();
                        if let Err(refusal) = judged.map_err(Tried::from)
                            && let Tried::Ended(Ended::Refused(refusal)) = refusal
                        {
                            return refusal;
                        }
                    }
                }
            }
        };
        let late = Duration::from_millis(TRANSFER_MS_MAX);
        let stopped = tokio::select! {
            ended = self.content() => return ended,
            stop = self.transfer.stopped() => {
                if stop.is_cancelled { Ended::Cancelled(stop.why) } else { Ended::Refused(stop.why) }
            }
            refusal = wished => Ended::Refused(refusal),
            refusal = standing.ended() => Ended::Refused(refusal),
            () = tokio::time::sleep(late) => {
                let message = "The transfer did not end in a day; what was put stays.";
                Ended::Refused(Refusal::new(Code::Timeout, message))
            }
        };
        // What the node has of it ends with that.
        self.place.cancel();
        stopped
    }

    async fn content(&self) -> Ended {
        match &self.transfer.content {
            Content::Push(push) => self.push(&Arc::clone(push)).await,
            Content::Pull(pull) => self.pull(&Arc::clone(pull)).await,
        }
    }

    async fn push(&self, push: &Push) -> Ended {
        let patience = self.inner.patience().node;
        let (mut since, mut pause) = (Instant::now(), RETRY.0);
        loop {
            let moved = self.moved();
            let turn = self.inner.turn(self.node.id).await;
            let tried = self.push_once(push).await;
            drop(turn);
            let why = match tried {
                Tried::Ended(ended) => return ended,
                Tried::Lost(why) => why,
            };
            tracing::debug!(transfer = %self.transfer.id, node = %self.node.name, code = %why.code, "lost");
            push.leave(self.seat);
            self.transfer.stage(self.seat, Stage::Queued);
            if self.moved() > moved {
                (since, pause) = (Instant::now(), RETRY.0);
            }
            loop {
                if since.elapsed() >= patience {
                    return Ended::Refused(why);
                }
                tokio::time::sleep(pause.min(patience)).await;
                pause = (pause * 2).min(RETRY.1);
                if self.inner.mesh.presence(self.node.id).is_some() {
                    break;
                }
            }
        }
    }

    fn moved(&self) -> u64 {
        self.transfer.wire_bytes(self.seat)
    }

    async fn push_once(&self, push: &Push) -> Tried {
        let Order::Push(order) = &self.transfer.order else {
            return Refusal::new(Code::Internal, "A pull was taken for a push.").into();
        };
        // Of what was pushed there before, the folder knows itself.
        let mode = PushMode { first: true, force: order.force, delete: order.delete };
        let work = TransferWork::Apply(Box::new(ApplyAsk {
            dest: order.dest.clone(),
            only: order.only.clone(),
            target: order.root,
            base: None,
            mode: Mode::Push(mode),
            limits: DeleteLimits::default(),
            accepted: order.accept,
            filters: order.filters.clone(),
            checksum: order.checksum,
            dry_run: order.dry_run,
            read_only: false,
            node_name: self.node.name.to_string(),
            revision: Revision(0),
            identity: None,
        }));
        let stream = match self.ask(work).await {
            Ok(Asked::Stream(stream)) => stream,
            Ok(Asked::Over(end)) => return Tried::Ended(Ended::InSync(end)),
            Err(refusal) => return refusal.into(),
        };
        let TransferStream { sending, receiving } = stream;
        let tried = tokio::select! {
            tried = self.take_wants(push, receiving) => tried,
            refusal = self.give_packs(push, &sending, Pace::new(order.rate_max)) => refusal.into(),
        };
        if let Tried::Ended(Ended::Refused(refusal)) = &tried {
            sending.refuse(refusal.clone()).await;
        }
        tried
    }

    /// Asks the node, as the policy allows it at this moment.
    pub(super) async fn ask(&self, work: TransferWork) -> Result<Asked, Refusal> {
        let (inner, id) = (&self.inner, self.node.id);
        let lock = self.judged()?;
        if let Some(lock) = lock {
            inner.context.directory.folders().used(lock, inner.context.clock.now());
        }
        let opening = inner.mesh.ticket(id)?;
        self.transfer.stage(self.seat, Stage::Scanning);
        let ask = TransferAsk {
            id: self.transfer.id,
            ticket: opening.ticket(),
            work,
            caller: self.caller.actor(),
            policy_revision: inner.context.directory.policy(id, self.node.joined_at).revision,
            attempt: self.asking.attempt,
            lock: lock.map(|lock| (lock.workspace, lock.epoch)),
            deadline_ms: TRANSFER_MS_MAX,
            traceparent: self.asking.traceparent.clone(),
        };
        self.place.ask(ask, opening).await
    }

    /// Whether it may be done at this moment, and under which lock of a workspace.
    fn judged(&self) -> Result<Option<Quoted>, Refusal> {
        let (caller, order) = (&self.caller, &self.transfer.order);
        self.inner.judge(caller, &self.node, order)?;
        self.inner.under_lock(caller, &self.node, order, self.asking.lock)
    }

    async fn take_wants(&self, push: &Push, mut receiving: Receiving) -> Tried {
        loop {
            let carry = match receiving.recv().await {
                Ok(Some(carry)) => carry,
                Ok(None) => return cut(),
                // It waits for what its caller has not sent; that is watched over by itself.
                Err(idle) if idle.code == Code::Timeout && push.open(self.seat) > 0 => continue,
                Err(refusal) => return refusal.into(),
            };
            match carry {
                Carry::Wants(ids) => {
                    self.transfer.stage(self.seat, Stage::Moving);
                    if let Err(refusal) = push.want(self.seat, &ids) {
                        return Tried::Ended(Ended::Refused(refusal));
                    }
                }
                Carry::Progress(progress) => {
                    self.transfer.progress(self.seat, progress);
                }
                Carry::End(end) => return Tried::Ended(Ended::Over(end)),
                Carry::Refused(refusal) => return refusal.into(),
                Carry::Tree(_)
                | Carry::Held(_)
                | Carry::Pack(_)
                | Carry::Missing(_)
                | Carry::Data(_)
                | Carry::DataEnd(_) => return strange(),
            }
        }
    }

    /// Ends when nothing more can be given.
    async fn give_packs(&self, push: &Push, sending: &Sending, mut pace: Pace) -> Refusal {
        loop {
            let given = match push.next(self.seat).await {
                Ok(Give::Missing(ids)) => sending.send(Carry::Missing(ids)).await,
                Ok(Give::Pack(mut pack, mut plain)) => {
                    let mut sent = Ok(());
                    while !pack.is_empty() && sent.is_ok() {
                        let piece = pack.split_to(pace.piece().min(pack.len()));
                        let wire = piece.len();
                        pace.take(wire).await;
                        sent = sending.send(Carry::Pack(piece)).await;
                        if sent.is_ok() {
                            self.transfer.moved(self.seat, wire as u64, std::mem::take(&mut plain));
                        }
                    }
                    sent
                }
                Err(refusal) => return refusal,
            };
            if let Err(refusal) = given {
                return refusal;
            }
        }
    }
}

impl Inner {
    /// It ended at a node; with the last one it ends as a whole.
    pub(super) async fn end_row(
        &self,
        transfer: &Arc<Transfer>,
        seat: usize,
        stage: Stage,
        result: Result<Box<TransferEnd>, Refusal>,
    ) {
        if let Content::Push(push) = &transfer.content {
            // Nothing is kept for it.
            push.leave(seat);
        }
        if !transfer.ended(seat, stage, result, self.context.clock.wall()) {
            return;
        }
        match &transfer.content {
            Content::Push(push) => {
                let push = Arc::clone(push);
                // It removes files.
                if tokio::task::spawn_blocking(move || push.close()).await.is_err() {
                    tracing::error!("what a push laid aside was not removed");
                }
            }
            Content::Pull(pull) => pull.close(),
        }
        self.table().end(transfer.id);
    }

    async fn tell_ended(&self, transfer: &Transfer, node: &Node, stage: Stage) {
        let event = || {
            let (actor, detail) =
                (transfer.by.actor.clone(), format!("{} {}", transfer.order.kind().as_str(), stage.as_str()));
            let event = Event::new(EventKind::TransferEnded, self.context.clock.wall()).node(node.id);
            let event = event.actor(actor).subject(transfer.id.to_string()).detail(detail);
            move |tx: &mut dyn Tx| Ok(tx.append_event(&event)?)
        };
        let stop = self.mesh.stopping();
        let _seq = write_surely(&self.context.store, &stop, "the end of a transfer", event).await;
    }

    /// Ends a push whose caller is silent while a node waits for it.
    pub(super) async fn watch(self: Arc<Self>, transfer: Arc<Transfer>) {
        let Content::Push(push) = &transfer.content else { return };
        loop {
            let patience = self.patience().caller;
            tokio::select! {
                () = transfer.over.cancelled() => return,
                () = tokio::time::sleep(patience / 8) => {}
            }
            // A pack that is on its way has bounds of its own.
            let is_sending = super::lock(&self.uploading).contains_key(&transfer.id);
            if !is_sending && push.silence().is_some_and(|silence| silence >= patience) {
                let message = format!("Nothing came of its caller for {} s.", patience.as_secs());
                let why = Refusal::new(Code::Timeout, message)
                    .hint("Push again: what the nodes have is not sent again.");
                transfer.stop(why, false);
            }
        }
    }
}

/// How a push that the node ended is told.
fn stage_of(end: &TransferEnd) -> Stage {
    if end.halt.is_some() {
        Stage::Halted
    } else if end.notes.iter().any(|note| matches!(note.what, Noted::Failed(_))) {
        Stage::Failed
    } else {
        Stage::Done
    }
}

/// The stream ended without an end.
pub(super) fn cut() -> Tried {
    Refusal::new(Code::NodeOffline, "The node ended the transfer without a word.").into()
}

/// A frame that this end is never sent.
pub(super) fn strange() -> Tried {
    Tried::Ended(Ended::Refused(Refusal::new(
        Code::InvalidArgument,
        "The node sent a frame that does not belong to this transfer.",
    )))
}

/// The work of a pull.
pub(super) fn send_ask(order: &super::PullOrder) -> TransferWork {
    TransferWork::Send(Box::new(SendAsk {
        source: order.source.clone(),
        only: None,
        base: None,
        filters: order.filters.clone(),
        checksum: false,
        mark: false,
        identity: None,
    }))
}
