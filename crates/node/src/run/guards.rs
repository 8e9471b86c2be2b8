//! Where the node gets guards from: it starts a nursery without walls and one per set of walls that
//! is in use, and starts them again when they were ended from outside.
//!
//! A run holds on to its nursery, so one that is let go (it hangs, its policy changed, others were
//! used since) ends after the last of its runs, and never before. Never here: what walls are made of.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use cortex_core::limits::ROOMS_MAX;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::process::{Child, Command};

use super::nursery::{GUARD_ARG, ROOM_ARG, WITH_STDIN};
use crate::sandbox::step::Failed;
use crate::sandbox::walls::{self, Room};

/// A nursery that has no room for a run's pipes in that time, or does not answer as a room, is given up.
const SEND_MAX: Duration = Duration::from_secs(5);
/// Time that nurseries have for ending when the node does. Longer than they give to guards.
const END_MAX: Duration = Duration::from_secs(3);

/// The nurseries, when there are any.
#[derive(Debug)]
pub(crate) struct Guards {
    exe: Arc<Path>,
    open: Arc<Slot>,
    /// By use: the last one was used last.
    rooms: Mutex<Vec<(Vec<u8>, Arc<Slot>)>>,
    /// Every nursery that lives, for the end.
    all: Mutex<Vec<Weak<Nursery>>>,
}

/// The place of a nursery. Locked while it starts, so that two runs do not start two.
#[derive(Debug, Default)]
struct Slot(Mutex<Option<Arc<Nursery>>>);

/// A nursery. Its process ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Nursery {
    /// Killed and reaped when it is dropped: one that is given up may hang.
    process: Mutex<Option<Child>>,
    socket: Mutex<Option<UnixStream>>,
}

/// Why there is no guard.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoGuard {
    /// The nursery itself.
    #[error("{0}")]
    System(#[from] io::Error),
    /// The walls could not be put up.
    #[error("{0}")]
    Walls(Failed),
}

impl Guards {
    /// None is started so far. `exe` must call [`super::nursery::run_if_guard`] first.
    pub(crate) fn new(exe: Arc<Path>) -> Self {
        Self { exe, open: Arc::default(), rooms: Mutex::default(), all: Mutex::default() }
    }

    /// Starts the nursery without walls, so that the first run need not wait for it. For a blocking
    /// thread with a runtime. A failure is met again, and told, by the first run.
    pub(crate) fn warm(&self) {
        let mut held = lock(&self.open.0);
        if held.is_none() {
            *held = self.begin(None).ok();
        }
    }

    /// Starts the nursery of a room, likewise, and lets go of every other room: their policy is
    /// over.
    pub(crate) fn keep_only(&self, room: Option<&Room>) {
        let key = room.map(Room::to_bytes);
        lock(&self.rooms).retain(|(other, _)| key.as_ref() == Some(other));
        if let Some(room) = room {
            let slot = self.slot(room);
            let mut held = lock(&slot.0);
            if held.is_none() {
                *held = self.begin(Some(room)).ok();
            }
        }
    }

    /// Lets a guard be forked that has these ends: control socket, standard output, standard
    /// error, standard input when it is asked for, and the ways into control groups. The run holds
    /// what is returned. For a blocking thread with a runtime.
    pub(crate) fn fork(
        &self,
        room: Option<&Room>,
        ends: &[OwnedFd],
        with_stdin: bool,
    ) -> Result<Arc<Nursery>, NoGuard> {
        let fds: Vec<RawFd> = ends.iter().map(|end| end.as_raw_fd()).collect();
        let slot = room.map_or_else(|| Arc::clone(&self.open), |room| self.slot(room));
        let mut held = lock(&slot.0);
        if let Some(nursery) = held.take()
            && nursery.send(&fds, with_stdin).is_ok()
        {
            *held = Some(Arc::clone(&nursery));
            return Ok(nursery);
        }
        // It is gone, or it hangs; its runs do not, and would end with it.
        let fresh = self.begin(room)?;
        fresh.send(&fds, with_stdin).map_err(io::Error::from)?;
        *held = Some(Arc::clone(&fresh));
        Ok(fresh)
    }

    /// Gives up a nursery that has taken a run's ends and forks no guard for them, so that the next run
    /// gets another. For a blocking thread.
    pub(crate) fn give_up(&self, nursery: &Arc<Nursery>) {
        let rooms: Vec<Arc<Slot>> = lock(&self.rooms).iter().map(|(_, slot)| Arc::clone(slot)).collect();
        for slot in rooms.iter().chain([&self.open]) {
            drop(lock(&slot.0).take_if(|held| Arc::ptr_eq(held, nursery)));
        }
    }

    /// Lets every nursery end, which is after the last process of its runs. One that does not is
    /// killed.
    pub(crate) async fn finish(&self) {
        let all = std::mem::take(&mut *lock(&self.all));
        let living: Vec<Arc<Nursery>> = all.iter().filter_map(Weak::upgrade).collect();
        lock(&self.open.0).take();
        lock(&self.rooms).clear();
        // Their sockets are closed here, all at once.
        living.iter().for_each(|one| drop(lock(&one.socket).take()));
        let mut processes: Vec<Child> = living.iter().filter_map(|one| lock(&one.process).take()).collect();
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

    /// The place of a room, which is the last one to go from here on. What has to go for it ends
    /// after its runs.
    fn slot(&self, room: &Room) -> Arc<Slot> {
        let key = room.to_bytes();
        let mut rooms = lock(&self.rooms);
        let found = rooms.iter().position(|(other, _)| *other == key).map(|at| rooms.remove(at));
        let (key, slot) = found.unwrap_or_else(|| (key, Arc::default()));
        if rooms.len() >= ROOMS_MAX {
            rooms.remove(0);
        }
        rooms.push((key, Arc::clone(&slot)));
        slot
    }

    fn begin(&self, room: Option<&Room>) -> Result<Arc<Nursery>, NoGuard> {
        let nursery = Arc::new(Nursery::start(&self.exe, room)?);
        let mut all = lock(&self.all);
        all.retain(|one| one.strong_count() > 0);
        all.push(Arc::downgrade(&nursery));
        Ok(nursery)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change under a lock is complete before anything in it could panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn all_ended(processes: &mut [Child]) {
    for process in processes {
        // One that was reaped by somebody else has ended as well.
        let _ended = process.wait().await;
    }
}

impl Nursery {
    fn start(exe: &Path, room: Option<&Room>) -> Result<Self, NoGuard> {
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_write_timeout(Some(SEND_MAX))?;
        socket.set_read_timeout(Some(SEND_MAX))?;
        let mut command = Command::new(exe);
        command.arg(GUARD_ARG).args(room.map(|_| ROOM_ARG)).env_clear().current_dir("/").kill_on_drop(true);
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::null());
        #[cfg(feature = "failpoints")]
        command.envs(std::env::var_os("FAILPOINT_KILLS").map(|folder| ("FAILPOINT_KILLS", folder)));
        let process = command.spawn()?;
        // It holds the other end of the socket alone.
        drop(command);
        if let Some(room) = room {
            io::Write::write_all(&mut &socket, &room.to_bytes())?;
            walls::answered(&mut &socket)?.map_err(NoGuard::Walls)?;
        }
        Ok(Self { process: Mutex::new(Some(process)), socket: Mutex::new(Some(socket)) })
    }

    fn send(&self, fds: &[RawFd], with_stdin: bool) -> nix::Result<()> {
        let socket = lock(&self.socket);
        let socket = socket.as_ref().ok_or(Errno::EPIPE)?;
        let rights = [ControlMessage::ScmRights(fds)];
        let byte = [if with_stdin { WITH_STDIN } else { 0 }];
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&byte)], &rights, flags, None).map(drop)
    }
}

impl Drop for Nursery {
    /// Lets its process end by itself, which is after the last of its runs.
    fn drop(&mut self) {
        let Some(mut process) = lock(&self.process).take() else { return };
        drop(lock(&self.socket).take());
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        drop(runtime.spawn(async move {
            if tokio::time::timeout(END_MAX, process.wait()).await.is_err() {
                // One that has ended needs no signal.
                let _ended = process.start_kill();
                let _reaped = process.wait().await;
            }
        }));
    }
}
