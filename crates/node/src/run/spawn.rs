//! Starts the program of a run: fork, everything that must hold before it runs, exec. The one way
//! to start a process, with walls and without.
//!
//! The child does system calls on values that were made before the fork, in this order: its
//! streams, its control group and limits (while it may), its user and capabilities, no new
//! privileges, its folder (with the rights that it has then), Landlock, its descriptors, and the
//! filter last: after it comes nothing but exec, or the report of a step that failed. A clerk executes
//! nothing: it keeps no descriptor, may execute nothing, and goes on as the same program. Never here:
//! which program, and which walls.

use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::ptr;

use nix::libc::{self, c_char};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};

use super::guard::Streams;
use super::protocol::{self, Launch};
use crate::files::clerk::{self, Desk};
use crate::sandbox::filter::{self, FilterSpec, Program};
use crate::sandbox::landlock::{self, Rule, Ruleset};
use crate::sandbox::step::{Failed, Step};
use crate::sandbox::walls::{FileId, Room};
use crate::sandbox::{identity, limits, probe, rules};

/// A room, with what all of its runs have in common.
#[derive(Debug)]
pub(super) struct Chamber {
    pub(super) room: Room,
    filter: Program,
}

impl Chamber {
    pub(super) fn new(room: Room) -> Self {
        let spec = FilterSpec { network: room.network.clone(), pidfd: room.is_full() };
        Self { filter: filter::program(&spec), room }
    }
}

/// What the child does, made before the fork.
struct Plan<'a> {
    stdin: RawFd,
    stdout: RawFd,
    stderr: RawFd,
    cwd: CString,
    image: Image,
    argv: Strings,
    env: Strings,
    walls: Option<Walls<'a>>,
}

/// What is executed.
enum Image {
    /// Whatever has the name then: without walls, and for scripts, whose interpreter opens them by
    /// name.
    Path(CString),
    /// Just this file.
    File(OwnedFd),
    /// Nothing: the walls are tried from inside.
    Probe,
    /// Nothing: it works on the files of these roots.
    Clerk(Desk),
}

struct Walls<'a> {
    groups: &'a [OwnedFd],
    bounds: limits::Bounds,
    user: Option<(u32, u32)>,
    is_full: bool,
    ruleset: Ruleset,
    filter: &'a Program,
}

/// C strings, and the list of pointers to them that exec wants.
struct Strings {
    pointers: Vec<*const c_char>,
    /// What the pointers lead to.
    _held: Vec<CString>,
}

impl Strings {
    fn new(texts: impl Iterator<Item = Result<CString, Failed>>) -> Result<Self, Failed> {
        let held = texts.collect::<Result<Vec<_>, _>>()?;
        let pointers = held.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect();
        Ok(Self { pointers, _held: held })
    }
}

/// Starts it. The streams and groups stay the caller's to close.
pub(super) fn start(
    launch: &Launch,
    streams: &Streams,
    groups: &[OwnedFd],
    chamber: Option<&Chamber>,
) -> Result<Pid, Failed> {
    let null;
    let stdin = match &streams.stdin {
        Some(stdin) => stdin.as_raw_fd(),
        None => {
            null = File::open("/dev/null").map_err(Failed::by(Step::Streams))?;
            null.as_raw_fd()
        }
    };
    let plan = Plan {
        stdin,
        stdout: streams.stdout.as_raw_fd(),
        stderr: streams.stderr.as_raw_fd(),
        cwd: text(launch.cwd.as_os_str(), Step::Cwd)?,
        image: image(launch, chamber)?,
        argv: Strings::new(launch.argv.iter().map(|argument| text(argument, Step::Exec)))?,
        env: Strings::new(launch.env.iter().map(|(name, value)| variable(name, value)))?,
        walls: walls(launch, groups, chamber)?,
    };
    fork_and_wait(&plan)
}

/// A launch with walls belongs into a room, and one without does not: neither is ever taken for the
/// other.
fn walls<'a>(
    launch: &Launch,
    groups: &'a [OwnedFd],
    chamber: Option<&'a Chamber>,
) -> Result<Option<Walls<'a>>, Failed> {
    let (confined, chamber) = match (&launch.confined, chamber) {
        (None, None) => return Ok(None),
        (Some(confined), Some(chamber)) => (confined, chamber),
        (None, Some(_)) | (Some(_), None) => return Err(Failed::new(Step::Order, libc::EINVAL)),
    };
    let room = &chamber.room;
    let mut rules = rules::of(room, &confined.scratch);
    if launch.image == protocol::Image::Clerk {
        rules.iter_mut().for_each(Rule::leave_execution);
    }
    let ruleset = landlock::ruleset(&rules, &room.network).map_err(Failed::by(Step::Landlock))?;
    Ok(Some(Walls {
        groups,
        bounds: confined.bounds,
        user: room.user.as_ref().map(|user| (user.uid, user.gid)),
        is_full: room.is_full(),
        ruleset,
        filter: &chamber.filter,
    }))
}

fn image(launch: &Launch, chamber: Option<&Chamber>) -> Result<Image, Failed> {
    match (launch.image, &launch.confined) {
        (protocol::Image::Probe, _) => Ok(Image::Probe),
        (protocol::Image::Clerk, _) => Ok(Image::Clerk(Desk::of(chamber.map(|chamber| &chamber.room)))),
        (protocol::Image::Program, None) => Ok(Image::Path(text(launch.program.as_os_str(), Step::Exec)?)),
        (protocol::Image::Program, Some(confined)) => {
            let file = open(&launch.program, confined.file)?;
            // Its interpreter opens it by name, when this descriptor is closed already.
            if confined.is_script {
                return Ok(Image::Path(text(launch.program.as_os_str(), Step::Exec)?));
            }
            Ok(Image::File(file))
        }
    }
}

/// The program as it is seen inside the walls, when it is the file that was looked at (ABUSE 35).
fn open(path: &Path, expected: FileId) -> Result<OwnedFd, Failed> {
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    let file = File::options().read(true).custom_flags(flags).open(path);
    let file = file.map_err(Failed::at(Step::Program, path))?;
    let data = file.metadata().map_err(Failed::at(Step::Program, path))?;
    if FileId::of(&data) != expected {
        return Err(Failed { path: path.to_owned(), ..Failed::new(Step::Program, libc::ESTALE) });
    }
    Ok(file.into())
}

fn text(text: &OsStr, step: Step) -> Result<CString, Failed> {
    CString::new(text.as_bytes()).map_err(|_nul| Failed::new(step, libc::EINVAL))
}

fn variable(name: &OsStr, value: &OsStr) -> Result<CString, Failed> {
    let mut both = name.as_bytes().to_vec();
    both.push(b'=');
    both.extend(value.as_bytes());
    text(OsStr::from_bytes(&both), Step::Exec)
}

fn fork_and_wait(plan: &Plan<'_>) -> Result<Pid, Failed> {
    let (mut told, tells) = io::pipe().map_err(Failed::by(Step::Exec))?;
    #[expect(unsafe_code, reason = "fork is safe in a process that has one thread and never had another")]
    // SAFETY: the nursery and its guards have no other thread, so the child has all of the memory
    // in a good state.
    let forked = unsafe { fork() }.map_err(Failed::by(Step::Exec))?;
    let pid = match forked {
        ForkResult::Parent { child } => child,
        ForkResult::Child => become_program(plan, tells.as_raw_fd()),
    };
    drop(tells);
    // Closed by exec: then nothing comes.
    let mut report = Vec::new();
    let read = told.read_to_end(&mut report);
    match (read, <[u8; 5]>::try_from(report.as_slice())) {
        (Ok(0), _) => Ok(pid),
        (_, report) => {
            let _reaped = waitpid(pid, None);
            let [step, errno @ ..] = report.unwrap_or([Step::Exec.to_byte(), 0, 0, 0, 0]);
            let step = Step::from_byte(step).unwrap_or(Step::Exec);
            Err(Failed::new(step, i32::from_le_bytes(errno)))
        }
    }
}

/// The child: the program, or a report and the end.
#[expect(unsafe_code, reason = "write and _exit, without what std would do at an ordinary end")]
fn become_program(plan: &Plan<'_>, tells: RawFd) -> ! {
    let failed = match prepare_and_execute(plan) {
        Ok(never) => match never {},
        Err(failed) => failed,
    };
    let [a, b, c, d] = failed.errno.to_le_bytes();
    let report = [failed.step.to_byte(), a, b, c, d];
    // SAFETY: the descriptor is open and the bytes are as many as is said; `_exit` takes a number.
    unsafe {
        libc::write(tells, report.as_ptr().cast(), report.len());
        libc::_exit(127)
    }
}

fn prepare_and_execute(plan: &Plan<'_>) -> Result<Infallible, Failed> {
    for (from, to) in [(plan.stdin, 0), (plan.stdout, 1), (plan.stderr, 2)] {
        duplicate(from, to).map_err(Failed::by(Step::Streams))?;
    }
    // What a run does to its own group (`kill 0`) must not reach the guard.
    nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0)).map_err(Failed::by(Step::Streams))?;
    if let Some(walls) = &plan.walls {
        for group in walls.groups {
            nix::unistd::write(group, b"0").map_err(Failed::by(Step::Cgroup))?;
        }
        walls.bounds.set().map_err(Failed::by(Step::Limits))?;
        limits::go_first_when_memory_runs_out();
        identity::leave_rights(walls.user)?;
    }
    hear_signals().map_err(Failed::by(Step::Exec))?;
    if plan.walls.is_some() {
        nix::sys::prctl::set_no_new_privs().map_err(Failed::by(Step::Privileges))?;
    }
    change_folder(&plan.cwd).map_err(Failed::by(Step::Cwd))?;
    if let Some(walls) = &plan.walls {
        walls.ruleset.restrict().map_err(Failed::by(Step::Landlock))?;
        close_on_exec().map_err(Failed::by(Step::Descriptors))?;
        walls.filter.install().map_err(Failed::by(Step::Filter))?;
    }
    if let Image::Clerk(desk) = &plan.image {
        work(desk).map_err(Failed::by(Step::Descriptors))?;
    }
    Err(Failed::by(Step::Exec)(execute(plan)))
}

/// The guard's blocked signals must not be blocked in the run, which must not go on when the guard
/// is killed from outside. A change of the user undoes the second, so it comes after it.
#[expect(unsafe_code, reason = "signal(2) has no safe form; only SIG_DFL is set, in a single thread")]
fn hear_signals() -> nix::Result<()> {
    // SAFETY: SIG_DFL installs no handler, and no other thread exists. The guard has set the others.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    SigSet::empty().thread_set_mask()
}

#[expect(unsafe_code, reason = "dup2 onto a number that nothing owns")]
fn duplicate(from: RawFd, to: RawFd) -> nix::Result<()> {
    // SAFETY: both are numbers; the standard streams of this process are not used by anything here.
    nix::errno::Errno::result(unsafe { libc::dup2(from, to) }).map(drop)
}

#[expect(unsafe_code, reason = "chdir without the copy that the safe form makes")]
fn change_folder(folder: &CString) -> nix::Result<()> {
    // SAFETY: a C string that outlives the call.
    nix::errno::Errno::result(unsafe { libc::chdir(folder.as_ptr()) }).map(drop)
}

/// Everything beyond the standard streams goes with exec, whoever opened it and how.
#[expect(unsafe_code, reason = "close_range(2) has no safe form")]
fn close_on_exec() -> nix::Result<()> {
    // SAFETY: numbers alone; nothing is closed before exec.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    nix::errno::Errno::result(done).map(drop)
}

/// A clerk's life. What tells of a failed start is closed with all else that the nursery and the guard
/// have open: that says that it has begun. Returns only when it has not.
#[expect(unsafe_code, reason = "close_range(2) and _exit have no safe form")]
fn work(desk: &Desk) -> nix::Result<()> {
    nix::sys::prctl::set_name(c"cortex-clerk")?;
    // Another process of the same user reads neither its memory nor its descriptors.
    nix::sys::prctl::set_dumpable(false)?;
    // A file that gets too large is an answer, and not the end.
    // SAFETY: SIG_IGN installs no handler, and no other thread exists.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }?;
    // SAFETY: nothing that owns one of these is dropped after this: the process ends below.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    nix::errno::Errno::result(closed)?;
    // One that panics must not go on as the guard from which it was forked.
    let worked = std::panic::catch_unwind(|| clerk::live(desk));
    // SAFETY: it takes a number, and runs nothing of what the nursery would do at its end.
    unsafe { libc::_exit(worked.unwrap_or(clerk::PANICKED)) }
}

/// Returns only when it failed.
#[expect(unsafe_code, reason = "exec by descriptor has no safe form")]
fn execute(plan: &Plan<'_>) -> io::Error {
    let (argv, env) = (plan.argv.pointers.as_ptr(), plan.env.pointers.as_ptr());
    // SAFETY: both lists end with null, and they and what they lead to outlive the call.
    unsafe {
        match (&plan.image, &plan.walls) {
            // As the C library does: a file without a known format is a script of the shell.
            (Image::Path(path), None) => drop(libc::execvpe(path.as_ptr(), argv, env)),
            (Image::Path(path), Some(_)) => drop(libc::execve(path.as_ptr(), argv, env)),
            (Image::File(file), _) => {
                let (fd, empty) = (file.as_raw_fd(), libc::AT_EMPTY_PATH);
                libc::syscall(libc::SYS_execveat, fd, c"".as_ptr(), argv, env, empty);
            }
            (Image::Probe, walls) => {
                let open = probe::open_from_inside(walls.as_ref().is_some_and(|walls| walls.is_full));
                libc::write(1, open.to_le_bytes().as_ptr().cast(), 4);
                libc::_exit(0);
            }
            // It never comes here, see `work`.
            (Image::Clerk(_), _) => return io::ErrorKind::Unsupported.into(),
        }
    }
    io::Error::last_os_error()
}
