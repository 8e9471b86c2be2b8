//! Use cases of transfers: a tree from a caller to folders of nodes (push), a folder of a node to a caller
//! (pull), a tree from a caller to the hub (import).
//!
//! Each node is judged, and written in the audit log, before it is asked; one that is refused or away is told
//! as such, and the others go on. A node is asked for a transfer until it has an end, also when its
//! connection breaks in between: what it has is not moved again. Transfers live in memory: a hub that ends
//! forgets them, and whoever asks again loses nothing of what nodes have.
//!
//! Content is looked into by nobody here (`transfer::push`, `transfer::pull`).

mod accept;
mod drive;
mod import;
mod open;
mod order;
mod reading;
mod shown;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cortex_core::files::content::ContentId;
use cortex_core::id::{Attempt, LockEpoch, NodeId, TaskId, TransferId};
use cortex_core::limits::{
    IDEMPOTENCY_KEY_BYTES_MAX, TRANSFER_CALLER_MS, TRANSFER_PATIENCE_MS, TRANSFER_READER_MS,
    TRANSFERS_RUNNING_MAX, TRANSFERS_RUNNING_PER_NODE_MAX,
};
use cortex_core::node::Node;
use cortex_core::rights::Right;
use cortex_core::transfer::LeftOut;
use cortex_core::{Code, Refusal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Caller, Context, targets};
use crate::clock::new_transfer_id;
use crate::mesh::Mesh;
use crate::metrics::Metrics;
use crate::transfer::io::{Io, THREADS};
use crate::transfer::pull::{Frame, Pull};
use crate::transfer::push::Push;
use crate::transfer::spool::{self, Memory};

pub(in crate::service) use import::Taker;
use open::{By, Content, Transfer};
pub use order::{ImportOrder, Order, PullOrder, PushOrder, Targets};
pub use shown::{Kind, Row, Shown, Stage, Standing};
use table::Table;

/// Packs that are being received at once by the hub; more callers wait before their body is read.
const UPLOADS_MAX: usize = 32;
/// The same of one transfer.
const UPLOADS_PER_TRANSFER_MAX: usize = 2;

/// The use cases. Cheap to clone.
#[derive(Clone)]
pub struct Transfers(Arc<Inner>);

struct Inner {
    context: Context,
    mesh: Mesh,
    metrics: Metrics,
    io: Io,
    memory: Memory,
    folder: PathBuf,
    table: Mutex<Table>,
    running: Arc<Semaphore>,
    /// Turns of each node.
    turns: Mutex<BTreeMap<NodeId, Arc<Semaphore>>>,
    uploads: Arc<Semaphore>,
    uploading: Mutex<BTreeMap<TransferId, usize>>,
    patience: Mutex<Patience>,
}

/// How long is waited for whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For a caller that owes content.
    pub(crate) caller: Duration,
    /// For a node that went away.
    pub(crate) node: Duration,
    /// For somebody who reads a pull.
    pub(crate) reader: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            caller: Duration::from_millis(TRANSFER_CALLER_MS),
            node: Duration::from_millis(TRANSFER_PATIENCE_MS),
            reader: Duration::from_millis(TRANSFER_READER_MS),
        }
    }
}

/// What belongs to a request beside what it asks for.
#[derive(Clone, Debug, Default)]
pub struct Asking {
    /// The caller's key: the same key is the same transfer.
    pub key: Option<String>,
    /// The attempt of a task for which it is done.
    pub attempt: Option<(TaskId, Attempt)>,
    /// The number of the lock of a workspace that the caller says to hold.
    pub lock: Option<LockEpoch>,
    /// W3C traceparent.
    pub traceparent: Option<String>,
}

/// What a push wants next of its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// How the push stands.
    pub standing: Standing,
    /// These, in this order.
    pub ids: Vec<ContentId>,
}

/// Leave to send one pack.
pub struct Upload {
    transfer: Arc<Transfer>,
    push: Arc<Push>,
    _place: OwnedSemaphorePermit,
    _counted: Counted,
}

impl Transfers {
    /// The use cases over `mesh`. What pushes have to lay aside lies below `data_dir`; what a hub before
    /// left there is removed. Blocks.
    ///
    /// # Errors
    /// `bad_config` when that folder cannot be removed, `internal` when the system starts no thread.
    pub fn open(context: Context, mesh: Mesh, metrics: Metrics, data_dir: &Path) -> Result<Self, Refusal> {
        let folder = data_dir.join("transfers");
        spool::clear(&folder).map_err(|error| {
            let message = format!("{} cannot be removed: {error}.", folder.display());
            Refusal::new(Code::BadConfig, message)
                .hint("Remove it, or choose a directory that can be written with `--data-dir`.")
        })?;
        let io = Io::start(THREADS).map_err(|error| {
            Refusal::new(Code::Internal, format!("The system starts no thread: {error}."))
        })?;
        Ok(Self(Arc::new(Inner {
            context,
            mesh,
            metrics,
            io,
            memory: Memory::default(),
            folder,
            table: Mutex::default(),
            running: Arc::new(Semaphore::new(TRANSFERS_RUNNING_MAX)),
            turns: Mutex::default(),
            uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
            uploading: Mutex::default(),
            patience: Mutex::default(),
        })))
    }

    /// Begins a transfer, with `files:write` on each node of a push, and `files:read` on that of a pull. Who has
    /// it nowhere is refused; what is refused at one node is told there. It goes on when the caller goes away,
    /// until content of it is missing for too long.
    ///
    /// # Errors
    /// `forbidden`; `invalid_argument`, `too_large` for what cannot be asked for; `node_not_found` when no node
    /// has the labels; `conflict` for a key of another transfer; `rate_limited` and `quota` when there are too
    /// many; `store_unavailable`.
    pub async fn begin(&self, caller: &Caller, order: Order, asking: Asking) -> Result<Shown, Refusal> {
        caller.anywhere(order.right())?;
        let (inner, by) = (Arc::clone(&self.0), caller.clone());
        self.0.beginning(async move { inner.begin(&by, order, asking).await }).await
    }

    /// How a transfer stands; with `after` once that is newer, or `wait` is over. To be asked by its own
    /// caller, and by those who may lock anybody.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn get(
        &self,
        caller: &Caller,
        id: TransferId,
        after: Option<u64>,
        wait: Duration,
    ) -> Result<Shown, Refusal> {
        let transfer = self.0.seen(caller, id)?;
        if let Some(after) = after {
            // Whatever is told then.
            let _late = tokio::time::timeout(wait, transfer.news(after)).await;
        }
        Ok(transfer.shown())
    }

    /// The newest `limit` of those that the caller may know of, from behind `before` on.
    pub fn list(&self, caller: &Caller, limit: usize, before: Option<TransferId>) -> Vec<Shown> {
        let mut table = self.0.table();
        table.prune();
        let all = table.all(before);
        drop(table);
        let seen = all.into_iter().filter(|transfer| sees(caller, transfer));
        seen.take(limit).map(|transfer| transfer.shown()).collect()
    }

    /// Ends a transfer of the caller's. What was put stays.
    ///
    /// # Errors
    /// `not_found`, `forbidden` for another's.
    pub async fn cancel(&self, caller: &Caller, id: TransferId) -> Result<Shown, Refusal> {
        let transfer = self.0.own(caller, id)?;
        let why = Refusal::new(Code::Conflict, "The transfer was cancelled; what was put stays.")
            .hint("Ask again: what is there is not moved again.");
        transfer.stop(why, true);
        // Each of its tasks hears of it at once.
        let _late = tokio::time::timeout(Duration::from_secs(5), transfer.over.cancelled()).await;
        Ok(transfer.shown())
    }

    /// What a push wants next; waits until there is something, it is over, or `wait` is. `again`: the caller
    /// lost what it was asked for.
    ///
    /// # Errors
    /// `not_found`, `forbidden` for another's, `invalid_argument` of a pull.
    pub async fn wants(
        &self,
        caller: &Caller,
        id: TransferId,
        again: bool,
        wait: Duration,
    ) -> Result<Wanted, Refusal> {
        let (transfer, push) = self.0.push(caller, id)?;
        let ids = tokio::select! {
            () = transfer.over.cancelled() => Vec::new(),
            ids = push.wants(again, wait) => ids,
        };
        Ok(Wanted { standing: transfer.standing(), ids })
    }

    /// Leave to send a pack of a push; waits while others send.
    ///
    /// # Errors
    /// `not_found`, `forbidden` for another's, `invalid_argument` of a pull, `rate_limited` when two packs
    /// of it are on their way.
    pub async fn upload(&self, caller: &Caller, id: TransferId) -> Result<Upload, Refusal> {
        let (transfer, push) = self.0.push(caller, id)?;
        let counted = Counted::one(&self.0, id)?;
        let closed = || Refusal::new(Code::HubUnreachable, "The hub stops.");
        let place = Arc::clone(&self.0.uploads).acquire_owned().await.map_err(|_| closed())?;
        Ok(Upload { transfer, push, _place: place, _counted: counted })
    }

    /// The caller of a push cannot give these.
    ///
    /// # Errors
    /// `not_found`, `forbidden` for another's, `invalid_argument` of a pull.
    pub fn missing(&self, caller: &Caller, id: TransferId, ids: &[ContentId]) -> Result<Standing, Refusal> {
        let (transfer, push) = self.0.push(caller, id)?;
        push.missing(ids);
        Ok(transfer.standing())
    }

    /// What comes of a pull, from its tree on. Whoever read it before is cut off.
    ///
    /// # Errors
    /// `not_found`, `forbidden` for another's, `invalid_argument` of a push, and why it ended when it has.
    pub(crate) fn read(&self, caller: &Caller, id: TransferId) -> Result<mpsc::Receiver<Frame>, Refusal> {
        let (transfer, pull) = self.0.pull(caller, id)?;
        if transfer.standing() != Standing::Open {
            let row = transfer.shown().rows.pop();
            return Err(row.and_then(|row| row.error).unwrap_or_else(over));
        }
        Ok(pull.read())
    }

    /// The reader of a pull asks for these.
    ///
    /// # Errors
    /// `not_found`, `forbidden` for another's, `invalid_argument` of a push, `conflict` when nobody reads,
    /// `rate_limited` when what was asked for is not read.
    pub async fn ask(
        &self,
        caller: &Caller,
        id: TransferId,
        ids: Vec<ContentId>,
        wait: Duration,
    ) -> Result<Standing, Refusal> {
        let (transfer, pull) = self.0.pull(caller, id)?;
        if !ids.is_empty() && transfer.standing() == Standing::Open {
            pull.ask(ids, wait).await?;
        }
        Ok(transfer.standing())
    }

    /// The reader of a pull has all.
    ///
    /// # Errors
    /// `not_found`, `forbidden` for another's, `invalid_argument` of a push.
    pub async fn taken(&self, caller: &Caller, id: TransferId) -> Result<Shown, Refusal> {
        let (transfer, pull) = self.0.pull(caller, id)?;
        pull.finish();
        let _late = tokio::time::timeout(Duration::from_secs(5), transfer.over.cancelled()).await;
        Ok(transfer.shown())
    }

    /// The threads for bulk content.
    pub(crate) fn io(&self) -> Io {
        self.0.io.clone()
    }

    /// A turn to work with a node, in turn with pushes and pulls.
    pub(crate) async fn turn(&self, node: NodeId) -> impl Send + use<> {
        self.0.turn(node).await
    }

    /// Ends what is open, since the hub stops, and takes nothing more on.
    pub fn stop(&self) {
        for transfer in self.0.table().stop() {
            let why = Refusal::new(Code::HubUnreachable, "The hub stopped before the transfer was over.")
                .hint("Ask again once it is back: what is there is not moved again.");
            transfer.stop(why, false);
        }
    }

    /// Transfers that are open.
    pub fn open_count(&self) -> usize {
        self.0.table().open_count()
    }

    /// Bytes of packs that are held in memory.
    pub fn memory_bytes(&self) -> usize {
        self.0.memory.held()
    }

    #[cfg(test)]
    pub(crate) fn set_patience(&self, patience: Patience) {
        *lock(&self.0.patience) = patience;
    }

    /// Turns that are taken, and uploads.
    #[cfg(test)]
    pub(crate) fn busy(&self) -> usize {
        let turns = TRANSFERS_RUNNING_MAX - self.0.running.available_permits();
        let uploads = UPLOADS_MAX - self.0.uploads.available_permits();
        turns + uploads + lock(&self.0.turns).len() + lock(&self.0.uploading).len()
    }
}

impl Upload {
    /// Takes the pack in. Of one that nobody wants nothing is kept.
    ///
    /// # Errors
    /// `invalid_argument` for what is no pack, `no_space` when the hub's disk is full.
    pub async fn take(self, pack: Bytes) -> Result<Standing, Refusal> {
        if self.transfer.standing() == Standing::Open {
            self.push.take(pack).await?;
        }
        Ok(self.transfer.standing())
    }
}

/// One pack on its way.
struct Counted {
    inner: Arc<Inner>,
    id: TransferId,
}

impl Counted {
    fn one(inner: &Arc<Inner>, id: TransferId) -> Result<Self, Refusal> {
        let mut uploading = lock(&inner.uploading);
        let count = uploading.entry(id).or_default();
        if *count >= UPLOADS_PER_TRANSFER_MAX {
            let message = format!("{UPLOADS_PER_TRANSFER_MAX} packs of the transfer are on their way.");
            return Err(Refusal::new(Code::RateLimited, message).hint("Send one when another was taken."));
        }
        *count += 1;
        drop(uploading);
        Ok(Self { inner: Arc::clone(inner), id })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut uploading = lock(&self.inner.uploading);
        if let Some(count) = uploading.get_mut(&self.id) {
            *count -= 1;
        }
        uploading.retain(|_, count| *count > 0);
    }
}

impl Inner {
    async fn begin(
        self: &Arc<Self>,
        caller: &Caller,
        order: Order,
        asking: Asking,
    ) -> Result<Shown, Refusal> {
        if let Some(known) = self.known(caller, &order, &asking)? {
            return Ok(known);
        }
        let found = self.targets(caller, &order)?;
        let rows: Vec<Row> = found.iter().map(|target| row(target, &order)).collect();
        let transfer = self.open(caller, order, rows, asking.key.clone())?;
        let nodes = found.into_iter().enumerate();
        let nodes: Vec<(usize, Arc<Node>)> =
            nodes.filter_map(|(seat, (_, found))| Some((seat, found.ok()?))).collect();
        let accepted = self.accept(caller, &transfer, nodes, asking).await;
        self.begun(&transfer, accepted)
    }

    /// Begins a transfer in a task of its own: a caller who goes away leaves none that was accepted and not begun.
    async fn beginning(
        &self,
        begin: impl Future<Output = Result<Shown, Refusal>> + Send + 'static,
    ) -> Result<Shown, Refusal> {
        self.mesh.spawn(begin).await.unwrap_or_else(|error| {
            tracing::error!(%error, "beginning a transfer failed");
            Err(Refusal::new(Code::Internal, "Beginning the transfer failed."))
        })
    }

    /// What the caller began with the same key; whether the order may be given at all.
    fn known(&self, caller: &Caller, order: &Order, asking: &Asking) -> Result<Option<Shown>, Refusal> {
        order.check()?;
        let Some(key) = &asking.key else { return Ok(None) };
        if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX {
            let message = format!("The idempotency key must have 1 to {IDEMPOTENCY_KEY_BYTES_MAX} bytes.");
            return Err(Refusal::new(Code::InvalidArgument, message));
        }
        Ok(self.table().known(caller.token.id, key, order)?.map(|known| known.shown()))
    }

    /// A transfer of which something is told from here on.
    fn open(
        &self,
        caller: &Caller,
        order: Order,
        rows: Vec<Row>,
        key: Option<String>,
    ) -> Result<Arc<Transfer>, Refusal> {
        let id = new_transfer_id(&self.context.clock);
        let content = match order.kind() {
            Kind::Push | Kind::Import => {
                let folder = self.folder.join(id.to_string());
                Content::Push(Arc::new(Push::new(rows.len(), folder, self.io.lane(), self.memory.clone())))
            }
            Kind::Pull => Content::Pull(Arc::default()),
        };
        let (by, now) = (By::of(caller), self.context.clock.wall());
        let transfer = Transfer::new(id, by, now, (order, content), rows, self.metrics.clone());
        let transfer = Arc::new(transfer);
        let opened = {
            let mut table = self.table();
            table.prune();
            table.open(&transfer, key)
        };
        match opened {
            Ok(()) => Ok(transfer),
            Err(refusal) => {
                transfer.withdraw();
                Err(refusal)
            }
        }
    }

    /// How it stands once it was accepted; nothing is told of one that was not.
    fn begun(&self, transfer: &Transfer, accepted: Result<(), Refusal>) -> Result<Shown, Refusal> {
        if let Err(refusal) = accepted {
            self.table().forget(transfer.id);
            transfer.withdraw();
            return Err(refusal);
        }
        Ok(transfer.shown())
    }

    /// Who is named, each once.
    fn targets(&self, caller: &Caller, order: &Order) -> Result<Vec<Target>, Refusal> {
        let directory = &self.context.directory;
        let named = |names: &[String]| {
            targets::check_count(names.len())?;
            Ok(targets::named(directory, caller, names))
        };
        match order {
            Order::Import(_) => Err(Refusal::new(Code::Internal, "An import was taken for a push.")),
            Order::Pull(pull) => named(std::slice::from_ref(&pull.node)),
            Order::Push(push) => match &push.targets {
                Targets::Named(names) => named(names),
                Targets::Labelled(labels) => {
                    // One that is away is told as such: whoever means all of them is not to miss it.
                    let all = targets::selected(directory, caller, order.right(), labels, |_| true)?;
                    targets::check_count(all.len())?;
                    Ok(all.into_iter().map(|node| (node.name.to_string(), Ok(node))).collect())
                }
            },
        }
    }

    fn seen(&self, caller: &Caller, id: TransferId) -> Result<Arc<Transfer>, Refusal> {
        let mut table = self.table();
        table.prune();
        table.get(id).filter(|transfer| sees(caller, transfer)).ok_or_else(|| unknown(id))
    }

    fn own(&self, caller: &Caller, id: TransferId) -> Result<Arc<Transfer>, Refusal> {
        let transfer = self.seen(caller, id)?;
        if transfer.by.is(caller) {
            return Ok(transfer);
        }
        Err(Refusal::new(Code::Forbidden, format!("Transfer {id} is of `{}`.", transfer.by.actor))
            .hint("Lock its token to end it: `cortex lock token:NAME`."))
    }

    fn push(&self, caller: &Caller, id: TransferId) -> Result<(Arc<Transfer>, Arc<Push>), Refusal> {
        let transfer = self.own(caller, id)?;
        match &transfer.content {
            Content::Push(push) => {
                let push = Arc::clone(push);
                Ok((transfer, push))
            }
            Content::Pull(_) => Err(Refusal::new(Code::InvalidArgument, format!("Transfer {id} is a pull."))
                .hint("Read its `content`.")),
        }
    }

    fn pull(&self, caller: &Caller, id: TransferId) -> Result<(Arc<Transfer>, Arc<Pull>), Refusal> {
        let transfer = self.own(caller, id)?;
        match &transfer.content {
            Content::Pull(pull) => {
                let pull = Arc::clone(pull);
                Ok((transfer, pull))
            }
            Content::Push(_) => Err(Refusal::new(Code::InvalidArgument, format!("Transfer {id} is a push."))
                .hint("Ask for its `wants`, and send `packs`.")),
        }
    }

    /// A turn to work with a node, for as long as it is held. Those of one node come in order, and only
    /// then have a part in the turns of the hub.
    async fn turn(self: &Arc<Self>, node: NodeId) -> Turn {
        let own = {
            let mut turns = lock(&self.turns);
            let new = || Arc::new(Semaphore::new(TRANSFERS_RUNNING_PER_NODE_MAX));
            Arc::clone(turns.entry(node).or_insert_with(new))
        };
        let cleared = Cleared { inner: Arc::clone(self), node };
        // Nobody closes them.
        let of_node = own.acquire_owned().await.ok();
        let of_hub = Arc::clone(&self.running).acquire_owned().await.ok();
        Turn { _of_hub: of_hub, _of_node: of_node, _cleared: cleared }
    }

    fn patience(&self) -> Patience {
        *lock(&self.patience)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }
}

/// A turn to work with a node.
struct Turn {
    _of_hub: Option<OwnedSemaphorePermit>,
    _of_node: Option<OwnedSemaphorePermit>,
    /// Last: nothing is held by then.
    _cleared: Cleared,
}

/// Forgets the turns of a node that nobody has or waits for.
struct Cleared {
    inner: Arc<Inner>,
    node: NodeId,
}

impl Drop for Cleared {
    fn drop(&mut self) {
        let mut turns = lock(&self.inner.turns);
        if turns.get(&self.node).is_some_and(|of_node| Arc::strong_count(of_node) == 1) {
            turns.remove(&self.node);
        }
    }
}

/// What was named, and what it is.
type Target = (String, Result<Arc<Node>, Refusal>);

/// The row of a node in a transfer that begins.
fn row((text, found): &Target, order: &Order) -> Row {
    let node = found.as_ref().ok();
    Row {
        node: node.map_or_else(|| text.clone(), |node| node.name.to_string()),
        id: node.map(|node| node.id),
        error: found.as_ref().err().cloned(),
        ..blank(order)
    }
}

/// A row that begins, of nobody.
fn blank(order: &Order) -> Row {
    let (steps_total, bytes_total) = order.tree().map_or((0, 0), |(_, entries, bytes)| (entries, bytes));
    Row {
        node: String::new(),
        id: None,
        path: order.place().to_owned(),
        stage: Stage::Queued,
        bytes_total,
        bytes_moved: 0,
        wire_bytes: 0,
        steps_total,
        steps_done: 0,
        began: Instant::now(),
        took: None,
        error: None,
        end: None,
        left_out: LeftOut::default(),
    }
}

/// Whether the caller may know of it: it is its own, or there is nobody whom it may not lock.
fn sees(caller: &Caller, transfer: &Transfer) -> bool {
    transfer.by.is(caller) || caller.everywhere(Right::LocksWrite)
}

fn unknown(id: TransferId) -> Refusal {
    Refusal::new(Code::NotFound, format!("There is no transfer {id}."))
        .hint("Begin it anew, as after a restart of the hub: what is there is not moved again.")
}

fn over() -> Refusal {
    Refusal::new(Code::Conflict, "The transfer is over.").hint("Begin another one.")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
