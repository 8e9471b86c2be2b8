//! A process behind its guard: start it, signal its tree, hear of its end. Dropping a [`Process`]
//! closes the guard's control socket, and the guard kills the tree. Never here: output, policy.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};

use super::guard::GUARD_ARG;
use super::protocol::{Launch, Order, REPORT_BYTES, Report, Step};

/// Held from the moment a pipe may be inherited until the guard that is to inherit it is there,
/// so that no other guard gets it.
static SPAWN: Mutex<()> = Mutex::new(());

/// A guarded process and its pipes.
#[derive(Debug)]
pub(crate) struct Process {
    guard: Child,
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
    /// Begins a guard and hands it `launch`. Blocks shortly: for a blocking thread with a runtime.
    pub(crate) fn begin(guard_exe: &Path, mut launch: Launch, with_stdin: bool) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        let (stdout, stdout_end) = io::pipe()?;
        let (stderr, stderr_end) = io::pipe()?;
        let stdin = with_stdin.then(io::pipe).transpose()?;
        let mut command = Command::new(guard_exe);
        command.arg(GUARD_ARG).env_clear().current_dir("/");
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        command.stdout(Stdio::from(stdout_end)).stderr(Stdio::from(stderr_end));
        let (guard, stdin) = {
            let _one_at_a_time = SPAWN.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((end, _)) = &stdin {
                fcntl(end, FcntlArg::F_SETFD(FdFlag::empty()))?;
                launch.stdin_fd = Some(end.as_raw_fd());
            }
            let guard = command.spawn();
            let writer = stdin.map(|(_end, writer)| writer);
            (guard?, writer)
        };
        drop(command);
        io::Write::write_all(&mut &ours, &launch.to_bytes())?;
        ours.set_nonblocking(true)?;
        Ok(Self {
            guard,
            control: tokio::net::UnixStream::from_std(ours)?,
            stdout: Some(pipe::Receiver::from_owned_fd(stdout.into())?),
            stderr: Some(pipe::Receiver::from_owned_fd(stderr.into())?),
            stdin: stdin.map(|writer| pipe::Sender::from_owned_fd(writer.into())).transpose()?,
        })
    }

    /// Waits until the program runs.
    pub(crate) async fn started(&mut self) -> Result<u32, NotStarted> {
        match self.report().await {
            Ok(Some(Report::Started { pid })) => Ok(pid),
            Ok(Some(Report::Failed { step, errno })) => {
                Err(NotStarted::Refused(step, io::Error::from_raw_os_error(errno)))
            }
            Ok(Some(Report::Exited { .. } | Report::Signaled { .. }) | None) => {
                Err(NotStarted::Guard(io::ErrorKind::UnexpectedEof.into()))
            }
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

    /// Kills a guard that hangs in the start; what it was starting dies with it.
    pub(crate) fn kill_guard(&mut self) {
        // One that has ended needs no signal.
        let _ended = self.guard.start_kill();
    }

    /// Waits until the guard has ended, and so the whole tree.
    pub(crate) async fn gone(&mut self) {
        let _status = self.guard.wait().await;
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
        Some(Report::Started { .. } | Report::Failed { .. }) | None => Exit::Unseen,
    }
}
