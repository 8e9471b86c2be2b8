//! The guard: one small process per run that owns the run's process tree.
//!
//! It is a subreaper, so whatever the run starts (double-forked, in sessions of its own) stays
//! below it and is found and ended. It tells the node of the start and of the end of the main
//! process at the moment they happen, and when the node process or the nursery goes away it kills
//! everything. When the guard itself is killed, the main process dies with it, and the
//! nursery inherits and kills the rest. Inside of walls it is the first process of the run's own
//! namespace, and the kernel ends the tree with it. Never here: threads, a runtime, the run's output, decisions
//! about policy.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::protocol::{Launch, Order, Report};
use super::spawn::{self, Chamber};
use super::{signals, tree};
use crate::sandbox::step::Failed;
use crate::sandbox::{identity, room};

/// Time that left-over processes get between TERM and KILL once the main process has ended.
const LEFTOVER_GRACE: Duration = Duration::from_millis(500);
/// First and longest wait between two rounds of killing.
const ROUND_MS: (u16, u16) = (2, 200);
/// What the system sends when the nursery ends. Whoever else sends it is ignored.
const NURSERY_GONE: Signal = Signal::SIGTERM;

/// The life of a guard with its ends of a run's pipes. Returns the process's exit status: 0 says that
/// nothing of the run is left.
pub(super) fn live(nursery: Nursery, ends: Ends, chamber: Option<&Chamber>) -> i32 {
    let Ends { control, stdio, groups } = ends;
    let guard = Guard::prepare(nursery, control);
    match guard.and_then(|mut guard| guard.live(stdio, groups, chamber)) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

/// The nursery as its guards see it.
pub(super) enum Nursery {
    /// The parent, by its number.
    Parent(Pid),
    /// This process is the first of its namespace and sees no parent. The other end of this pipe is
    /// the nursery's alone.
    Beyond(OwnedFd),
}

impl Nursery {
    fn is_gone(&self) -> bool {
        match self {
            Self::Parent(pid) => nix::unistd::getppid() != *pid,
            Self::Beyond(pipe) => {
                let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::empty())];
                let _woken = poll(&mut fds, PollTimeout::ZERO);
                fds[0].any().unwrap_or(true)
            }
        }
    }

    /// Whether every other process that this one sees belongs to its run.
    const fn is_beyond(&self) -> bool {
        match self {
            Self::Parent(_) => false,
            Self::Beyond(_) => true,
        }
    }
}

/// What a guard gets from the node.
pub(super) struct Ends {
    /// The socket to the node.
    pub(super) control: UnixStream,
    /// The run's standard streams.
    pub(super) stdio: Streams,
    /// The ways into its control groups.
    pub(super) groups: Vec<OwnedFd>,
}

/// The run's ends of its pipes.
pub(super) struct Streams {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

struct Guard {
    nursery: Nursery,
    control: UnixStream,
    signals: SignalFd,
    main: Option<Pid>,
}

impl Guard {
    fn prepare(nursery: Nursery, control: UnixStream) -> std::io::Result<Self> {
        // A group and no session of its own: for each new session the kernel makes a scheduling
        // group (`sched_autogroup_enabled`), whose first process waited up to 150 ms for a
        // processor beside a busy one.
        nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        nix::sys::prctl::set_child_subreaper(true)?;
        default_dispositions();
        // What is watched waits to be read. A nursery that went before shows as another parent.
        let signals = signals::watch(&[Signal::SIGCHLD, NURSERY_GONE])?;
        // In a namespace of its own KILL ends all of it at once.
        let at_its_end = if nursery.is_beyond() { Signal::SIGKILL } else { NURSERY_GONE };
        nix::sys::prctl::set_pdeathsig(at_its_end)?;
        Ok(Self { nursery, control, signals, main: None })
    }

    fn live(
        &mut self,
        streams: Streams,
        groups: Vec<OwnedFd>,
        chamber: Option<&Chamber>,
    ) -> std::io::Result<()> {
        if !self.nursery.is_beyond() {
            // There the nursery tells it: here this process is number 1.
            self.tell(Report::Guard { pid: std::process::id() });
        }
        let launch = Launch::read_from(&mut self.control)?;
        if self.is_given_up() {
            return Ok(());
        }
        let started = begin(&launch, &streams, &groups, chamber);
        // The pipes are the program's alone: a copy here would keep them open.
        drop((streams, groups));
        match started {
            Ok(pid) => {
                self.main = Some(pid);
                self.tell(Report::Started { pid: pid.as_raw().cast_unsigned() });
                if chamber.is_some() {
                    give_up_rights()?;
                }
                self.watch();
                self.tell(Report::Gone);
            }
            Err(Failed { step, errno, .. }) => self.tell(Report::Failed { step, errno }),
        }
        Ok(())
    }

    /// Until the tree is gone.
    fn watch(&mut self) {
        loop {
            if self.reap() {
                return;
            }
            if self.main.is_none() {
                self.end_leftovers();
                return;
            }
            match self.wait_order(None) {
                Wait::Order(Order::Term) => self.signal_all(Signal::SIGTERM),
                Wait::Order(Order::Kill) | Wait::NodeGone => {
                    self.kill_all();
                    return;
                }
                Wait::NurseryGone => {
                    self.tell(Report::Abandoned);
                    self.kill_all();
                    return;
                }
                Wait::Nothing => {}
            }
        }
    }

    /// The main process has ended: what it left is asked, waited for shortly, and killed.
    fn end_leftovers(&mut self) {
        self.signal_all(Signal::SIGTERM);
        let until = Instant::now() + LEFTOVER_GRACE;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            if self.reap() {
                return;
            }
            let ms = u16::try_from(left.as_millis()).unwrap_or(u16::MAX).saturating_add(1);
            match self.wait_order(Some(ms)) {
                Wait::Order(Order::Kill) | Wait::NodeGone | Wait::NurseryGone => break,
                Wait::Order(Order::Term) | Wait::Nothing => {}
            }
        }
        self.kill_all();
    }

    /// Rounds of KILL until nothing is left below; what forks meanwhile falls in the next round.
    fn kill_all(&mut self) {
        let mut wait_ms = ROUND_MS.0;
        loop {
            self.signal_all(Signal::SIGKILL);
            if self.reap() {
                return;
            }
            let mut fds = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            let _woken = poll(&mut fds, wait_ms);
            self.drain_signals();
            wait_ms = (wait_ms * 2).min(ROUND_MS.1);
        }
    }

    fn signal_all(&self, signal: Signal) {
        if self.nursery.is_beyond() {
            // All but the first of the namespace, which is this one. With nobody left it fails.
            let _none = kill(Pid::from_raw(-1), signal);
        } else {
            tree::signal_all(signal);
        }
    }

    /// Takes in every child that has ended; tells the end of the main one. Whether none is left:
    /// as a subreaper this process is the parent of every orphan, so no child means no descendant.
    fn reap(&mut self) -> bool {
        loop {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => self.ended(pid, Report::Exited { code }),
                Ok(WaitStatus::Signaled(pid, signal, _core)) => {
                    self.ended(pid, Report::Signaled { signal: signal as i32 });
                }
                Ok(WaitStatus::StillAlive) => return false,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return true,
            }
        }
    }

    fn ended(&mut self, pid: Pid, report: Report) {
        if self.main == Some(pid) {
            self.main = None;
            self.tell(report);
        }
    }

    fn wait_order(&mut self, timeout_ms: Option<u16>) -> Wait {
        let timeout = timeout_ms.map_or(PollTimeout::NONE, PollTimeout::from);
        let ready = {
            let mut fds = [
                PollFd::new(self.control.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            let _woken = poll(&mut fds, timeout);
            fds[0].any().unwrap_or(false)
        };
        self.drain_signals();
        if self.has_lost_nursery() {
            return Wait::NurseryGone;
        }
        if !ready {
            return Wait::Nothing;
        }
        let mut byte = [0];
        match self.control.read(&mut byte) {
            Ok(1) => Order::from_byte(byte[0]).map_or(Wait::Nothing, Wait::Order),
            Ok(_) | Err(_) => Wait::NodeGone,
        }
    }

    /// Whether nobody wants the run any more: a node that gave the start up has closed its end
    /// before it says so, and a program that started after that would be one too many.
    fn is_given_up(&self) -> bool {
        let mut fds = [PollFd::new(self.control.as_fd(), PollFlags::empty())];
        let _woken = poll(&mut fds, PollTimeout::ZERO);
        fds[0].any().unwrap_or(true) || self.has_lost_nursery()
    }

    /// Without the nursery nobody would inherit the run from this process.
    fn has_lost_nursery(&self) -> bool {
        self.nursery.is_gone()
    }

    fn drain_signals(&self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
    }

    fn tell(&mut self, report: Report) {
        // A node that is gone is noticed by the next wait, which kills the tree.
        let _told = self.control.write_all(&report.to_bytes());
    }
}

enum Wait {
    Order(Order),
    NodeGone,
    NurseryGone,
    Nothing,
}

/// Makes what is the run's own in its room, and starts the program.
fn begin(
    launch: &Launch,
    streams: &Streams,
    groups: &[OwnedFd],
    chamber: Option<&Chamber>,
) -> Result<Pid, Failed> {
    if let (Some(chamber), Some(confined)) = (chamber, &launch.confined) {
        room::settle_in(&chamber.room, &confined.own)?;
    }
    spawn::start(launch, streams, groups, chamber)
}

/// What a guard needs once its run has started is to signal it, whoever is its user; and a run must
/// not look into it.
fn give_up_rights() -> std::io::Result<()> {
    identity::keep_kill_only()?;
    Ok(nix::sys::prctl::set_dumpable(false)?)
}

/// What the node's starter ignored (`nohup`) must not be ignored by a run.
#[expect(unsafe_code, reason = "signal(2) has no safe form; only SIG_DFL is set, in a single thread")]
fn default_dispositions() {
    for one in
        Signal::iterator().filter(|one| !matches!(one, Signal::SIGKILL | Signal::SIGSTOP | Signal::SIGPIPE))
    {
        // SAFETY: SIG_DFL installs no handler, and no other thread exists.
        let _set = unsafe { signal(one, SigHandler::SigDfl) };
    }
}
