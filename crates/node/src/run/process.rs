//! A process behind its guard: start it, signal its tree, hear of its end. Dropping a [`Process`]
//! closes the guard's control socket, and the guard kills the tree. Never here: output, policy.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;

use super::guards::{Guards, NoGuard, Nursery};
use super::protocol::{Launch, Order, REPORT_BYTES, Report};
use crate::sandbox::step::Failed;
use crate::sandbox::walls::Room;

/// A guarded process and its pipes.
#[derive(Debug)]
pub(crate) struct Process {
    /// The guard's number, once it is told; 0 before.
    guard: AtomicI32,
    /// Lives as long as this does.
    nursery: Arc<Nursery>,
    control: tokio::net::UnixStream,
    /// Its standard output.
    pub(crate) stdout: Option<pipe::Receiver>,
    /// Its standard error.
    pub(crate) stderr: Option<pipe::Receiver>,
    /// Its standard input, when it was asked for.
    pub(crate) stdin: Option<pipe::Sender>,
}

/// How the main process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It returned this.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
    /// The guard went away before it could tell.
    Unseen,
    /// The guard lost its nursery, and killed the run.
    Abandoned,
}

/// Why there is no process.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotStarted {
    /// The guard itself.
    #[error("the run's guard could not be started")]
    Guard(#[source] io::Error),
    /// What the guard was to do.
    #[error("{0}")]
    Refused(Failed),
}

impl Process {
    /// Begins a guard in a room, or without walls, which starts nothing so far. May block: for a
    /// blocking thread with a runtime. `groups` are the ways into the run's control groups.
    pub(crate) fn begin(
        guards: &Guards,
        room: Option<&Room>,
        with_stdin: bool,
        groups: Vec<OwnedFd>,
    ) -> Result<Self, NoGuard> {
        let (control, control_end) = UnixStream::pair()?;
        let (stdout, stdout_end) = io::pipe()?;
        let (stderr, stderr_end) = io::pipe()?;
        let stdin = with_stdin.then(io::pipe).transpose()?;
        let mut ends: Vec<OwnedFd> = vec![control_end.into(), stdout_end.into(), stderr_end.into()];
        let stdin = stdin.map(|(end, writer)| {
            ends.push(end.into());
            writer
        });
        ends.extend(groups);
        let nursery = guards.fork(room, &ends, with_stdin)?;
        drop(ends);
        control.set_nonblocking(true)?;
        Ok(Self {
            guard: AtomicI32::new(0),
            nursery,
            control: tokio::net::UnixStream::from_std(control)?,
            stdout: Some(pipe::Receiver::from_owned_fd(stdout.into())?),
            stderr: Some(pipe::Receiver::from_owned_fd(stderr.into())?),
            stdin: stdin.map(|writer| pipe::Sender::from_owned_fd(writer.into())).transpose()?,
        })
    }

    /// Hands the guard what to start, and waits until the program runs.
    pub(crate) async fn start(&mut self, launch: &Launch) -> Result<u32, NotStarted> {
        self.control.write_all(&launch.to_bytes()).await.map_err(NotStarted::Guard)?;
        loop {
            match self.report().await.map_err(NotStarted::Guard)? {
                Some(Report::Guard { pid }) => self.learn(pid),
                Some(Report::Started { pid }) => return Ok(pid),
                Some(Report::Failed { step, errno }) => {
                    return Err(NotStarted::Refused(Failed::new(step, errno)));
                }
                Some(Report::Exited { .. } | Report::Signaled { .. } | Report::Abandoned | Report::Gone)
                | None => {
                    return Err(NotStarted::Guard(io::ErrorKind::UnexpectedEof.into()));
                }
            }
        }
    }

    /// Waits for the end of the main process. Safe to drop and call again.
    pub(crate) async fn ended(&self) -> Exit {
        // A report is written at once and is far smaller than the socket's buffer, so it is there
        // whole or not at all.
        let mut bytes = [0; REPORT_BYTES];
        loop {
            if self.control.readable().await.is_err() {
                return Exit::Unseen;
            }
            match self.control.try_read(&mut bytes) {
                Ok(REPORT_BYTES) => match Report::from_bytes(bytes) {
                    // The nursery's word, which does not wait for the guard's.
                    Some(Report::Guard { pid }) => self.learn(pid),
                    report => return exit_of(report),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => return Exit::Unseen,
            }
        }
    }

    fn learn(&self, guard: u32) {
        self.guard.store(i32::try_from(guard).unwrap_or(0), Ordering::Relaxed);
    }

    /// Signals the tree. An order to a guard that is gone has nothing left to do.
    pub(crate) async fn order(&mut self, order: Order) {
        let _gone = self.control.write_all(&[order.to_byte()]).await;
    }

    /// Whether the guard came.
    pub(crate) fn has_guard(&self) -> bool {
        self.guard.load(Ordering::Relaxed) > 0
    }

    /// Who forks the guard.
    pub(crate) fn nursery(&self) -> Arc<Nursery> {
        Arc::clone(&self.nursery)
    }

    /// Kills a guard that hangs in the start; what it was starting dies with it. It is alive as
    /// long as its end of the socket is open, so its number cannot have been given anew.
    pub(crate) fn kill_guard(&self) {
        let guard = self.guard.load(Ordering::Relaxed);
        if guard > 0 {
            // One that has ended needs no signal.
            let _ended = kill(Pid::from_raw(guard), Signal::SIGKILL);
        }
    }

    /// Waits until the guard has ended, and so the whole tree: its end of the socket is closed.
    /// Whether it said before that nothing is left. Of one that was killed the nursery ends the rest,
    /// in its own time.
    pub(crate) async fn gone(&mut self) -> bool {
        let mut last = None;
        loop {
            match self.report().await {
                Ok(report) => last = report,
                Err(_) => return last == Some(Report::Gone),
            }
        }
    }

    async fn report(&mut self) -> io::Result<Option<Report>> {
        let mut bytes = [0; REPORT_BYTES];
        self.control.read_exact(&mut bytes).await?;
        Ok(Report::from_bytes(bytes))
    }
}

const fn exit_of(report: Option<Report>) -> Exit {
    match report {
        Some(Report::Exited { code }) => Exit::Code(code),
        Some(Report::Signaled { signal }) => Exit::Signal(signal),
        Some(Report::Abandoned) => Exit::Abandoned,
        Some(Report::Guard { .. } | Report::Started { .. } | Report::Failed { .. } | Report::Gone) | None => {
            Exit::Unseen
        }
    }
}
