//! The one place that spawns for life. Each worker has a name and a written fate: what an error or
//! panic of it means. A crash of one worker never reaches another (MISSION 12.2).

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cortex_core::{Code, Refusal};
use futures::FutureExt as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// First wait before a failed worker is started again; doubled up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest such wait. A worker that lasted longer than this begins anew with the shortest.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// What the end of a worker by error or panic means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// It is started again, after a wait that grows.
    Restart,
    /// The hub cannot go on without it, and stops.
    StopHub,
}

/// What a worker does when the hub stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCancel {
    /// It is given its token and ends by itself, within the time that [`Supervisor::stop`] has.
    Wait,
    /// It is dropped where it stands.
    Abort,
}

/// How a worker is kept.
#[derive(Clone, Copy, Debug)]
pub struct Fate {
    /// Its name in logs and metrics.
    pub name: &'static str,
    /// What its failure means.
    pub on_error: OnError,
    /// How it ends with the hub.
    pub on_cancel: OnCancel,
}

/// What has become of one worker so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerStats {
    /// Times it was started.
    pub starts: u64,
    /// Times it ended with an error.
    pub errors: u64,
    /// Times it panicked.
    pub panics: u64,
}

/// Keeps workers alive. Cheap to clone.
#[derive(Clone)]
pub struct Supervisor {
    inner: Arc<Inner>,
}

struct Inner {
    tracker: TaskTracker,
    shutdown: CancellationToken,
    stats: Mutex<BTreeMap<&'static str, WorkerStats>>,
    failed: watch::Sender<Option<Refusal>>,
}

enum End {
    Done,
    Failed(Refusal),
}

impl Default for Supervisor {
    fn default() -> Self {
        let (failed, _) = watch::channel(None);
        Self {
            inner: Arc::new(Inner {
                tracker: TaskTracker::new(),
                shutdown: CancellationToken::new(),
                stats: Mutex::default(),
                failed,
            }),
        }
    }
}

impl Supervisor {
    /// Starts a worker. `make` is called for each start with the token that ends it; an `Ok` of
    /// what it makes means that its work is done.
    pub fn spawn<M, F>(&self, fate: Fate, mut make: M)
    where
        M: FnMut(CancellationToken) -> F + Send + 'static,
        F: Future<Output = Result<(), Refusal>> + Send + 'static,
    {
        let supervisor = self.clone();
        self.inner.tracker.spawn(async move {
            let mut backoff = BACKOFF_MIN;
            loop {
                let began = Instant::now();
                let token = supervisor.inner.shutdown.child_token();
                let End::Failed(refusal) = supervisor.run_once(fate, &mut make, token).await else { return };
                match fate.on_error {
                    OnError::StopHub => return supervisor.give_up(fate, refusal),
                    OnError::Restart => tracing::warn!(
                        worker = fate.name, code = %refusal.code, reason = %refusal.message,
                        "a worker failed and is started again"
                    ),
                }
                if began.elapsed() > BACKOFF_MAX {
                    backoff = BACKOFF_MIN;
                }
                tokio::select! {
                    () = tokio::time::sleep(backoff) => {}
                    () = supervisor.inner.shutdown.cancelled() => return,
                }
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        });
    }

    /// Ends all workers; returns whether all ended within `patience`.
    pub async fn stop(&self, patience: Duration) -> bool {
        self.inner.shutdown.cancel();
        self.inner.tracker.close();
        tokio::time::timeout(patience, self.inner.tracker.wait()).await.is_ok()
    }

    /// Ends when a worker failed that the hub cannot be without.
    pub async fn failed(&self) -> Refusal {
        let mut failed = self.inner.failed.subscribe();
        match failed.wait_for(Option::is_some).await {
            Ok(refusal) => refusal.clone().unwrap_or_else(|| gone("supervisor")),
            Err(_) => gone("supervisor"),
        }
    }

    /// Figures of all workers by name.
    pub fn stats(&self) -> BTreeMap<&'static str, WorkerStats> {
        self.counters().clone()
    }

    async fn run_once<M, F>(&self, fate: Fate, make: &mut M, token: CancellationToken) -> End
    where
        M: FnMut(CancellationToken) -> F,
        F: Future<Output = Result<(), Refusal>>,
    {
        self.count(fate, |stats| stats.starts += 1);
        let guarded = AssertUnwindSafe(async { make(token.clone()).await }).catch_unwind();
        let aborted = async {
            match fate.on_cancel {
                OnCancel::Abort => token.cancelled().await,
                OnCancel::Wait => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            ended = guarded => ended,
            () = aborted => Ok(Ok(())),
        };
        match ended {
            Ok(Ok(())) => End::Done,
            Ok(Err(refusal)) => {
                self.count(fate, |stats| stats.errors += 1);
                End::Failed(refusal)
            }
            Err(_panic) => {
                self.count(fate, |stats| stats.panics += 1);
                End::Failed(gone(fate.name))
            }
        }
    }

    fn give_up(&self, fate: Fate, refusal: Refusal) {
        tracing::error!(
            worker = fate.name, code = %refusal.code, reason = %refusal.message,
            "a worker failed that the hub cannot be without"
        );
        self.inner.failed.send_replace(Some(refusal));
    }

    fn count(&self, fate: Fate, change: impl FnOnce(&mut WorkerStats)) {
        change(self.counters().entry(fate.name).or_default());
    }

    fn counters(&self) -> MutexGuard<'_, BTreeMap<&'static str, WorkerStats>> {
        self.inner.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gone(name: &str) -> Refusal {
    Refusal::new(Code::Internal, format!("The worker `{name}` panicked."))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    const fn fate(name: &'static str, on_error: OnError, on_cancel: OnCancel) -> Fate {
        Fate { name, on_error, on_cancel }
    }

    #[tokio::test]
    async fn r12_2_a_worker_that_panics_is_started_again_and_its_neighbour_notices_nothing() {
        let supervisor = Supervisor::default();
        let (calm_ended, mut calm) = watch::channel(false);
        supervisor.spawn(fate("calm", OnError::Restart, OnCancel::Wait), move |token| {
            let ended = calm_ended.clone();
            async move {
                token.cancelled().await;
                ended.send_replace(true);
                Ok(())
            }
        });
        let (reached, mut third) = watch::channel(0);
        let starts = Arc::new(AtomicU64::new(0));
        supervisor.spawn(fate("shaky", OnError::Restart, OnCancel::Wait), move |token| {
            let (start, reached) = (starts.fetch_add(1, Ordering::SeqCst), reached.clone());
            async move {
                assert!(start > 0, "the first start panics");
                if start == 1 {
                    return Err(Refusal::new(Code::StoreUnavailable, "The second start fails."));
                }
                reached.send_replace(start);
                token.cancelled().await;
                Ok(())
            }
        });
        let waited = tokio::time::timeout(SOON, third.wait_for(|start| *start == 2)).await;
        drop(waited.expect("the third start is reached").expect("the worker lives"));
        assert!(!*calm.borrow());
        assert_eq!(supervisor.stats()["shaky"], WorkerStats { starts: 3, errors: 1, panics: 1 });
        assert_eq!(supervisor.stats()["calm"], WorkerStats { starts: 1, errors: 0, panics: 0 });
        assert!(supervisor.stop(SOON).await);
        assert!(*calm.borrow_and_update());
    }

    #[tokio::test]
    async fn a_worker_that_must_not_fail_stops_the_hub() {
        let supervisor = Supervisor::default();
        supervisor.spawn(fate("vital", OnError::StopHub, OnCancel::Wait), |_token| async {
            Err(Refusal::new(Code::BadConfig, "The port is gone."))
        });
        let refusal = tokio::time::timeout(SOON, supervisor.failed()).await.expect("told in time");
        assert_eq!(refusal.code, Code::BadConfig);
        assert!(supervisor.stop(SOON).await);
    }

    #[tokio::test]
    async fn an_aborted_worker_need_not_look_at_its_token() {
        let supervisor = Supervisor::default();
        supervisor.spawn(fate("deaf", OnError::Restart, OnCancel::Abort), |_token| async {
            std::future::pending::<()>().await;
            Ok(())
        });
        assert!(supervisor.stop(SOON).await);
        let stubborn = Supervisor::default();
        stubborn.spawn(fate("deaf", OnError::Restart, OnCancel::Wait), |_token| async {
            std::future::pending::<()>().await;
            Ok(())
        });
        assert!(
            !stubborn.stop(Duration::from_millis(50)).await,
            "one that is waited for and does not end is told of"
        );
    }
}
