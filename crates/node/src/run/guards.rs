//! Where the node gets guards from: it starts the nursery, and starts it again when it was ended
//! from outside.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::process::{Child, Command};

use super::nursery::GUARD_ARG;

/// A nursery that does not take a run's pipes in that time is given up.
const SEND_MAX: Duration = Duration::from_secs(5);
/// Nurseries that were given up and are kept because runs live by them. Beyond it the oldest is
/// killed, and its runs with it.
const GIVEN_UP_MAX: usize = 4;
/// Time that nurseries have for ending when the node does. Longer than they give to guards.
const END_MAX: Duration = Duration::from_secs(3);

/// The nursery, when there is one.
#[derive(Debug)]
pub(crate) struct Guards {
    exe: Arc<Path>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    nursery: Option<Nursery>,
    given_up: VecDeque<Nursery>,
}

#[derive(Debug)]
struct Nursery {
    /// Killed and reaped when this is dropped: one that is given up may hang.
    process: Child,
    socket: UnixStream,
}

impl Guards {
    /// None is started so far. `exe` must call [`super::nursery::run_if_guard`] first.
    pub(crate) fn new(exe: Arc<Path>) -> Self {
        Self { exe, held: Mutex::default() }
    }

    /// Starts the nursery, so that the first run need not wait for it. For a blocking thread with
    /// a runtime. A failure is met again, and told, by the first run.
    pub(crate) fn warm(&self) {
        let mut held = self.lock();
        if held.nursery.is_none() {
            held.nursery = Nursery::start(&self.exe).ok();
        }
    }

    /// Lets a guard be forked that has these ends: control socket, standard output, standard
    /// error, and standard input when it is asked for. For a blocking thread with a runtime.
    pub(crate) fn fork(&self, ends: &[OwnedFd]) -> io::Result<()> {
        let fds: Vec<RawFd> = ends.iter().map(|end| end.as_raw_fd()).collect();
        let mut held = self.lock();
        if let Some(nursery) = held.nursery.take() {
            match nursery.send(&fds) {
                Ok(()) => {
                    held.nursery = Some(nursery);
                    return Ok(());
                }
                // It hangs, and its runs do not: they would end with it.
                Err(Errno::EAGAIN) => held.give_up(nursery),
                // It is gone.
                Err(_) => drop(nursery),
            }
        }
        let fresh = Nursery::start(&self.exe)?;
        fresh.send(&fds)?;
        held.nursery = Some(fresh);
        Ok(())
    }

    /// Lets every nursery end, which is after the last process of its runs. One that does not is
    /// killed.
    pub(crate) async fn finish(&self) {
        let Held { nursery, given_up } = std::mem::take(&mut *self.lock());
        // Their sockets are closed here, all at once.
        let mut processes: Vec<Child> = nursery.into_iter().chain(given_up).map(|one| one.process).collect();
        if tokio::time::timeout(END_MAX, all_ended(&mut processes)).await.is_err() {
            tracing::warn!("a nursery did not end in its time; it is killed");
            for process in &mut processes {
                // One that has ended needs no signal.
                let _ended = process.start_kill();
            }
            // What KILL does not end the system holds on to.
            let _left = tokio::time::timeout(END_MAX, all_ended(&mut processes)).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Each change under the lock is complete before anything in it could panic.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn all_ended(processes: &mut [Child]) {
    for process in processes {
        // One that was reaped by somebody else has ended as well.
        let _ended = process.wait().await;
    }
}

impl Held {
    fn give_up(&mut self, nursery: Nursery) {
        self.given_up.push_back(nursery);
        if self.given_up.len() > GIVEN_UP_MAX {
            self.given_up.pop_front();
        }
    }
}

impl Nursery {
    fn start(exe: &Path) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_write_timeout(Some(SEND_MAX))?;
        let mut command = Command::new(exe);
        command.arg(GUARD_ARG).env_clear().current_dir("/").kill_on_drop(true);
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { process: command.spawn()?, socket })
    }

    fn send(&self, fds: &[RawFd]) -> nix::Result<()> {
        let rights = [ControlMessage::ScmRights(fds)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(&[0])], &rights, flags, None).map(drop)
    }
}
