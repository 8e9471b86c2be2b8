//! An import: the one seat of the push is the hub itself, which takes the tree into its chunk store. What is to
//! come of it is made once the tree is whole and durable there, in one step that nothing interrupts; until then
//! nothing but a pin holds what came, and whatever ends the import gives that back.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use cortex_content::graph::TreeQuota;
use cortex_core::limits::{TRANSFER_MS_MAX, TREE_DEPTH_MAX, TREE_ENTRIES_MAX};
use cortex_core::transfer::TransferEnd;
use cortex_core::workspace::Complete;
use cortex_core::{Code, Refusal};
use futures::FutureExt as _;

use super::drive::Ended;
use super::open::{Content, Transfer};
use super::shown::Stage;
use super::{Asking, ImportOrder, Inner, Order, Row, Shown, Transfers, blank};
use crate::service::Caller;
use crate::service::standing::{Place, Standing};
use crate::transfer::chunks::Chunks;
use crate::transfer::keep::{self, Hold};
use crate::transfer::push::Push;

/// The name of the hub among those to whom something is moved.
const HUB: &str = "hub";
const SEAT: usize = 0;

/// Who makes something of a tree.
pub(in crate::service) trait Taker: Send + 'static {
    /// Whether it may be made as things are at this moment: asked before any of the tree is sent.
    fn judge(&self) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Makes it of the tree, which is whole and held until this ends.
    fn make(self, complete: Complete) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// An import under way.
struct Intake<T> {
    inner: Arc<Inner>,
    transfer: Arc<Transfer>,
    push: Arc<Push>,
    order: ImportOrder,
    caller: Caller,
    chunks: Chunks,
    taker: T,
}

impl Transfers {
    /// Begins to take a tree of the caller's into the chunk store, for `taker`. It goes on when the caller goes
    /// away, until content of it is missing for too long. Needs `workspaces:write`.
    ///
    /// # Errors
    /// What the taker refuses; `invalid_argument`, `conflict` for a key of another transfer, `rate_limited` and
    /// `quota` when there are too many.
    pub(in crate::service) async fn import<T: Taker + Sync>(
        &self,
        caller: &Caller,
        order: ImportOrder,
        asking: Asking,
        chunks: &Chunks,
        taker: T,
    ) -> Result<Shown, Refusal> {
        let (inner, by, chunks) = (Arc::clone(&self.0), caller.clone(), chunks.clone());
        self.0.beginning(async move { inner.import(by, order, asking, chunks, taker).await }).await
    }
}

impl Inner {
    async fn import<T: Taker + Sync>(
        self: &Arc<Self>,
        caller: Caller,
        order: ImportOrder,
        asking: Asking,
        chunks: Chunks,
        taker: T,
    ) -> Result<Shown, Refusal> {
        let asked = Order::Import(Box::new(order.clone()));
        if let Some(known) = self.known(&caller, &asked, &asking)? {
            return Ok(known);
        }
        let rows = vec![Row { node: HUB.to_owned(), ..blank(&asked) }];
        let transfer = self.open(&caller, asked, rows, asking.key)?;
        let accepted = taker.judge().await;
        if accepted.is_ok()
            && let Content::Push(push) = &transfer.content
        {
            let push = Arc::clone(push);
            let (inner, transfer) = (Arc::clone(self), Arc::clone(&transfer));
            drop(self.mesh.spawn(Arc::clone(self).watch(Arc::clone(&transfer))));
            let intake = Intake { inner, transfer, push, order, caller, chunks, taker };
            drop(self.mesh.spawn(intake.run()));
        }
        self.begun(&transfer, accepted)
    }
}

impl<T: Taker> Intake<T> {
    /// Takes it to its end, and tells that.
    async fn run(self) {
        let (inner, transfer, push) =
            (Arc::clone(&self.inner), Arc::clone(&self.transfer), Arc::clone(&self.push));
        let ended = AssertUnwindSafe(self.take_in()).catch_unwind().await;
        let ended = ended.unwrap_or_else(|_panic| {
            Ended::Refused(Refusal::new(Code::Internal, "The import met a defect of the hub."))
        });
        push.leave(SEAT);
        let (stage, result) = match ended {
            Ended::Over(end) | Ended::InSync(end) => (Stage::Done, Ok(end)),
            Ended::Refused(refusal) => (Stage::Failed, Err(refusal)),
            Ended::Cancelled(refusal) => (Stage::Cancelled, Err(refusal)),
        };
        if let Err(refusal) = &result {
            tracing::info!(transfer = %transfer.id, code = %refusal.code, "nothing came of an import");
        }
        inner.end_row(&transfer, SEAT, stage, result).await;
    }

    async fn take_in(self) -> Ended {
        let right = self.transfer.order.right();
        let standing = Standing::new(&self.inner.context, &self.caller, right, Place::Somewhere);
        let late = Duration::from_millis(TRANSFER_MS_MAX);
        let received = tokio::select! {
            received = self.receive() => received,
            stop = self.transfer.stopped() => {
                let ended = if stop.is_cancelled { Ended::Cancelled } else { Ended::Refused };
                return ended(stop.why);
            }
            refusal = standing.ended() => Err(refusal),
            () = tokio::time::sleep(late) => {
                Err(Refusal::new(Code::Timeout, "The import did not end in a day; nothing came of it."))
            }
        };
        let (hold, complete) = match received {
            Ok(received) => received,
            Err(refusal) => return Ended::Refused(refusal),
        };
        fail::fail_point!("imports::whole");
        let (root, files, bytes) = (complete.tree(), complete.files(), complete.bytes());
        // It is one transaction, so it is done to its end: whoever cancels it is told that it was over.
        let made = self.taker.make(complete).await;
        fail::fail_point!("imports::made");
        // Until here nothing but the pin held what came.
        drop(hold);
        match made {
            Ok(()) => Ended::Over(Box::new(TransferEnd {
                root: Some(root),
                files,
                bytes,
                ..TransferEnd::default()
            })),
            Err(refusal) => Ended::Refused(refusal),
        }
    }

    /// The tree, whole and durable, with what holds it.
    async fn receive(&self) -> Result<(Hold, Complete), Refusal> {
        let order = keep::Order {
            root: self.order.root,
            quota: TreeQuota {
                entries: u32::try_from(TREE_ENTRIES_MAX).unwrap_or(u32::MAX),
                bytes: self.order.bytes_max,
                depth: TREE_DEPTH_MAX,
            },
            content: keep::Content::All,
            // To know a hash is no way to content: what others brought is asked for all the same.
            scope: Vec::new(),
            is_repeated: false,
        };
        // Nobody closes it.
        let _turn = Arc::clone(&self.inner.running).acquire_owned().await.ok();
        let (hold, root) = (Hold::new(&self.chunks)?, order.root);
        self.transfer.stage(SEAT, Stage::Moving);
        let moved = |wire, plain| self.transfer.moved(SEAT, wire, plain);
        let hold = keep::caller::receive(&self.chunks, order, hold, (&self.push, SEAT), moved).await?;
        self.transfer.stage(SEAT, Stage::Applying);
        let whole = move |chunks: &Chunks| {
            let complete = chunks.whole(root, hold.pin())?;
            Ok((hold, complete))
        };
        self.chunks.run(whole).await
    }
}
