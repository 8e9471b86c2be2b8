//! The guard: one small process per run that owns the run's process tree.
//!
//! It is a session leader and a subreaper, so whatever the run starts (double-forked, in sessions
//! of its own) stays below it and is found and ended. It tells the node of the start and of the
//! end of the main process at the moment they happen, and when the node process goes away it kills
//! everything. Never here: threads, a runtime, the run's output, decisions about policy.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::protocol::{Launch, Order, Report, Step};
use super::tree;

/// The argument that makes a program a guard.
pub const GUARD_ARG: &str = "__guard";
/// Time that left-over processes get between TERM and KILL once the main process has ended.
const LEFTOVER_GRACE: Duration = Duration::from_millis(500);
/// First and longest wait between two rounds of killing.
const ROUND_MS: (u16, u16) = (2, 200);

/// Turns this process into a guard when it was started as one, and then never returns. Call it
/// first in `main`, before any thread or runtime.
#[expect(
    clippy::disallowed_methods,
    reason = "a guard has no runtime and nothing to drop; main must not go on"
)]
pub fn run_if_guard() {
    if std::env::args_os().nth(1).is_some_and(|arg| arg == GUARD_ARG) {
        std::process::exit(guard_main());
    }
}

/// The guard's life. Standard input is the control socket; standard output and error are the
/// run's pipes. Returns the process's exit status.
fn guard_main() -> i32 {
    match prepare().and_then(|mut guard| guard.live()) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

struct Guard {
    control: UnixStream,
    signals: SignalFd,
    main: Option<Pid>,
}

fn prepare() -> std::io::Result<Guard> {
    let control = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    // A guard started by a shell is a group leader already; it has no terminal to lose.
    let _own_session = nix::unistd::setsid();
    nix::sys::prctl::set_child_subreaper(true)?;
    default_dispositions();
    let mut mask = SigSet::empty();
    for one in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
        mask.add(one);
    }
    mask.thread_set_mask()?;
    let mut watched = SigSet::empty();
    watched.add(Signal::SIGCHLD);
    let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    Ok(Guard { control, signals, main: None })
}

impl Guard {
    fn live(&mut self) -> std::io::Result<()> {
        let launch = Launch::read_from(&mut self.control)?;
        let stdin = open_stdin(launch.stdin_fd)?;
        self.close_inherited()?;
        let started = self.start(&launch, stdin);
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
        // The pipes belong to the run alone: a copy here would keep them open.
        nix::unistd::dup2_stdout(&null)?;
        nix::unistd::dup2_stderr(&null)?;
        match started {
            Ok(pid) => {
                self.main = Some(Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX)));
                self.tell(Report::Started { pid });
                self.watch();
                Ok(())
            }
            Err((step, errno)) => {
                self.tell(Report::Failed { step, errno });
                Ok(())
            }
        }
    }

    /// Closes whatever else came over from the node process.
    fn close_inherited(&self) -> std::io::Result<()> {
        use std::os::fd::AsRawFd as _;
        let keep = [self.control.as_raw_fd(), self.signals.as_fd().as_raw_fd()];
        let fds: Vec<i32> = std::fs::read_dir("/proc/self/fd")?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        for fd in fds.into_iter().filter(|fd| *fd > 2 && !keep.contains(fd)) {
            if is_inherited(fd) {
                // The listing's own descriptor is closed by now; that is no failure.
                let _closed = nix::unistd::close(fd);
            }
        }
        Ok(())
    }

    fn start(&self, launch: &Launch, stdin: Stdio) -> Result<u32, (Step, i32)> {
        let errno = |error: std::io::Error| error.raw_os_error().unwrap_or(0);
        std::env::set_current_dir(&launch.cwd).map_err(|error| (Step::Cwd, errno(error)))?;
        let mut command = Command::new(&launch.program);
        if let Some((name, arguments)) = launch.argv.split_first() {
            command.arg0(name).args(arguments);
        }
        command.env_clear().envs(launch.env.iter().map(|(k, v)| (k, v))).stdin(stdin);
        prepare_child(&mut command);
        command.spawn().map(|child| child.id()).map_err(|error| (Step::Exec, errno(error)))
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
                Wait::Order(Order::Kill) | Wait::NodeGone => break,
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
        if !ready {
            return Wait::Nothing;
        }
        let mut byte = [0];
        match self.control.read(&mut byte) {
            Ok(1) => Order::from_byte(byte[0]).map_or(Wait::Nothing, Wait::Order),
            Ok(_) | Err(_) => Wait::NodeGone,
        }
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
    Nothing,
}

fn open_stdin(fd: Option<i32>) -> std::io::Result<Stdio> {
    let Some(fd) = fd else { return Ok(Stdio::null()) };
    let pipe: OwnedFd = std::fs::File::open(format!("/proc/self/fd/{fd}"))?.into();
    Ok(Stdio::from(pipe))
}

/// What this program opened itself is close-on-exec; what came through exec is not.
fn is_inherited(fd: i32) -> bool {
    let path: OsString = format!("/proc/self/fdinfo/{fd}").into();
    let Ok(info) = std::fs::read_to_string(path) else { return false };
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let octal = flags.and_then(|text| i32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0);
    octal & nix::fcntl::OFlag::O_CLOEXEC.bits() == 0
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
