//! Threads for bulk content: what reads, writes, packs and verifies it runs here, and nowhere else.
//!
//! There are few of them and they yield to everything else on the machine, so that any number of transfers
//! leaves commands their pace (MISSION 16.5). Each transfer has a lane, lanes take turns job by job, and a
//! job is about one pack. A full lane lets its transfer wait. Never here: what is read.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use cortex_core::{Code, Refusal};
use tokio::sync::{Semaphore, oneshot};

/// Threads; as many transfers make progress at the same moment.
pub(crate) const THREADS: usize = 2;
/// Jobs of one lane that wait or run. Full: its transfer waits.
const LANE_JOBS_MAX: usize = 4;
/// How far the threads yield to others: 0 not at all, 19 to everybody.
const NICE: i32 = 10;

type Job = Box<dyn FnOnce() + Send>;

/// The threads. They end with the last lane and the last copy of this.
#[derive(Clone)]
pub(crate) struct Io(Arc<Owner>);

struct Owner(Arc<Shared>);

/// One transfer's way to the threads. What it has waiting is dropped with it.
pub(crate) struct Lane {
    owner: Arc<Owner>,
    number: u64,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    next_lane: u64,
    waiting: HashMap<u64, VecDeque<Job>>,
    /// Lanes that have something waiting, whose turn is next first.
    turns: VecDeque<u64>,
    over: bool,
}

impl Io {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system's, when it starts no thread.
    pub(crate) fn start(threads: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let owner = Self(Arc::new(Owner(Arc::clone(&shared))));
        for number in 0..threads {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new().name(format!("bulk-{number}")).spawn(move || shared.serve())?;
        }
        Ok(owner)
    }

    /// A lane for one transfer.
    pub(crate) fn lane(&self) -> Lane {
        let mut state = self.0.0.lock();
        let number = state.next_lane;
        state.next_lane += 1;
        Lane { owner: Arc::clone(&self.0), number, room: Arc::new(Semaphore::new(LANE_JOBS_MAX)) }
    }
}

impl Lane {
    /// Has a job done, in turn with those of other lanes. Waits while the lane is full. A job that has
    /// begun is done to its end, also when nobody waits for it any more.
    ///
    /// # Errors
    /// `internal` when the job panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let failed = || Refusal::new(Code::Internal, "Reading or writing content failed.");
        let room = Arc::clone(&self.room).acquire_owned().await.map_err(|_closed| failed())?;
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move || {
            let done = work();
            drop(room);
            // Nobody may wait for it any more.
            let _told = tell.send(done);
        });
        self.owner.0.push(self.number, job);
        told.await.map_err(|_dropped| failed())
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let mut state = self.owner.0.lock();
        let dropped = state.waiting.remove(&self.number);
        state.turns.retain(|lane| *lane != self.number);
        drop(state);
        drop(dropped);
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.work.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, lane: u64, job: Job) {
        let mut state = self.lock();
        let queue = state.waiting.entry(lane).or_default();
        queue.push_back(job);
        if queue.len() == 1 {
            state.turns.push_back(lane);
        }
        drop(state);
        self.work.notify_one();
    }

    fn serve(&self) {
        if let Err(error) = rustix::process::nice(NICE) {
            tracing::warn!(%error, "a thread for bulk content runs at full priority");
        }
        while let Some(job) = self.next() {
            if std::panic::catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!("a job of bulk content panicked");
            }
        }
    }

    /// The next job in turn; `None` at the end.
    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.take() {
                return Some(job);
            }
            if state.over {
                return None;
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl State {
    fn take(&mut self) -> Option<Job> {
        let lane = self.turns.pop_front()?;
        let queue = self.waiting.get_mut(&lane)?;
        let job = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(&lane);
        } else {
            self.turns.push_back(lane);
        }
        job
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// One thread that is busy until the returned sender is dropped.
    fn busy() -> (Io, Lane, mpsc::SyncSender<()>) {
        let io = Io::start(1).expect("a thread");
        let (lane, (hold, held)) = (io.lane(), mpsc::sync_channel::<()>(1));
        let (begun, begins) = mpsc::sync_channel(1);
        let job = Box::new(move || {
            begun.send(()).expect("the test waits");
            held.recv().expect_err("nothing is sent");
        });
        lane.owner.0.push(lane.number, job);
        begins.recv_timeout(Duration::from_secs(10)).expect("it has begun");
        (io, lane, hold)
    }

    #[tokio::test]
    async fn lanes_take_turns_whoever_came_first() {
        let (io, _first, hold) = busy();
        let (a, b) = (io.lane(), io.lane());
        let order = Arc::new(Mutex::new(Vec::new()));
        let job = |name: &'static str| {
            let order = Arc::clone(&order);
            Box::new(move || order.lock().expect("no panic").push(name))
        };
        for _ in 0..3 {
            a.owner.0.push(a.number, job("a"));
        }
        b.owner.0.push(b.number, job("b"));
        drop(hold);
        a.run(|| ()).await.expect("it ran");
        assert_eq!(*order.lock().expect("no panic"), ["a", "b", "a", "a"]);
    }

    #[tokio::test]
    async fn a_full_lane_waits_and_a_dropped_one_leaves_nothing() {
        let (io, _first, hold) = busy();
        let lane = Arc::new(io.lane());
        let jobs: Vec<_> = (0..LANE_JOBS_MAX + 2)
            .map(|number| {
                let lane = Arc::clone(&lane);
                tokio::spawn(async move { lane.run(move || number).await })
            })
            .collect();
        while lane.room.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
        assert_eq!(io.0.0.lock().waiting[&lane.number].len(), LANE_JOBS_MAX);
        jobs.iter().for_each(tokio::task::JoinHandle::abort);
        for job in jobs {
            assert!(job.await.expect_err("it was given up").is_cancelled());
        }
        drop(lane);
        let state = io.0.0.lock();
        assert!(state.waiting.is_empty() && state.turns.is_empty());
        drop((state, hold));
    }

    #[tokio::test]
    async fn a_job_that_panics_is_told_and_the_thread_goes_on() {
        let io = Io::start(1).expect("a thread");
        let lane = io.lane();
        let refused: Result<(), Refusal> = lane.run(|| panic!("as the test wants it")).await;
        assert_eq!(refused.expect_err("it panicked").code, Code::Internal);
        assert_eq!(lane.run(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn the_threads_yield_to_others() {
        let io = Io::start(1).expect("a thread");
        let nice = io.lane().run(|| rustix::process::getpriority_process(None)).await.expect("it ran");
        let own = rustix::process::getpriority_process(None).expect("a priority");
        assert_eq!(nice.expect("a priority"), (own + NICE).min(19));
    }
}
