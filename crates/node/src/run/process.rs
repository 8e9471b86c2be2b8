//! A process behind its guard: start it, signal its tree, hear of its end. Dropping a [`Process`]
//! closes the guard's control socket, and the guard kills the tree. Never here: output, policy.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;

use super::guards::Guards;
use super::protocol::{Launch, Order, REPORT_BYTES, Report, Step};

/// A guarded process and its pipes.
#[derive(Debug)]
pub(crate) struct Process {
    /// The guard, once it has told its number.
    guard: Option<Pid>,
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
    #[error("{1}")]
    Refused(Step, io::Error),
}

impl Process {
    /// Begins a guard, which starts nothing so far. May block: for a blocking thread with a runtime.
    pub(crate) fn begin(guards: &Guards, with_stdin: bool) -> io::Result<Self> {
        let (control, control_end) = UnixStream::pair()?;
        let (stdout, stdout_end) = io::pipe()?;
        let (stderr, stderr_end) = io::pipe()?;
        let stdin = with_stdin.then(io::pipe).transpose()?;
        let mut ends: Vec<OwnedFd> = vec![control_end.into(), stdout_end.into(), stderr_end.into()];
        let stdin = stdin.map(|(end, writer)| {
            ends.push(end.into());
            writer
        });
        guards.fork(&ends)?;
        drop(ends);
        control.set_nonblocking(true)?;
        Ok(Self {
            guard: None,
            control: tokio::net::UnixStream::from_std(control)?,
            stdout: Some(pipe::Receiver::from_owned_fd(stdout.into())?),
            stderr: Some(pipe::Receiver::from_owned_fd(stderr.into())?),
            stdin: stdin.map(|writer| pipe::Sender::from_owned_fd(writer.into())).transpose()?,
        })
    }

    /// Hands the guard what to start, and waits until the program runs.
    pub(crate) async fn start(&mut self, launch: &Launch) -> Result<u32, NotStarted> {
        self.control.write_all(&launch.to_bytes()).await.map_err(NotStarted::Guard)?;
        let mut report = self.report().await;
        if let Ok(Some(Report::Guard { pid })) = report {
            self.guard = i32::try_from(pid).ok().map(Pid::from_raw);
            report = self.report().await;
        }
        match report {
            Ok(Some(Report::Started { pid })) => Ok(pid),
            Ok(Some(Report::Failed { step, errno })) => {
                Err(NotStarted::Refused(step, io::Error::from_raw_os_error(errno)))
            }
            Ok(
                Some(
                    Report::Guard { .. }
                    | Report::Exited { .. }
                    | Report::Signaled { .. }
                    | Report::Abandoned,
                )
                | None,
            ) => Err(NotStarted::Guard(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => Err(NotStarted::Guard(error)),
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
                Ok(REPORT_BYTES) => return exit_of(Report::from_bytes(bytes)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => return Exit::Unseen,
            }
        }
    }

    /// Signals the tree. An order to a guard that is gone has nothing left to do.
    pub(crate) async fn order(&mut self, order: Order) {
        let _gone = self.control.write_all(&[order.to_byte()]).await;
    }

    /// Kills a guard that hangs in the start; what it was starting dies with it. It is alive as
    /// long as its end of the socket is open, so its number cannot have been given anew.
    pub(crate) fn kill_guard(&self) {
        if let Some(pid) = self.guard {
            // One that has ended needs no signal.
            let _ended = kill(pid, Signal::SIGKILL);
        }
    }

    /// Waits until the guard has ended, and so the whole tree: its end of the socket is closed.
    pub(crate) async fn gone(&mut self) {
        let mut rest = [0; 16];
        while !matches!(self.control.read(&mut rest).await, Ok(0) | Err(_)) {}
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
        Some(Report::Guard { .. } | Report::Started { .. } | Report::Failed { .. }) | None => Exit::Unseen,
    }
}
