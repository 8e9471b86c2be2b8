//! Carries out what `cortex_core::node_files` asks for: each operation has a task of its own that hires a
//! clerk, and a word of the machine lets a change take effect.

use std::collections::BTreeMap;
use std::sync::Arc;

use cortex_core::Refusal;
use cortex_core::files::answer::FileAnswer;
use cortex_core::files::ask::FileAsk;
use cortex_core::files::content::ContentId;
use cortex_core::files::op::{FileOp, Verb};
use cortex_core::files::path::FilePath;
use cortex_core::id::OpId;
use cortex_core::journal::FileAccepted;
use cortex_core::message::{Envelope, ToHub, ToNode};
use cortex_core::node_files::{Action, Found, NodeFiles};
use cortex_core::node_runs::Leave;
use cortex_core::policy::reach;
use cortex_core::sandbox::{Access, Walls};
use cortex_core::time::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Actor;
use crate::files::clerk::{Job, Recovery};
use crate::files::clerks::Clerks;
use crate::files::errand::{self, Done};
use crate::node::Attached;

/// News of all operations that wait for the actor. Full: the operations wait.
pub(super) const NEWS_MAX: usize = 64;

/// The machine, and what carries its actions out.
pub(super) struct Files {
    pub(super) machine: NodeFiles,
    pub(super) clerks: Arc<Clerks>,
    news: mpsc::Sender<News>,
    in_hand: BTreeMap<OpId, InHand>,
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
}

impl Files {
    pub(super) fn new(machine: NodeFiles, clerks: Arc<Clerks>, news: mpsc::Sender<News>) -> Self {
        Self { machine, clerks, news, in_hand: BTreeMap::new() }
    }

    /// Ends what is under way: the node process stops. What had not ended is looked up at the next start.
    pub(super) fn stop(&mut self) {
        self.in_hand.values().for_each(|one| one.abort.cancel());
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
        let job = Job { id: ask.id, op: ask.op, reach, recovery: None };
        let (clerks, news) = (Arc::clone(&self.clerks), self.news.clone());
        drop(tokio::spawn(perform(clerks, walls.map(|walls| *walls), job, news, abort)));
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

/// One operation, from hiring a clerk to its end.
async fn perform(
    clerks: Arc<Clerks>,
    walls: Option<Walls>,
    job: Job,
    news: mpsc::Sender<News>,
    abort: CancellationToken,
) {
    let op = job.id;
    let hired = abort.run_until_cancelled(clerks.hire(walls.as_ref())).await;
    let mut clerk = match hired {
        None => return drop(news.send(News::Lost { op }).await),
        Some(Err(refusal)) => return drop(news.send(News::Performed { op, answer: Err(refusal) }).await),
        Some(Ok(clerk)) => clerk,
    };
    let may_go_on = async |intended| {
        let (go_on, went) = oneshot::channel();
        let _told = news.send(News::Prepared { op, intended, go_on }).await;
        // The machine that does not let it go on aborts it.
        went.await.map_err(|_| Refusal::new(cortex_core::Code::Internal, "It was given up."))
    };
    let done = abort.run_until_cancelled(errand::perform(&mut clerk, &job, may_go_on)).await;
    let told = match done {
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

/// The file at the job's path, once what an operation left there is cleaned up.
async fn look(clerks: &Arc<Clerks>, walls: Option<&Walls>, job: &Job) -> Option<Found> {
    let mut clerk = clerks.hire(walls).await.ok()?;
    match errand::perform(&mut clerk, job, async |_| Ok(())).await {
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
