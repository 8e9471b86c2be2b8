//! Carries out what `cortex_core::node_files` asks for: each operation has a task of its own that hires a
//! clerk, and a word of the machine lets a change take effect.

use std::collections::BTreeMap;
use std::sync::Arc;

use cortex_core::files::answer::FileAnswer;
use cortex_core::files::ask::{FileAsk, Ticket};
use cortex_core::files::content::ContentId;
use cortex_core::files::op::{FileOp, Verb};
use cortex_core::files::path::FilePath;
use cortex_core::id::{Epoch, OpId, TransferId, WatchId};
use cortex_core::journal::FileAccepted;
use cortex_core::limits::STREAMS_PER_NODE_MAX;
use cortex_core::message::{Envelope, ToHub, ToNode};
use cortex_core::node_files::{Action, Found, NodeFiles};
use cortex_core::node_runs::Leave;
use cortex_core::policy::reach;
use cortex_core::sandbox::{Access, Walls};
use cortex_core::time::Timestamp;
use cortex_core::transfer::{TransferAsk, TransferNews};
use cortex_core::watch::{Blind, Sight, WatchAsk, WatchNews};
use cortex_core::{Code, Refusal};
use futures::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Actor;
use crate::bulk::{Bulk, Stream};
use crate::files::clerk::{Job, Recovery};
use crate::files::clerks::{Clerks, Hired};
use crate::files::errand::{self, Done, Way};
use crate::files::lookout::{Lookout, Told};
use crate::files::relay;
use crate::files::transfer::TransferJob;
use crate::files::watching::WatchJob;
use crate::node::Attached;

/// News of all operations that wait for the actor. Full: the operations wait.
pub(super) const NEWS_MAX: usize = 64;

/// The machine, and what carries its actions out.
pub(super) struct Files {
    pub(super) machine: NodeFiles,
    pub(super) clerks: Arc<Clerks>,
    news: mpsc::Sender<News>,
    in_hand: BTreeMap<OpId, InHand>,
    /// Transfers that a task has.
    moving: BTreeMap<TransferId, CancellationToken>,
    bulk: Arc<Bulk>,
    /// Those that use a stream, or wait for one with a clerk.
    streams: Arc<Semaphore>,
    /// The link that is here; cancelled when it goes.
    link: CancellationToken,
    epoch: Epoch,
    /// Who watches folders, while there are any.
    lookout: Option<Lookout>,
    /// How many there were before.
    lookouts: u64,
}

/// An operation that a task has.
struct InHand {
    /// Lets what was prepared take effect.
    go_on: Option<oneshot::Sender<()>>,
    abort: CancellationToken,
}

/// What an operation's task tells.
#[derive(Debug)]
pub(super) enum News {
    /// All is ready.
    Prepared { op: OpId, intended: Option<ContentId>, go_on: oneshot::Sender<()> },
    /// It is over.
    Performed { op: OpId, answer: Result<FileAnswer, Refusal> },
    /// Its clerk is gone, and does nothing more.
    Lost { op: OpId },
    /// What it left is cleaned up, as far as it could be.
    Recovered { op: OpId, found: Option<Found> },
    /// May the next changes of a transfer be seen?
    Gate { id: TransferId, may: oneshot::Sender<Result<(), Refusal>> },
    /// A transfer is over, and its clerk with it.
    Transferred { id: TransferId, news: Option<TransferNews> },
    /// What is seen of a folder that is watched.
    Watched(WatchNews),
    /// The clerk that watched is gone; it was the one with this number.
    LookoutLost(u64),
}

impl Files {
    pub(super) fn new(
        machine: NodeFiles,
        clerks: Arc<Clerks>,
        bulk: Arc<Bulk>,
        news: mpsc::Sender<News>,
    ) -> Self {
        Self {
            machine,
            clerks,
            news,
            in_hand: BTreeMap::new(),
            moving: BTreeMap::new(),
            bulk,
            streams: Arc::new(Semaphore::new(STREAMS_PER_NODE_MAX)),
            link: CancellationToken::new(),
            epoch: Epoch(0),
            lookout: None,
            lookouts: 0,
        }
    }

    /// A link of this epoch was welcomed.
    pub(super) fn welcomed(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        self.machine.welcomed();
    }

    /// The link is gone: so are the streams that it gave leave for.
    pub(super) fn disconnected(&mut self) {
        self.machine.disconnected();
        std::mem::take(&mut self.link).cancel();
        self.bulk.disconnect();
    }

    /// Ends what is under way: the node process stops. What had not ended is looked up at the next start.
    pub(super) fn stop(&mut self) {
        self.in_hand.values().for_each(|one| one.abort.cancel());
        self.link.cancel();
        self.lookout = None;
        self.clerks.finish();
    }

    fn handle(&mut self, news: News, now: Timestamp) {
        match news {
            News::Prepared { op, intended, go_on } => {
                if let Some(one) = self.in_hand.get_mut(&op) {
                    one.go_on = Some(go_on);
                }
                fail::fail_point!("node::files_prepared");
                self.machine.prepared(op, intended, now);
            }
            News::Performed { op, answer } => {
                self.in_hand.remove(&op);
                fail::fail_point!("node::files_done");
                self.machine.performed(op, answer);
            }
            News::Lost { op } => {
                self.in_hand.remove(&op);
                self.machine.lost(op, now);
            }
            News::Recovered { op, found } => {
                self.in_hand.remove(&op);
                self.machine.recovered(op, found);
            }
            News::Gate { id, may } => {
                // Whoever asked and went away changes nothing.
                let _heard = may.send(self.machine.may_change(id));
            }
            News::Transferred { id, news } => {
                self.moving.remove(&id);
                self.machine.transferred(id, news);
            }
            News::Watched(WatchNews { id, sight }) => {
                // One that ended by itself is not wanted any more, or it would be asked for twice.
                if matches!(sight, Sight::Blind(_)) {
                    self.unwatch(id);
                }
                self.machine.watched(id, sight);
            }
            News::LookoutLost(number) if number == self.lookouts && self.lookout.is_some() => {
                self.lookout = None;
                self.machine.end_watches();
            }
            News::LookoutLost(_) => {}
        }
    }

    fn watch(&mut self, ask: WatchAsk, Leave { reach, walls }: Leave) {
        let Some(reach) = reach.into_iter().next() else {
            return self.machine.watched(ask.id, Sight::Blind(Blind::Failed));
        };
        let walls = walls.map(|walls| *walls);
        if self.lookout.as_ref().is_none_or(|lookout| !lookout.is_behind(walls.as_ref())) {
            self.lookouts += 1;
            let (news, number) = (self.news.clone(), self.lookouts);
            let tell = move |told| -> BoxFuture<'static, ()> {
                let (news, told) = (
                    news.clone(),
                    match told {
                        Told::Seen(seen) => News::Watched(seen),
                        Told::Lost => News::LookoutLost(number),
                    },
                );
                // The receiver is gone only when the node process ends.
                Box::pin(async move { drop(news.send(told).await) })
            };
            self.lookout = Some(Lookout::begin(Arc::clone(&self.clerks), walls, Box::new(tell)));
        }
        if let Some(lookout) = &self.lookout {
            lookout.watch(WatchJob { ask, reach });
        }
    }

    fn unwatch(&mut self, id: WatchId) {
        if self.lookout.as_ref().is_some_and(|lookout| !lookout.unwatch(id)) {
            self.lookout = None;
        }
    }

    fn commit(&mut self, op: OpId) {
        let go_on = self.in_hand.get_mut(&op).and_then(|one| one.go_on.take());
        if let Some(go_on) = go_on {
            // A task that is gone has told that its clerk is.
            let _told = go_on.send(());
        }
    }

    fn abort(&self, op: OpId) {
        if let Some(one) = self.in_hand.get(&op) {
            one.abort.cancel();
        }
    }

    fn take_in_hand(&mut self, op: OpId) -> CancellationToken {
        let abort = CancellationToken::new();
        self.in_hand.insert(op, InHand { go_on: None, abort: abort.clone() });
        abort
    }

    fn perform(&mut self, ask: FileAsk, Leave { reach, walls }: Leave) {
        let abort = self.take_in_hand(ask.id);
        let way = ask.ticket.map(|ticket| self.way(ticket));
        let job = Job { id: ask.id, op: ask.op, reach, recovery: None };
        let office = Office { clerks: Arc::clone(&self.clerks), streams: Arc::clone(&self.streams) };
        drop(tokio::spawn(perform(office, walls.map(|walls| *walls), job, way, self.news.clone(), abort)));
    }

    fn way(&self, ticket: Ticket) -> Way {
        Way { bulk: Arc::clone(&self.bulk), ticket, epoch: self.epoch, link_gone: self.link.clone() }
    }

    fn transfer(&mut self, ask: TransferAsk, Leave { reach, walls }: Leave) {
        let (id, way) = (ask.id, self.way(ask.ticket));
        let Some(reach) = reach.into_iter().next() else {
            return self.machine.transferred(id, None);
        };
        let abort = CancellationToken::new();
        self.moving.insert(id, abort.clone());
        let job = TransferJob { id, work: ask.work, reach };
        let office = Office { clerks: Arc::clone(&self.clerks), streams: Arc::clone(&self.streams) };
        let news = self.news.clone();
        drop(tokio::spawn(async move {
            let told = move_tree(&office, walls.map(|walls| *walls), &job, &way, &news, &abort).await;
            // The receiver is gone only when the node process ends.
            let _told = news.send(News::Transferred { id, news: told }).await;
        }));
    }

    fn end_transfer(&self, id: TransferId) {
        if let Some(abort) = self.moving.get(&id) {
            abort.cancel();
        }
    }

    /// By the policy that holds: what it does not give is not looked at, and stays.
    fn recover(&mut self, accepted: FileAccepted, intended: Option<ContentId>, walls: Option<Walls>) {
        let op = accepted.op;
        let abort = self.take_in_hand(op);
        let jobs = recoveries(accepted, intended, walls.as_ref());
        let (clerks, news) = (Arc::clone(&self.clerks), self.news.clone());
        drop(tokio::spawn(async move {
            let mut found = None;
            for job in jobs {
                found = match job {
                    Some(job) => {
                        abort.run_until_cancelled(look(&clerks, walls.as_ref(), &job)).await.flatten()
                    }
                    None => None,
                };
            }
            // The receiver is gone only when the node process ends.
            let _told = news.send(News::Recovered { op, found }).await;
        }));
    }
}

/// Where to look, the path that was changed last; `None` for one that the walls do not give.
fn recoveries(
    accepted: FileAccepted,
    intended: Option<ContentId>,
    walls: Option<&Walls>,
) -> Vec<Option<Job>> {
    let FileAccepted { op, verb, path, source, .. } = accepted;
    let job = |path: FilePath, intended| {
        let reach = reach(walls, &path, Access::Write).ok()?;
        let recovery = Some(Recovery { intended, removes: verb == Verb::Remove });
        Some(Job { id: op, op: FileOp::Stat { path, hash: true }, reach: vec![reach], recovery })
    };
    // What lies beside the source is not what the target was to get: it comes back.
    source.map(|source| job(source, None)).into_iter().chain([job(path, intended)]).collect()
}

/// Where work is found for what an operation needs.
struct Office {
    clerks: Arc<Clerks>,
    streams: Arc<Semaphore>,
}

impl Office {
    /// A clerk, and with a stream a place for that: those with streams leave clerks for the others.
    async fn hire(
        &self,
        walls: Option<&Walls>,
        streams: bool,
    ) -> Result<(Hired, Option<tokio::sync::OwnedSemaphorePermit>), Refusal> {
        let place = if streams {
            let stops = |_closed| Refusal::new(Code::Internal, "The node stops.");
            Some(Arc::clone(&self.streams).acquire_owned().await.map_err(stops)?)
        } else {
            None
        };
        Ok((self.clerks.hire(walls).await?, place))
    }
}

/// One transfer, from hiring a clerk to its end. What is to be told of it.
async fn move_tree(
    office: &Office,
    walls: Option<Walls>,
    job: &TransferJob,
    way: &Way,
    news: &mpsc::Sender<News>,
    abort: &CancellationToken,
) -> Option<TransferNews> {
    let refused = |refusal| Some(TransferNews { id: job.id, end: Err(refusal) });
    let (mut clerk, _place) = match abort.run_until_cancelled(office.hire(walls.as_ref(), true)).await {
        None => return None,
        Some(Err(refusal)) => return refused(refusal),
        Some(Ok(hired)) => hired,
    };
    let (asks, id) = (news.clone(), job.id);
    let may_change = move || -> BoxFuture<'static, Result<(), Refusal>> {
        let asks = asks.clone();
        Box::pin(async move {
            let gone = |_gone| Refusal::new(Code::Internal, "The node stops.");
            let (may, told) = oneshot::channel();
            let _asked = asks.send(News::Gate { id, may }).await;
            told.await.map_err(gone)?
        })
    };
    match abort.run_until_cancelled(relay::transfer(&mut clerk, job, way, &may_change)).await {
        Some(Ok(told)) => {
            clerk.give_back();
            told
        }
        Some(Err(error)) => {
            if error.kind() == std::io::ErrorKind::ConnectionAborted {
                tracing::debug!(id = %job.id, "a transfer ended with its link");
            } else {
                tracing::warn!(id = %job.id, %error, "a clerk ended while it worked on a transfer");
            }
            clerk.end().await;
            refused(relay::lost(&error))
        }
        None => {
            clerk.end().await;
            None
        }
    }
}

/// One operation, from hiring a clerk to its end.
async fn perform(
    office: Office,
    walls: Option<Walls>,
    job: Job,
    way: Option<Way>,
    news: mpsc::Sender<News>,
    abort: CancellationToken,
) {
    let op = job.id;
    let hired = abort.run_until_cancelled(office.hire(walls.as_ref(), way.is_some())).await;
    let (mut clerk, _place) = match hired {
        None => return drop(news.send(News::Lost { op }).await),
        Some(Err(refusal)) => return drop(news.send(News::Performed { op, answer: Err(refusal) }).await),
        Some(Ok(hired)) => hired,
    };
    let may_go_on = async |intended| {
        let (go_on, went) = oneshot::channel();
        let _told = news.send(News::Prepared { op, intended, go_on }).await;
        // The machine that does not let it go on aborts it.
        went.await.map_err(|_| Refusal::new(cortex_core::Code::Internal, "It was given up."))
    };
    let performed = errand::perform(&mut clerk, &job, way.as_ref(), may_go_on);
    let done = abort.run_until_cancelled(performed).await;
    let told = match done {
        Some(Done::Answered(answer @ Ok(FileAnswer::Streaming { .. }))) => {
            let opened = match way.as_ref() {
                Some(way) => abort.run_until_cancelled(way.open()).await,
                None => Some(Err(Refusal::new(Code::Internal, "The content has no stream to go on."))),
            };
            match (opened, way) {
                (Some(Ok(stream)), Some(way)) => {
                    let _told = news.send(News::Performed { op, answer }).await;
                    return pour(clerk, stream, &way).await;
                }
                (Some(Err(refusal)), _) => {
                    clerk.end().await;
                    News::Performed { op, answer: Err(refusal) }
                }
                (Some(Ok(_)), None) | (None, _) => {
                    clerk.end().await;
                    News::Lost { op }
                }
            }
        }
        Some(Done::Answered(answer)) => {
            clerk.give_back();
            News::Performed { op, answer }
        }
        Some(Done::Lost { why, .. }) => {
            tracing::warn!(%op, why, "a clerk ended while it worked on files");
            clerk.end().await;
            News::Lost { op }
        }
        None => {
            clerk.end().await;
            News::Lost { op }
        }
    };
    let _told = news.send(told).await;
}

/// Sends the content of a read that was answered. The hub ends it by letting the stream go, and the link by
/// going.
async fn pour(mut clerk: Hired, stream: Stream, way: &Way) {
    let Stream { out, mut inbound } = stream;
    if errand::pour(&mut clerk, &out, &mut inbound, &way.link_gone).await {
        clerk.give_back();
    } else {
        clerk.end().await;
    }
    // All is sent when the hub has taken it: who goes before takes it back.
    drop(out);
    way.link_gone.run_until_cancelled(errand::until_end(&mut inbound)).await;
}

/// The file at the job's path, once what an operation left there is cleaned up.
async fn look(clerks: &Arc<Clerks>, walls: Option<&Walls>, job: &Job) -> Option<Found> {
    let mut clerk = clerks.hire(walls).await.ok()?;
    match errand::perform(&mut clerk, job, None, async |_| Ok(())).await {
        Done::Answered(answer) => {
            clerk.give_back();
            match answer {
                Ok(FileAnswer::Meta(meta)) => Some(Found { etag: meta.etag?, bytes: meta.size }),
                Ok(_) | Err(_) => None,
            }
        }
        Done::Lost { .. } => {
            clerk.end().await;
            None
        }
    }
}

impl<F: Fn(Attached) + Send> Actor<F> {
    /// Whether a frame is about files alone; and what it means for them.
    pub(super) fn file_frame(&mut self, envelope: &Envelope<ToNode>, now: Timestamp) -> bool {
        let Envelope { epoch, message } = envelope;
        let is_ours = matches!(
            message,
            ToNode::FileAsk(_)
                | ToNode::FileCancel { .. }
                | ToNode::FileSettled { .. }
                | ToNode::AttemptFence { .. }
                | ToNode::TransferAsk(_)
                | ToNode::TransferCancel { .. }
                | ToNode::Watch(_)
                | ToNode::Unwatch { .. }
        );
        if !is_ours && !matches!(message, ToNode::Start(_)) {
            return false;
        }
        match self.runs.gate(*epoch) {
            Ok(gate) => self.files.machine.handle(message.clone(), &gate, now),
            // The machine of the runs says it of a start.
            Err(_) if !is_ours => {}
            Err(refusal) => self.send(ToHub::Refused { run: None, refusal }),
        }
        is_ours
    }

    pub(super) fn handle_file_news(&mut self, news: News, now: Timestamp) {
        self.files.handle(news, now);
    }

    pub(super) fn carry_out_files(&mut self) {
        while let Some(action) = self.files.machine.poll_action() {
            match action {
                Action::Send(message) => self.send(message),
                Action::Journal(record) => self.backlog.push_back(record),
                Action::Perform { ask, leave } => self.files.perform(*ask, *leave),
                Action::Commit(op) => self.files.commit(op),
                Action::Abort(op) => self.files.abort(op),
                Action::Transfer { ask, leave } => self.files.transfer(*ask, *leave),
                Action::EndTransfer(id) => self.files.end_transfer(id),
                Action::Watch { ask, leave } => self.files.watch(*ask, *leave),
                Action::Unwatch(id) => self.files.unwatch(id),
                Action::Recover { accepted, intended } => {
                    let walls = self.runs.walls();
                    self.files.recover(accepted, intended, walls);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cortex_core::sandbox::Tree;

    use super::*;

    fn path(text: &str) -> FilePath {
        FilePath::parse(text).expect("a path")
    }

    #[test]
    fn a_move_that_was_cut_off_is_looked_for_at_both_its_ends_as_far_as_the_walls_go() {
        let tree = |path: &str| Tree { path: path.to_owned(), access: Access::Write, exec: false };
        let walls = Walls { trees: vec![tree("/a"), tree("/b")], ..Walls::default() };
        let accepted = |source: Option<&str>, to: &str| FileAccepted {
            op: OpId::mint(1, &[1; 10]),
            attempt: None,
            verb: Verb::Move,
            path: path(to),
            source: source.map(path),
        };
        let etag = ContentId::of(b"x");
        let looks = |accepted| {
            let jobs = recoveries(accepted, Some(etag), Some(&walls)).into_iter();
            let told = |job: Job| (job.op.path().clone(), job.recovery.and_then(|one| one.intended));
            jobs.map(|job| job.map(told)).collect::<Vec<_>>()
        };
        let (from, to) = (Some((path("/a/x"), None)), Some((path("/b/y"), Some(etag))));
        assert_eq!(looks(accepted(Some("/a/x"), "/b/y")), [from, to.clone()]);
        assert_eq!(looks(accepted(Some("/c/x"), "/b/y")), [None, to.clone()]);
        assert_eq!(looks(accepted(None, "/b/y")), [to]);
    }
}
