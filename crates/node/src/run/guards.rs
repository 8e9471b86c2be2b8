//! Where the node gets guards from: it starts the nursery, and starts it again when it was ended
//! from outside.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::process::{Child, Command};

use super::nursery::GUARD_ARG;

/// A nursery that does not take a run's pipes in that time is given up.
const SEND_MAX: Duration = Duration::from_secs(5);

/// The nursery, when there is one.
#[derive(Debug)]
pub(crate) struct Guards {
    exe: Arc<Path>,
    nursery: Mutex<Option<Nursery>>,
}

#[derive(Debug)]
struct Nursery {
    /// Killed and reaped when this is dropped: one that is given up may hang. Its guards live on.
    _process: Child,
    socket: UnixStream,
}

impl Guards {
    /// None is started so far. `exe` must call [`super::nursery::run_if_guard`] first.
    pub(crate) const fn new(exe: Arc<Path>) -> Self {
        Self { exe, nursery: Mutex::new(None) }
    }

    /// Starts the nursery, so that the first run need not wait for it. For a blocking thread with
    /// a runtime. A failure is met again, and told, by the first run.
    pub(crate) fn warm(&self) {
        let mut held = self.nursery.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_none() {
            *held = Nursery::start(&self.exe).ok();
        }
    }

    /// Lets a guard be forked that has these ends: control socket, standard output, standard
    /// error, and standard input when it is asked for. For a blocking thread with a runtime.
    pub(crate) fn fork(&self, ends: &[OwnedFd]) -> io::Result<()> {
        let fds: Vec<RawFd> = ends.iter().map(|end| end.as_raw_fd()).collect();
        let mut held = self.nursery.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(nursery) = &*held
            && nursery.send(&fds).is_ok()
        {
            return Ok(());
        }
        let fresh = Nursery::start(&self.exe)?;
        fresh.send(&fds)?;
        *held = Some(fresh);
        Ok(())
    }
}

impl Nursery {
    fn start(exe: &Path) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_write_timeout(Some(SEND_MAX))?;
        let mut command = Command::new(exe);
        command.arg(GUARD_ARG).env_clear().current_dir("/").kill_on_drop(true);
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { _process: command.spawn()?, socket })
    }

    fn send(&self, fds: &[RawFd]) -> nix::Result<()> {
        let rights = [ControlMessage::ScmRights(fds)];
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(&[0])], &rights, flags, None).map(drop)
    }
}
