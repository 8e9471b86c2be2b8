//! The nursery: one small process per node and set of walls that forks the guards of its runs.
//!
//! Starting a guard by exec costs three times what the command `true` costs, nearly all of it in
//! the dynamic linker; a fork of a process that was linked once costs a tenth of that. The node
//! itself cannot fork: it has threads. So it starts its own program once as the nursery, which has
//! none, and sends it the ends of each run's pipes.
//!
//! With walls it is a room: it makes the namespaces and the file system of the walls once, at its
//! start, and every guard that it forks is in them. Without, it leaves everything as it is.
//!
//! It stands above the guards as a subreaper: what a killed guard leaves behind becomes its own
//! child, and is killed. The nursery ends after the node process: its socket is closed then, the
//! guards end their runs, and guards that do not are killed. Never here: threads, a runtime,
//! arguments of commands.

use std::collections::BTreeSet;
use std::io::{IoSliceMut, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use super::guard::{self, Ends, Streams};
use super::protocol::Report;
use super::spawn::Chamber;
use super::{signals, tree};
use crate::sandbox::room;
use crate::sandbox::step::{Failed, Step};
use crate::sandbox::walls::{self, Room};

/// The argument that makes a program a nursery.
pub const GUARD_ARG: &str = "__guard";
/// The argument after it that makes it a room: which one, its first message says.
pub(super) const ROOM_ARG: &str = "room";
/// Control socket, standard output, standard error, standard input when it was asked for, and two
/// control groups.
pub(super) const ENDS_MAX: usize = 6;
/// The byte that comes with a run's ends says whether standard input is among them.
pub(super) const WITH_STDIN: u8 = 1;
/// First and longest wait between two rounds of killing orphans.
const ROUND: (Duration, Duration) = (Duration::from_millis(2), Duration::from_secs(1));
/// Time that guards get to end their runs once the node is gone. Five times that is all that is
/// waited for what KILL does not end.
const PATIENCE: Duration = Duration::from_secs(2);

/// Turns this process into a nursery when it was started as one, and then never returns. Call it
/// first in `main`, before any thread or runtime.
#[expect(clippy::disallowed_methods, reason = "main must not go on in a nursery or a guard")]
pub fn run_if_guard() {
    if std::env::args_os().nth(1).is_some_and(|arg| arg == GUARD_ARG) {
        std::process::exit(serve());
    }
}

/// The nursery's life, and that of each guard that it forks. Standard input is the socket to the
/// node. Returns the process's exit status.
fn serve() -> i32 {
    let is_room = std::env::args_os().nth(2).is_some_and(|arg| arg == ROOM_ARG);
    let Ok(mut nursery) = Nursery::prepare() else { return 1 };
    if is_room {
        match become_room() {
            Ok(chamber) => nursery.inhabit(chamber),
            // The node was told, or is gone.
            Err(_) => return 1,
        }
    }
    while !nursery.is_done() {
        let has_ends = nursery.wait();
        nursery.reap();
        nursery.kill_orphans();
        if !has_ends {
            continue;
        }
        match receive() {
            Ok(Some(ends)) => match nursery.fork_guard() {
                Ok(Forked::Nursery(child)) => nursery.took(child, ends),
                // A node that gets no guard sees its ends closed.
                Err(_) => drop(ends),
                Ok(Forked::Guard(parent)) => {
                    let chamber = nursery.chamber.take();
                    drop(nursery);
                    return become_guard(parent, ends, chamber.as_ref());
                }
            },
            Ok(None) | Err(_) => nursery.leave(),
        }
    }
    0
}

/// Reads which room this is, makes it, and says so.
fn become_room() -> std::io::Result<Chamber> {
    let mut node = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let read = Room::read_from(&mut node);
    let room = match read {
        Ok(room) => room,
        Err(error) => {
            walls::answer(&mut node, &Err(Failed::by(Step::Order)(error)))?;
            return Err(std::io::ErrorKind::InvalidData.into());
        }
    };
    let entered = room::enter(&room);
    walls::answer(&mut node, &entered)?;
    match entered {
        Ok(()) => Ok(Chamber::new(room)),
        Err(failed) => Err(std::io::Error::from_raw_os_error(failed.errno)),
    }
}

/// Who goes on after a fork.
enum Forked {
    Nursery(Pid),
    Guard(guard::Nursery),
}

struct Nursery {
    own: Pid,
    /// What it is inside of, when it is a room.
    chamber: Option<Chamber>,
    /// A pipe of which nobody else holds the second end: guards that see no parent hear by the first
    /// that this process has ended.
    life: Option<(OwnedFd, OwnedFd)>,
    /// Tells of children that ended.
    signals: SignalFd,
    guards: BTreeSet<i32>,
    /// Set while there may be orphans.
    sweep: Option<Sweep>,
    /// When the node went.
    left: Option<Instant>,
}

/// Rounds of KILL, until two in a row find nobody: one may miss what is forked while it looks.
struct Sweep {
    due: Instant,
    wait: Duration,
    quiet: u8,
}

impl Nursery {
    fn prepare() -> std::io::Result<Self> {
        leave_terminal();
        close_inherited();
        nix::sys::prctl::set_child_subreaper(true)?;
        hear_of_children()?;
        let signals = signals::watch(&[Signal::SIGCHLD])?;
        Ok(Self {
            own: nix::unistd::getpid(),
            chamber: None,
            life: None,
            signals,
            guards: BTreeSet::new(),
            sweep: None,
            left: None,
        })
    }

    fn inhabit(&mut self, chamber: Chamber) {
        self.life = chamber.room.is_full().then(|| nix::unistd::pipe2(OFlag::O_CLOEXEC).ok()).flatten();
        self.chamber = Some(chamber);
    }

    /// A guard, in a process namespace of its own when the room has such.
    fn fork_guard(&mut self) -> std::io::Result<Forked> {
        if !self.has_numbers() {
            return Ok(match fork_here()? {
                ForkResult::Parent { child } => Forked::Nursery(child),
                ForkResult::Child => Forked::Guard(guard::Nursery::Parent(self.own)),
            });
        }
        let life = self.life.take().ok_or(Errno::EMFILE)?;
        let forked = room::fork_first();
        if matches!(forked, Ok(0)) {
            // The second end is closed here.
            return Ok(Forked::Guard(guard::Nursery::Beyond(life.0)));
        }
        self.life = Some(life);
        Ok(Forked::Nursery(Pid::from_raw(forked?)))
    }

    fn has_numbers(&self) -> bool {
        self.chamber.as_ref().is_some_and(|chamber| chamber.room.is_full())
    }

    /// A guard that does not see its own number is told of here.
    fn took(&mut self, guard: Pid, mut ends: Ends) {
        self.guards.insert(guard.as_raw());
        if self.has_numbers() {
            // A node that is gone needs no number.
            let _told =
                ends.control.write_all(&Report::Guard { pid: guard.as_raw().cast_unsigned() }.to_bytes());
        }
    }

    /// Until a run's pipes come, a child ends or a round is due. Whether pipes came, or the node went.
    fn wait(&self) -> bool {
        let guards_end = self.left.filter(|_| !self.guards.is_empty()).map(|left| left + PATIENCE);
        let due = [self.sweep.as_ref().map(|sweep| sweep.due), guards_end];
        let timeout = due.into_iter().flatten().min().map_or(PollTimeout::NONE, |due| {
            let ms = due.saturating_duration_since(Instant::now()).as_millis() + 1;
            PollTimeout::from(u16::try_from(ms).unwrap_or(u16::MAX))
        });
        let stdin = std::io::stdin();
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if self.left.is_none() {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        let _woken = poll(&mut fds, timeout);
        let has_ends = fds.get(1).is_some_and(|fd| fd.any().unwrap_or(false));
        while let Ok(Some(_)) = self.signals.read_signal() {}
        has_ends
    }

    /// Takes in every child that has ended. A guard that could not see its run to the end leaves
    /// orphans, and so may an orphan.
    fn reap(&mut self) {
        loop {
            let (pid, is_good) = match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code == 0),
                Ok(WaitStatus::Signaled(pid, ..)) => (pid, false),
                Ok(WaitStatus::StillAlive) => return,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(_) => return,
            };
            if !(self.guards.remove(&pid.as_raw()) && is_good) {
                self.sweep_now();
            }
        }
    }

    fn sweep_now(&mut self) {
        self.sweep = Some(Sweep { due: Instant::now(), wait: ROUND.0, quiet: 0 });
    }

    /// One round of KILL for all below this process that no guard has, when it is due.
    fn kill_orphans(&mut self) {
        if self.left.is_some_and(|left| left.elapsed() >= PATIENCE) && !self.guards.is_empty() {
            // They had their time; what they leave is killed here.
            self.guards.clear();
            self.sweep_now();
        }
        let Some(sweep) = &mut self.sweep else { return };
        if sweep.due > Instant::now() {
            return;
        }
        let orphans = tree::signal_all_but(Signal::SIGKILL, &self.guards);
        sweep.quiet = if orphans == 0 { sweep.quiet + 1 } else { 0 };
        sweep.due = Instant::now() + sweep.wait;
        sweep.wait = (sweep.wait * 2).min(ROUND.1);
        if sweep.quiet == 2 {
            self.sweep = None;
        }
    }

    /// The node process is gone; the guards know it as well.
    fn leave(&mut self) {
        self.left = Some(Instant::now());
    }

    /// Whether nothing is left to do, or only what the system itself holds on to.
    fn is_done(&self) -> bool {
        self.left.is_some_and(|left| {
            (self.guards.is_empty() && self.sweep.is_none()) || left.elapsed() >= PATIENCE * 5
        })
    }
}

/// The next ends, or nothing when the node process is gone.
fn receive() -> nix::Result<Option<Ends>> {
    let mut byte = [0];
    let fds = receive_into(&mut byte)?;
    let Some(fds) = fds else { return Ok(None) };
    let mut fds = fds.into_iter();
    let (Some(control), Some(stdout), Some(stderr)) = (fds.next(), fds.next(), fds.next()) else {
        return Err(Errno::EPROTO);
    };
    let stdin = if byte == [WITH_STDIN] { fds.next() } else { None };
    let stdio = Streams { stdin, stdout, stderr };
    Ok(Some(Ends { control: UnixStream::from(control), stdio, groups: fds.collect() }))
}

fn receive_into(byte: &mut [u8; 1]) -> nix::Result<Option<Vec<OwnedFd>>> {
    let socket = std::io::stdin();
    let mut space = nix::cmsg_space!([RawFd; ENDS_MAX]);
    let mut parts = [IoSliceMut::new(byte)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    if message.bytes == 0 {
        return Ok(None);
    }
    let mut fds = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = part {
            fds.extend(numbers.into_iter().map(own));
        }
    }
    Ok(Some(fds))
}

/// A terminal's Ctrl-C is for the node, which ends its runs in order, and its keyboard is not for
/// runs. No session of its own, which would do both: see [`guard`] for what that costs. Without a
/// terminal there is nothing to leave.
#[expect(unsafe_code, reason = "ioctl(2) has no safe form; TIOCNOTTY takes no argument")]
fn leave_terminal() {
    // Fails for the leader of a session alone, which has its group already.
    let _own_group = nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0));
    if let Ok(terminal) = std::fs::File::open("/dev/tty") {
        // SAFETY: the descriptor is open, and the request reads and writes no memory.
        let _left = unsafe { nix::libc::ioctl(terminal.as_raw_fd(), nix::libc::TIOCNOTTY) };
    }
}

fn become_guard(nursery: guard::Nursery, ends: Ends, chamber: Option<&Chamber>) -> i32 {
    // The nursery's socket must not stay open here: its end tells the nursery that the node is gone,
    // and that of the node that the nursery is.
    let Ok(null) = std::fs::File::open("/dev/null") else { return 1 };
    if nix::unistd::dup2_stdin(&null).is_err() {
        return 1;
    }
    drop(null);
    guard::live(nursery, ends, chamber)
}

/// Closes what came from the node's own starter beside the standard streams. What this program
/// opens itself is close-on-exec and is not among it.
fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let fds: Vec<RawFd> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for fd in fds.into_iter().filter(|fd| *fd > 2) {
        // The listing's own descriptor is closed by now; that is no failure.
        let _closed = nix::unistd::close(fd);
    }
}

/// The node's starter may have ignored the ends of children, which is inherited.
#[expect(unsafe_code, reason = "signal(2) has no safe form; only SIG_DFL is set, in a single thread")]
fn hear_of_children() -> nix::Result<()> {
    // SAFETY: SIG_DFL installs no handler, and no other thread exists.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }.map(drop)
}

#[expect(unsafe_code, reason = "fork is safe in a process that has one thread and never had another")]
fn fork_here() -> nix::Result<ForkResult> {
    // SAFETY: `run_if_guard` comes before any thread.
    unsafe { fork() }
}

#[expect(unsafe_code, reason = "the system gives received descriptors as numbers")]
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: it was received just now, so nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}
