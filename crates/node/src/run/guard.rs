//! The guard: one small process per run that owns the run's process tree.
//!
//! It is a subreaper, so whatever the run starts (double-forked, in sessions of its own) stays
//! below it and is found and ended. It tells the node of the start and of the end of the main
//! process at the moment they happen, and when the node process or the nursery goes away it kills
//! everything. When the guard itself is killed, the main process dies with it, and the
//! nursery inherits and kills the rest. Never here: threads, a runtime, the run's output, decisions
//! about policy.

use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::protocol::{Launch, Order, Report, Step};
use super::{signals, tree};

/// Time that left-over processes get between TERM and KILL once the main process has ended.
const LEFTOVER_GRACE: Duration = Duration::from_millis(500);
/// First and longest wait between two rounds of killing.
const ROUND_MS: (u16, u16) = (2, 200);
/// What the system sends when the nursery ends. Whoever else sends it is ignored.
const NURSERY_GONE: Signal = Signal::SIGTERM;

/// The life of a guard that `nursery` forked, with its ends of a run's pipes. Returns the process's
/// exit status: 0 says that nothing of the run is left.
pub(super) fn live(nursery: Pid, ends: Ends) -> i32 {
    match Guard::prepare(nursery, ends.control).and_then(|mut guard| guard.live(ends.stdio)) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

/// What a guard gets from the node.
pub(super) struct Ends {
    /// The socket to the node.
    pub(super) control: UnixStream,
    /// The run's standard streams.
    pub(super) stdio: Streams,
}

/// The run's ends of its pipes.
pub(super) struct Streams {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

struct Guard {
    nursery: Pid,
    control: UnixStream,
    signals: SignalFd,
    main: Option<Pid>,
}

impl Guard {
    fn prepare(nursery: Pid, control: UnixStream) -> std::io::Result<Self> {
        // A group and no session of its own: for each new session the kernel makes a scheduling
        // group (`sched_autogroup_enabled`), whose first process waited up to 150 ms for a
        // processor beside a busy one.
        nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        nix::sys::prctl::set_child_subreaper(true)?;
        default_dispositions();
        // What is watched waits to be read. A nursery that went before shows as another parent.
        let signals = signals::watch(&[Signal::SIGCHLD, NURSERY_GONE])?;
        nix::sys::prctl::set_pdeathsig(NURSERY_GONE)?;
        Ok(Self { nursery, control, signals, main: None })
    }

    fn live(&mut self, streams: Streams) -> std::io::Result<()> {
        self.tell(Report::Guard { pid: std::process::id() });
        let launch = Launch::read_from(&mut self.control)?;
        if self.is_given_up() {
            return Ok(());
        }
        match start(&launch, streams) {
            Ok(pid) => {
                self.main = Some(Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX)));
                self.tell(Report::Started { pid });
                self.watch();
            }
            Err((step, errno)) => self.tell(Report::Failed { step, errno }),
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
                Wait::Order(Order::Term) => tree::signal_all(Signal::SIGTERM),
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
        tree::signal_all(Signal::SIGTERM);
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
            tree::signal_all(Signal::SIGKILL);
            if self.reap() {
                return;
            }
            let mut fds = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            let _woken = poll(&mut fds, wait_ms);
            self.drain_signals();
            wait_ms = (wait_ms * 2).min(ROUND_MS.1);
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
        nix::unistd::getppid() != self.nursery
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

/// Starts the program. The pipes are its own alone afterwards: a copy here would keep them open.
fn start(launch: &Launch, streams: Streams) -> Result<u32, (Step, i32)> {
    let errno = |error: std::io::Error| error.raw_os_error().unwrap_or(0);
    std::env::set_current_dir(&launch.cwd).map_err(|error| (Step::Cwd, errno(error)))?;
    let mut command = Command::new(&launch.program);
    if let Some((name, arguments)) = launch.argv.split_first() {
        command.arg0(name).args(arguments);
    }
    command.env_clear().envs(launch.env.iter().map(|(k, v)| (k, v)));
    command.stdin(streams.stdin.map_or_else(Stdio::null, Stdio::from));
    command.stdout(streams.stdout).stderr(streams.stderr);
    // What a run does to its own group (`kill 0`) must not reach the guard.
    command.process_group(0);
    prepare_child(&mut command);
    command.spawn().map(|child| child.id()).map_err(|error| (Step::Exec, errno(error)))
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

/// The guard's blocked signals must not be blocked in the run, and the run must not go on when the
/// guard is killed from outside.
#[expect(unsafe_code, reason = "both are set per process and can only be set between fork and exec")]
fn prepare_child(command: &mut Command) {
    // SAFETY: sigprocmask and prctl are async-signal-safe, and the closure does nothing else.
    unsafe {
        command.pre_exec(|| {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            Ok(SigSet::empty().thread_set_mask()?)
        });
    }
}
