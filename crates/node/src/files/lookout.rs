//! The node's end of the clerk that watches folders: which folders that are, and what it sees. There is one
//! for all of them, beside those that work on files; it comes with the first folder and goes with the last.
//! Never here: whether a folder may be watched.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cortex_core::id::WatchId;
use cortex_core::sandbox::Walls;
use cortex_core::watch::WatchNews;
use cortex_wire::convert::watch::news_from_bytes;
use futures::future::BoxFuture;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::clerks::{Clerks, Hired};
use super::frame::{Frame, Kind};
use super::watching::{WatchJob, unwatch};

/// A clerk that watches. Dropped, it is ended.
#[derive(Debug)]
pub(crate) struct Lookout {
    walls: Option<Walls>,
    wanted: Arc<Wanted>,
    _end: DropGuard,
}

/// How many orders there were, and the newest one for each folder with its number.
type Jobs = (u64, BTreeMap<WatchId, (u64, WatchJob)>);

/// Folders that are to be watched.
#[derive(Debug, Default)]
struct Wanted {
    jobs: Mutex<Jobs>,
    changed: Notify,
}

impl Wanted {
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the clerk is to be told, who was told `told`.
    fn orders(&self, told: &mut BTreeMap<WatchId, u64>) -> Vec<Frame> {
        let jobs = self.jobs();
        let gone: Vec<WatchId> = told.keys().filter(|id| !jobs.1.contains_key(id)).copied().collect();
        let mut orders = Vec::new();
        for id in gone {
            told.remove(&id);
            orders.push(unwatch(id));
        }
        for (id, (number, job)) in &jobs.1 {
            if told.insert(*id, *number) != Some(*number) {
                orders.push(job.to_frame());
            }
        }
        orders
    }
}

/// What it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// What is seen of a folder.
    Seen(WatchNews),
    /// It has ended by itself, and nothing is watched.
    Lost,
}

/// Takes in what it tells; it waits until that is done.
pub(crate) type Tell = dyn Fn(Told) -> BoxFuture<'static, ()> + Send + Sync;

impl Lookout {
    /// Begins one behind these walls.
    pub(crate) fn begin(clerks: Arc<Clerks>, walls: Option<Walls>, tell: Box<Tell>) -> Self {
        let (wanted, end) = (Arc::new(Wanted::default()), CancellationToken::new());
        let (asked, ended, given) = (Arc::clone(&wanted), end.clone(), walls.clone());
        drop(tokio::spawn(async move {
            let hired = ended.run_until_cancelled(clerks.hire_lookout(given.as_ref())).await;
            let Some(hired) = hired else { return };
            let mut clerk = match hired {
                Ok(clerk) => clerk,
                Err(refusal) => {
                    tracing::warn!(code = %refusal.code, "no folder is watched: {refusal}");
                    return tell(Told::Lost).await;
                }
            };
            let done = ended.run_until_cancelled(stand(&mut clerk, &asked, &*tell)).await;
            clerk.end().await;
            if let Some(error) = done {
                tracing::warn!(%error, "the process that watched folders ended");
                tell(Told::Lost).await;
            }
        }));
        Self { walls, wanted, _end: end.drop_guard() }
    }

    /// Whether it is behind these walls.
    pub(crate) fn is_behind(&self, walls: Option<&Walls>) -> bool {
        self.walls.as_ref() == walls
    }

    /// Watches a folder, in place of what was watched under its id.
    pub(crate) fn watch(&self, job: WatchJob) {
        let mut jobs = self.wanted.jobs();
        jobs.0 += 1;
        let number = jobs.0;
        jobs.1.insert(job.ask.id, (number, job));
        drop(jobs);
        self.wanted.changed.notify_one();
    }

    /// Watches one no more. Whether there are others.
    pub(crate) fn unwatch(&self, id: WatchId) -> bool {
        let mut jobs = self.wanted.jobs();
        jobs.1.remove(&id);
        let has_others = !jobs.1.is_empty();
        drop(jobs);
        self.wanted.changed.notify_one();
        has_others
    }
}

/// Says to the clerk what is wanted, and hears what it sees, until it is gone.
async fn stand(clerk: &mut Hired, wanted: &Wanted, tell: &Tell) -> io::Error {
    let (jobs, replies) = match clerk.pipes() {
        Ok(pipes) => pipes,
        Err(error) => return error,
    };
    let says = async {
        let mut told = BTreeMap::new();
        loop {
            for order in wanted.orders(&mut told) {
                order.send_to(jobs).await?;
            }
            wanted.changed.notified().await;
        }
    };
    let hears = async {
        loop {
            let frame = Frame::receive_from(replies).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if frame.kind != Kind::Watch {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "it said what makes no sense"));
            }
            let news = news_from_bytes(&frame.body).map_err(|refusal| io::Error::other(refusal.message))?;
            tell(Told::Seen(news)).await;
        }
    };
    let ended: io::Result<std::convert::Infallible> = tokio::select! {
        ended = says => ended,
        ended = hears => ended,
    };
    match ended {
        Ok(never) => match never {},
        Err(error) => error,
    }
}
