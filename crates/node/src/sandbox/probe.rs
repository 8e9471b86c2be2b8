//! Tries the walls at the node's start, by the same room, guard and child that runs get: in place of
//! a program the child looks what it can still do. What it finds is the level of the node. Never
//! here: believing what a kernel says of itself where it can be tried.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cortex_core::sandbox::{Layer, Level, Network, Place};
use cortex_core::{Code, Refusal};
use nix::libc;
use tokio::io::AsyncReadExt as _;

use super::cgroup::Cgroups;
use super::confine::Sandbox;
use super::host::Host;
use super::identity::{self, RunUser};
use super::room::Own;
use super::step::Failed;
use super::walls::Room;
use super::{landlock, layers, limits};
use crate::run::guards::{Guards, NoGuard};
use crate::run::process::{NotStarted, Process};
use crate::run::protocol::{Confined, Image, Launch, Order};

/// A trial that takes longer is given up, and what it tried is missing.
const TRIAL_MAX: Duration = Duration::from_secs(4);

/// What a node gives the probe.
#[derive(Debug)]
pub(crate) struct Wishes {
    /// As whom runs execute.
    pub(crate) user: Option<RunUser>,
    /// Home and work.
    pub(crate) place: Place,
    /// Folders that no run may see.
    pub(crate) reserved: Vec<PathBuf>,
    /// The highest level that is used.
    pub(crate) level_max: Level,
    /// The node's name.
    pub(crate) host: String,
}

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) full: Tried,
    pub(super) kernel: Tried,
    pub(super) landlock: Option<(u32, u32)>,
    /// Memory, processes.
    pub(super) groups: (bool, bool),
    /// Whether processes are bounded by their numbers.
    pub(super) numbers: bool,
    /// Whether the node is an ordinary user.
    pub(super) is_user: bool,
    pub(super) changes_user: bool,
    /// What the system says against user namespaces.
    pub(super) userns_knob: Option<String>,
}

/// How one trial ended.
#[derive(Debug)]
pub(super) enum Tried {
    /// The walls were put up; these holes are in them.
    Inside(u32),
    /// They could not be.
    Failed(Failed),
    /// Nobody knows.
    Silent(String),
}

impl Tried {
    pub(super) const fn holes(&self) -> Option<u32> {
        match self {
            Self::Inside(holes) => Some(*holes),
            Self::Failed(_) | Self::Silent(_) => None,
        }
    }

    pub(super) const fn failed(&self) -> Option<&Failed> {
        match self {
            Self::Failed(failed) => Some(failed),
            Self::Inside(_) | Self::Silent(_) => None,
        }
    }
}

/// What a child behind walls could still do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hole {
    Root,
    Capabilities,
    Privileges,
    Unfiltered,
    Socket,
    Unshare,
    File,
    Signal,
}

impl Hole {
    pub(super) const ALL: &'static [Self] = &[
        Self::Root,
        Self::Capabilities,
        Self::Privileges,
        Self::Unfiltered,
        Self::Socket,
        Self::Unshare,
        Self::File,
        Self::Signal,
    ];

    pub(super) const fn bit(self) -> u32 {
        1 << self as u32
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Root => "The run was root, or could become it.",
            Self::Capabilities => "The run had capabilities.",
            Self::Privileges => "The run could gain privileges by exec.",
            Self::Unfiltered => "The run's system calls were not filtered.",
            Self::Socket => "The run could open a socket.",
            Self::Unshare => "The run could make a user namespace.",
            Self::File => "The run could open a folder outside.",
            Self::Signal => "The run could signal a process outside.",
        }
    }

    /// Those that show that a layer does not hold.
    pub(super) fn of_layer(name: &str) -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(move |hole| hole.layer() == name)
    }

    const fn layer(self) -> &'static str {
        match self {
            Self::Root => "user",
            Self::Capabilities => "caps",
            Self::Privileges => "no_new_privs",
            Self::Unfiltered | Self::Socket | Self::Unshare => "seccomp",
            Self::File | Self::Signal => "landlock",
        }
    }
}

/// Why a node cannot start: what is no wall (a folder for temporary files) could not be made.
pub(crate) fn unmade(error: &io::Error) -> Refusal {
    Refusal::new(Code::BadConfig, format!("What runs need on this machine cannot be made: {error}.")).hint(
        "Look at the space left for temporary files (`TMPDIR`) and at who may write there, then start again.",
    )
}

/// Tries full walls, and if those are not to be had what can be without namespaces.
pub(crate) async fn probe(guards: &Arc<Guards>, wishes: Wishes) -> io::Result<Sandbox> {
    if cfg!(not(target_os = "linux")) {
        let host = Host::new(Level::None, None, wishes.place, &wishes.reserved);
        return Sandbox::new(host, elsewhere(), Cgroups::default());
    }
    let groups = tokio::task::spawn_blocking(Cgroups::find).await?;
    let unwanted = || Tried::Silent("Not tried: the node's configuration does not want it.".to_owned());
    let full =
        if wishes.level_max == Level::Full { trial(guards, &wishes, Level::Full).await } else { unwanted() };
    let kernel = match &full {
        _ if wishes.level_max == Level::None => unwanted(),
        // Used by no run then.
        Tried::Inside(0) => Tried::Inside(0),
        // What does not answer at all does not do so a second time.
        Tried::Silent(why) if wishes.level_max == Level::Full => Tried::Silent(why.clone()),
        Tried::Inside(_) | Tried::Failed(_) | Tried::Silent(_) => trial(guards, &wishes, Level::Kernel).await,
    };
    let found = Found {
        full,
        kernel,
        landlock: landlock::abi(),
        groups: (groups.bounds_memory(), groups.bounds_processes()),
        numbers: limits::bounds_numbers(),
        is_user: !nix::unistd::geteuid().is_root(),
        changes_user: wishes.user.is_some(),
        userns_knob: userns_knob(),
    };
    let layers = layers::judge(&found);
    let level = layers::level(&layers, found.landlock).min(wishes.level_max);
    let Wishes { user, place, reserved, .. } = wishes;
    tokio::task::spawn_blocking(move || {
        let host = Host::new(level, user, place, &reserved);
        Sandbox::new(host, layers, groups)
    })
    .await?
}

/// Layers where there are none to try.
fn elsewhere() -> Vec<Layer> {
    let note = format!("No kernel sandbox on {} in this build.", std::env::consts::OS);
    vec![Layer { name: "kernel".to_owned(), state: cortex_core::sandbox::LayerState::Missing, note }]
}

async fn trial(guards: &Arc<Guards>, wishes: &Wishes, level: Level) -> Tried {
    let room = Room {
        level,
        trees: Vec::new(),
        masks: Vec::new(),
        network: Network::None,
        user: wishes.user.clone(),
        host: wishes.host.clone(),
    };
    match tokio::time::timeout(TRIAL_MAX, look(Arc::clone(guards), room)).await {
        Ok(tried) => tried,
        Err(_late) => Tried::Silent(format!("The trial took longer than {} s.", TRIAL_MAX.as_secs())),
    }
}

async fn look(guards: Arc<Guards>, room: Room) -> Tried {
    let silent =
        |error: &dyn std::fmt::Display| Tried::Silent(format!("The trial did not come about: {error}."));
    let begun = tokio::task::spawn_blocking(move || Process::begin(&guards, Some(&room), false, Vec::new()));
    let mut process = match begun.await {
        Ok(Ok(process)) => process,
        Ok(Err(NoGuard::Walls(failed))) => return Tried::Failed(failed),
        Ok(Err(NoGuard::System(error))) => return silent(&error),
        Err(error) => return silent(&error),
    };
    match process.start(&order()).await {
        Ok(_pid) => {}
        Err(NotStarted::Refused(failed)) => return Tried::Failed(failed),
        Err(NotStarted::Guard(error)) => return silent(&error),
    }
    let mut holes = [0; 4];
    let read = match &mut process.stdout {
        Some(stdout) => stdout.read_exact(&mut holes).await.map(drop),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    };
    process.order(Order::Kill).await;
    process.gone().await;
    match read {
        Ok(()) => Tried::Inside(u32::from_le_bytes(holes)),
        Err(error) => silent(&error),
    }
}

fn order() -> Launch {
    let own = Own { scratch_bytes: 1024 * 1024, pid_max: None };
    let confined = Confined { own, ..Confined::default() };
    Launch { image: Image::Probe, cwd: "/".into(), confined: Some(confined), ..Launch::default() }
}

/// What keeps an ordinary user from namespaces, when the system says so in one of its usual places.
fn userns_knob() -> Option<String> {
    for (file, bad) in [
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
        ("kernel/unprivileged_userns_clone", "0"),
        ("user/max_user_namespaces", "0"),
    ] {
        let value = std::fs::read_to_string(Path::new("/proc/sys").join(file)).unwrap_or_default();
        if value.trim() == bad {
            return Some(format!("{} is {bad}", file.replace('/', ".")));
        }
    }
    None
}

/// In the child, behind everything: a bit for each hole. System calls alone.
#[expect(
    unsafe_code,
    reason = "what is tried has no safe form, and must not be refused before the kernel does"
)]
pub(crate) fn open_from_inside(has_numbers: bool) -> u32 {
    let mut holes = 0;
    let mut note = |hole: Hole, is_open: bool| {
        if is_open {
            holes |= hole.bit();
        }
    };
    // SAFETY: numbers and C strings; nothing is written to memory.
    unsafe {
        note(Hole::Root, libc::getuid() == 0 || libc::syscall(libc::SYS_setresuid, 0, 0, 0) == 0);
        note(Hole::Privileges, libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1);
        note(Hole::Unfiltered, libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) != 2);
        note(Hole::Socket, libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0) >= 0);
        note(Hole::Unshare, libc::syscall(libc::SYS_unshare, libc::CLONE_NEWUSER) == 0);
        let folder = if has_numbers { c"/.stage".as_ptr() } else { c"/var".as_ptr() };
        note(Hole::File, libc::open(folder, libc::O_RDONLY | libc::O_DIRECTORY) >= 0);
        // The guard: outside of what Landlock keeps inside.
        note(Hole::Signal, libc::kill(libc::getppid(), 0) == 0);
    }
    note(Hole::Capabilities, !identity::permitted().is_ok_and(|held| held == 0));
    holes
}
