//! Clerks: processes that work on files for the node, each in the room that a run would get under the
//! same policy. The node keeps a few that are idle, so that an operation need not wait for a fork.
//!
//! A clerk does one thing at a time. Whoever hired it gives it back when that is done; one that is
//! dropped in between is ended with its whole tree, so giving up is all that a cancel needs. Never here:
//! what a clerk does, and whether it may.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cortex_core::limits::{CLERKS_MAX, CLERKS_WAITING_MAX};
use cortex_core::sandbox::Walls;
use cortex_core::{Code, Refusal};
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::frame::Frame;
use crate::run::guards::{Guards, NoGuard};
use crate::run::process::{NotStarted, Process};
use crate::run::protocol::{Image, Launch, Order};
use crate::sandbox::confine::{Confinement, Sandbox};

/// A clerk that nobody hired for so long is ended.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(30);
/// Time that a clerk has for coming.
const START_MAX: Duration = Duration::from_secs(10);
/// Bytes that a pipe of a clerk holds: with the system's own 64 KiB both ends would wait for each other at
/// every frame of content.
const PIPE_BYTES: i32 = 1024 * 1024;
/// Bytes of what a clerk writes to its standard error that the node's log takes; more is dropped.
const COMPLAINT_BYTES_MAX: u64 = 4 * 1024;

/// The clerks of a node.
#[derive(Debug)]
pub(crate) struct Clerks {
    guards: Arc<Guards>,
    sandbox: Arc<Sandbox>,
    /// The node's name, which is the host's in a room.
    node: String,
    /// A permit for each that may have work. Those with work and those that are idle are no more than that
    /// together.
    work: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Names of what is made for them.
    made: AtomicU64,
    /// Longest idle first.
    idle: Mutex<VecDeque<Idle>>,
}

#[derive(Debug)]
struct Idle {
    since: Instant,
    clerk: Clerk,
}

/// A clerk. Dropped, it is ended.
#[derive(Debug)]
struct Clerk {
    /// Behind which walls it is.
    walls: Option<Walls>,
    desk: Option<Desk>,
}

/// The process, and what was made for it.
#[derive(Debug)]
struct Desk {
    process: Process,
    confinement: Option<Confinement>,
    jobs: pipe::Sender,
    replies: pipe::Receiver,
}

/// A clerk that does what one caller wants. Dropped, it is ended.
#[derive(Debug)]
pub(crate) struct Hired {
    /// Something that it will not understand may lie in its pipes.
    is_spoiled: bool,
    clerks: Arc<Clerks>,
    clerk: Option<Clerk>,
    work: Option<OwnedSemaphorePermit>,
}

impl Clerks {
    pub(crate) fn new(guards: Arc<Guards>, sandbox: Arc<Sandbox>, node: String) -> Self {
        Self {
            guards,
            sandbox,
            node,
            work: Arc::new(Semaphore::new(CLERKS_MAX)),
            waiting: AtomicUsize::new(0),
            made: AtomicU64::new(0),
            idle: Mutex::default(),
        }
    }

    /// A clerk behind these walls, or without any; waits for one when all have work.
    ///
    /// # Errors
    /// `quota` when too many wait; `sandbox_unavailable` when the walls cannot be put up; `internal` when
    /// the system starts no process.
    pub(crate) async fn hire(self: &Arc<Self>, walls: Option<&Walls>) -> Result<Hired, Refusal> {
        let work = self.work().await?;
        let clerk = match self.take_idle(walls) {
            Some(clerk) => clerk,
            None => self.new_clerk(walls).await?,
        };
        Ok(Hired { is_spoiled: false, clerks: Arc::clone(self), clerk: Some(clerk), work: Some(work) })
    }

    /// A clerk that watches folders. It is not counted among the others, whose work it is not to hold up, and
    /// gets no other work: there is one at a time.
    ///
    /// # Errors
    /// As [`Self::hire`].
    pub(crate) async fn hire_lookout(self: &Arc<Self>, walls: Option<&Walls>) -> Result<Hired, Refusal> {
        let clerk = self.new_clerk(walls).await?;
        Ok(Hired { is_spoiled: true, clerks: Arc::clone(self), clerk: Some(clerk), work: None })
    }

    async fn new_clerk(&self, walls: Option<&Walls>) -> Result<Clerk, Refusal> {
        let begun = tokio::time::timeout(START_MAX, self.begin(walls.cloned())).await;
        let late = |_late| internal(format!("it did not come within {} s", START_MAX.as_secs()));
        Ok(Clerk { walls: walls.cloned(), desk: Some(begun.map_err(late)??) })
    }

    /// Ends those that are idle: for too long, or behind other walls than these, which is what a new
    /// policy brings about.
    pub(crate) fn end_idle(&self, walls: Option<Option<&Walls>>) {
        let mut idle = lock(&self.idle);
        let (keeps, ends): (VecDeque<Idle>, VecDeque<Idle>) = idle.drain(..).partition(|one| {
            one.since.elapsed() < IDLE_MAX && walls.is_none_or(|walls| one.clerk.walls.as_ref() == walls)
        });
        *idle = keeps;
        drop(idle);
        drop(ends);
    }

    /// How long until the next idle one is to end, milliseconds.
    pub(crate) fn idle_for_at_most(&self) -> Option<u64> {
        let due = lock(&self.idle).front()?.since + IDLE_MAX;
        let left = due.saturating_duration_since(Instant::now()).as_millis();
        Some(u64::try_from(left).unwrap_or(u64::MAX).saturating_add(1))
    }

    /// Hires nobody further, and ends those that are idle.
    pub(crate) fn finish(&self) {
        self.work.close();
        drop(std::mem::take(&mut *lock(&self.idle)));
    }

    /// How many there are, idle ones among them.
    pub(crate) fn count(&self) -> usize {
        let idle = lock(&self.idle);
        // One that has just been hired may still stand among the idle ones.
        (self.working() + idle.len()).min(CLERKS_MAX)
    }

    fn working(&self) -> usize {
        CLERKS_MAX - self.work.available_permits()
    }

    /// One that is behind these walls, the one that was used last: its memory is warm, and the others
    /// come to their end. When there is none, the longest idle one makes room.
    fn take_idle(&self, walls: Option<&Walls>) -> Option<Clerk> {
        let mut idle = lock(&self.idle);
        let mut ended = Vec::new();
        while let Some(at) = idle.iter().rposition(|one| one.clerk.walls.as_ref() == walls) {
            match idle.remove(at).map(|one| one.clerk) {
                Some(clerk) if clerk.has_ended() => ended.push(clerk),
                found => return found,
            }
        }
        let keeps = CLERKS_MAX.saturating_sub(self.working()).min(idle.len());
        let excess = idle.len() - keeps;
        let ends: Vec<Idle> = idle.drain(..excess).collect();
        drop(idle);
        drop(ends);
        None
    }

    async fn work(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let _counted = Counted::new(&self.waiting)?;
        let work = Arc::clone(&self.work).acquire_owned().await;
        work.map_err(|_closed| internal("the node stops".to_owned()))
    }

    async fn begin(&self, walls: Option<Walls>) -> Result<Desk, Refusal> {
        let (guards, sandbox) = (Arc::clone(&self.guards), Arc::clone(&self.sandbox));
        let (node, number) = (self.node.clone(), self.made.fetch_add(1, Ordering::Relaxed));
        let begun = tokio::task::spawn_blocking(move || {
            let name = format!("clerk-{number}");
            let made = walls.map(|walls| Confinement::for_clerk(&sandbox, &walls, &name, &node));
            let mut confinement = made.transpose()?;
            let launch = Launch {
                image: Image::Clerk,
                cwd: "/".into(),
                confined: confinement.as_ref().map(Confinement::confined_clerk),
                ..Launch::default()
            };
            let groups = confinement.as_mut().map(Confinement::take_entrances).unwrap_or_default();
            let room = confinement.as_ref().map(|confinement| &confinement.room);
            let process = Process::begin(&guards, room, true, groups).map_err(no_guard)?;
            Ok::<_, Refusal>((process, confinement, launch))
        });
        let (mut process, confinement, launch) =
            begun.await.map_err(|error| internal(error.to_string()))??;
        let started = process.start(&launch).await.map_err(|why| match why {
            NotStarted::Guard(error) => internal(error.to_string()),
            NotStarted::Refused(failed) => no_walls(&failed),
        });
        let (jobs, replies) = (process.stdin.take(), process.stdout.take());
        let Some((jobs, replies)) = jobs.zip(replies) else {
            return Err(internal("it has no pipes".to_owned()));
        };
        // Where an unprivileged user has no more room for pipes they stay as they are.
        let _larger = fcntl(jobs.as_fd(), FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        let _larger = fcntl(replies.as_fd(), FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        if let Some(complaints) = process.stderr.take() {
            drop(tokio::spawn(hear(complaints)));
        }
        let desk = Desk { process, confinement, jobs, replies };
        match started {
            Ok(_pid) => Ok(desk),
            Err(refusal) => {
                desk.end();
                Err(refusal)
            }
        }
    }
}

impl Hired {
    /// Tells it something.
    ///
    /// # Errors
    /// The system's: it has ended.
    pub(crate) async fn tell(&mut self, frame: &Frame) -> io::Result<()> {
        let desk = self.desk()?;
        frame.send_to(&mut desk.jobs).await
    }

    /// What it says next. Not to be dropped before its end by whoever wants to go on with this clerk.
    ///
    /// # Errors
    /// `UnexpectedEof` when it has ended, `InvalidData` when it says what is no frame.
    pub(crate) async fn hear(&mut self) -> io::Result<Frame> {
        let desk = self.desk()?;
        let frame = Frame::receive_from(&mut desk.replies).await?;
        frame.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Both its pipes, for what goes both ways at once. Whoever drops a write to the first, or a read from
    /// the second, before its end cannot go on with this clerk.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub(crate) fn pipes(&mut self) -> io::Result<(&mut pipe::Sender, &mut pipe::Receiver)> {
        let desk = self.desk()?;
        Ok((&mut desk.jobs, &mut desk.replies))
    }

    /// It gets no other job: what is in its pipes is not certain.
    pub(crate) const fn spoil(&mut self) {
        self.is_spoiled = true;
    }

    /// It has done all that it was hired for, and waits for the next job.
    pub(crate) fn give_back(mut self) {
        if self.is_spoiled {
            // Dropped it is ended.
            return;
        }
        let (clerk, work) = (self.clerk.take(), self.work.take());
        let mut idle = lock(&self.clerks.idle);
        if let Some(clerk) = clerk
            && !self.clerks.work.is_closed()
        {
            idle.push_back(Idle { since: Instant::now(), clerk });
        }
        // While the others cannot look: it is idle or has work, and is never counted as both.
        drop(work);
    }

    /// Ends it, and waits until nothing of it is left: what it was doing is not done after that.
    pub(crate) async fn end(mut self) {
        let desk = self.clerk.take().and_then(|mut clerk| clerk.desk.take());
        if let Some(desk) = desk {
            desk.ending().await;
        }
    }

    fn desk(&mut self) -> io::Result<&mut Desk> {
        let desk = self.clerk.as_mut().and_then(|clerk| clerk.desk.as_mut());
        desk.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Clerk {
    /// Whether its process was killed while it had nothing to do: nobody reads its jobs.
    fn has_ended(&self) -> bool {
        self.desk.as_ref().is_none_or(|desk| {
            let mut jobs = [PollFd::new(desk.jobs.as_fd(), PollFlags::POLLOUT)];
            let polled = poll(&mut jobs, PollTimeout::ZERO);
            polled.is_ok() && jobs[0].revents().is_some_and(|found| found.contains(PollFlags::POLLERR))
        })
    }
}

impl Drop for Clerk {
    fn drop(&mut self) {
        if let Some(desk) = self.desk.take() {
            desk.end();
        }
    }
}

impl Desk {
    /// Ends it, without waiting.
    fn end(self) {
        // Without a runtime the node process ends, and its guards with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn(self.ending()));
        }
    }

    /// Ends it with its tree, and removes what was made for it when nothing of it is left.
    async fn ending(self) {
        let Self { mut process, confinement, jobs, replies } = self;
        drop((jobs, replies));
        process.order(Order::Kill).await;
        let nothing_is_left = process.gone().await;
        drop(process);
        if let Some(confinement) = confinement {
            confinement.end(nothing_is_left).await;
        }
    }
}

/// One that waits for a clerk.
struct Counted<'c>(&'c AtomicUsize);

impl<'c> Counted<'c> {
    fn new(waiting: &'c AtomicUsize) -> Result<Self, Refusal> {
        let one_more = |count: usize| (count < CLERKS_WAITING_MAX).then_some(count + 1);
        match waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more) {
            Ok(_) => Ok(Self(waiting)),
            Err(_full) => Err(Refusal::new(
                Code::Quota,
                format!("{CLERKS_WAITING_MAX} operations on files wait on this node."),
            )
            .hint("Wait until some are done, then try again.")),
        }
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a clerk writes to its standard error is a defect of ours.
async fn hear(complaints: pipe::Receiver) {
    let mut text = Vec::new();
    let mut complaints = complaints;
    let read = (&mut complaints).take(COMPLAINT_BYTES_MAX).read_to_end(&mut text).await;
    if !text.is_empty() {
        tracing::warn!(text = %String::from_utf8_lossy(&text), "a clerk complains");
    }
    if read.is_ok() {
        // Until its end, so that it is not stopped by a full pipe.
        let _ended = tokio::io::copy(&mut complaints, &mut tokio::io::sink()).await;
    }
}

fn no_guard(why: NoGuard) -> Refusal {
    match why {
        NoGuard::System(error) => internal(error.to_string()),
        NoGuard::Walls(failed) => no_walls(&failed),
    }
}

fn no_walls(failed: &crate::sandbox::step::Failed) -> Refusal {
    Refusal::new(
        Code::SandboxUnavailable,
        format!("The walls around work on files could not be put up: {failed}."),
    )
}

fn internal(why: String) -> Refusal {
    Refusal::new(Code::Internal, format!("The process that works on files could not be started: {why}."))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
