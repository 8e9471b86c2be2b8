//! One run behind walls: its room, and what is made on this machine for it alone and goes with it.
//! Never here: putting walls up, which the room's nursery and guards do.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cortex_core::sandbox::{Access, Layer, Level, Walls};
use cortex_core::{Code, Refusal};

use super::cgroup::{Cgroups, Leaf};
use super::host::Host;
use super::limits::{self, Set};
use super::program::Found;
use super::room::{Own, SCRATCH};
use super::scratch::{Scratch, Scratches, give};
use super::step::Step;
use super::walls::{FileId, Room};
use crate::run::protocol::Confined;

/// Variables that lead to something in a home directory, and where that usually is.
const SETTINGS: &[(&str, &str)] = &[("RUSTUP_HOME", ".rustup"), ("GIT_CONFIG_GLOBAL", ".gitconfig")];

/// The sandbox of one node, as it was found at its start.
#[derive(Debug)]
pub(crate) struct Sandbox {
    pub(crate) host: Host,
    pub(crate) layers: Vec<Layer>,
    groups: Cgroups,
    /// Below level full alone.
    scratches: Option<Scratches>,
    /// Processes and threads that the runs' user has at the start and a run must not pay for.
    already: u64,
}

impl Sandbox {
    pub(crate) fn new(host: Host, layers: Vec<Layer>, groups: Cgroups) -> io::Result<Self> {
        let has_own_tmp = host.level == Level::Full || host.level == Level::None;
        let scratches = if has_own_tmp { None } else { Some(Scratches::make()?) };
        // Where the user is the node's own, it has a life beside.
        let already = match host.user {
            Some(_) => 0,
            None if has_own_tmp => 0,
            None => limits::tasks_of(nix::unistd::geteuid().as_raw()),
        };
        Ok(Self { host, layers, groups, scratches, already })
    }

    /// The level that was reached.
    pub(crate) const fn level(&self) -> Level {
        self.host.level
    }
}

/// What holds for one run. What was made for it is removed when this is dropped; better by
/// [`Confinement::end`].
#[derive(Debug)]
pub(crate) struct Confinement {
    /// Shared with other runs.
    pub(crate) room: Room,
    sandbox: Arc<Sandbox>,
    set: Set,
    leaf: Option<Leaf>,
    /// Its folder for what it writes, when that is made out here.
    scratch: Option<Scratch>,
    home: PathBuf,
}

impl Confinement {
    /// Makes what a run of this name needs, behind these walls, on a node of this host name. Refused
    /// `sandbox_unavailable`, and nothing is left then. For a blocking thread.
    pub(crate) fn new(
        sandbox: &Arc<Sandbox>,
        walls: &Walls,
        name: &str,
        host: &str,
    ) -> Result<Self, Refusal> {
        Self::make(sandbox, walls, name, host, walls.limits.memory_bytes)
    }

    /// The same for a clerk. Its memory is bounded by itself and not by its control group: to that, what is
    /// written to a disk in memory counts as memory of who writes, and it would be ended for it.
    pub(crate) fn for_clerk(
        sandbox: &Arc<Sandbox>,
        walls: &Walls,
        name: &str,
        host: &str,
    ) -> Result<Self, Refusal> {
        let mut made = Self::make(sandbox, walls, name, host, None)?;
        made.set.bounds.data = walls.limits.memory_bytes;
        Ok(made)
    }

    fn make(
        sandbox: &Arc<Sandbox>,
        walls: &Walls,
        name: &str,
        host: &str,
        group_bytes: Option<u64>,
    ) -> Result<Self, Refusal> {
        let room = sandbox.host.room(walls, host)?;
        let limits = &walls.limits;
        let set = Set::new(limits, &sandbox.groups, room.is_full(), sandbox.already);
        let mut made = Self {
            set,
            sandbox: Arc::clone(sandbox),
            leaf: None,
            scratch: None,
            home: Path::new(SCRATCH).join("home"),
            room,
        };
        let leaf = sandbox.groups.leaf(name, group_bytes, limits.processes);
        made.leaf = Some(leaf.map_err(|error| unmade(Step::Cgroup.as_str(), &error))?);
        let work = made.work();
        if let Some(scratches) = &sandbox.scratches {
            let scratch = scratches.take(made.room.user.as_ref(), work.is_none());
            let scratch =
                scratch.map_err(|error| unmade("making a folder of its own for temporary files", &error))?;
            made.home = scratch.home();
            made.scratch = Some(scratch);
        }
        if let Some(work) = work {
            made.home = made
                .make_home(&work)
                .map_err(|error| unmade("making its home directory in the folder for work", &error))?;
        }
        Ok(made)
    }

    /// Its home directory, where it starts when it names no other folder.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// For what it writes beside its roots.
    pub(crate) fn scratch(&self) -> &Path {
        self.scratch.as_ref().map_or(Path::new(SCRATCH), Scratch::path)
    }

    /// The name of its user, when it has one of its own.
    pub(crate) fn user(&self) -> Option<&str> {
        self.room.user.as_ref().map(|user| user.name.as_str())
    }

    /// Variables by which programs find what they have in the home directory of the node's user,
    /// as far as the run may see it: its own home is another. `of` tells the node's own variables.
    pub(crate) fn settings<'a>(&self, of: impl Fn(&str) -> Option<&'a OsStr>) -> Vec<(OsString, OsString)> {
        let home = Path::new(&self.sandbox.host.place.home);
        let is_seen = |path: &Path| self.room.trees.iter().any(|tree| path.starts_with(&tree.path));
        let found = SETTINGS.iter().filter_map(|(name, below)| {
            let path = of(name).map_or_else(|| home.join(below), PathBuf::from);
            is_seen(&path).then(|| (OsString::from(name), path.into_os_string()))
        });
        found.collect()
    }

    /// The ways into its control groups, once.
    pub(crate) fn take_entrances(&mut self) -> Vec<std::os::fd::OwnedFd> {
        self.leaf.as_mut().map(|leaf| std::mem::take(&mut leaf.entrances)).unwrap_or_default()
    }

    /// What its guard is told, for this program.
    pub(crate) fn confined(&self, program: &Found) -> Confined {
        Confined { file: program.file, is_script: program.is_script, ..self.confined_clerk() }
    }

    /// The same for a clerk, which has no program.
    pub(crate) fn confined_clerk(&self) -> Confined {
        Confined {
            file: FileId::default(),
            is_script: false,
            bounds: self.set.bounds,
            own: Own { scratch_bytes: self.set.scratch_bytes, pid_max: self.set.pid_max },
            scratch: self.scratch().to_owned(),
        }
    }

    /// Whether something of it was ended because it had no memory left.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        self.leaf.as_ref().is_some_and(Leaf::ran_out_of_memory)
    }

    /// Removes what was made for it, once the run has ended. `nothing_is_left` says that each of its
    /// processes was seen to end: only then may another run have what it had.
    pub(crate) async fn end(mut self, nothing_is_left: bool) {
        // A folder with many files takes its time.
        let ended = tokio::task::spawn_blocking(move || {
            if let (true, Some(scratches)) = (nothing_is_left, &self.sandbox.scratches)
                && let Some(scratch) = self.scratch.take()
            {
                scratches.give_back(scratch, self.room.user.as_ref());
            }
            drop(self);
        });
        let _ended = ended.await;
    }

    /// The first folder for work, when the run may write there.
    fn work(&self) -> Option<PathBuf> {
        let work = self.sandbox.host.place.work.first()?;
        let may_write = |tree: &super::walls::Bound| {
            tree.access == Access::Write && tree.is_dir && Path::new(work).starts_with(&tree.path)
        };
        self.room.trees.iter().any(may_write).then(|| PathBuf::from(work))
    }

    fn make_home(&self, work: &Path) -> io::Result<PathBuf> {
        use std::os::unix::fs::DirBuilderExt as _;
        let home = work.join(".home");
        match std::fs::DirBuilder::new().mode(0o700).create(&home) {
            Ok(()) => {}
            // Whatever the runs made of it is theirs.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(home),
            Err(error) => return Err(error),
        }
        give(&home, self.room.user.as_ref())?;
        Ok(home)
    }
}

impl Drop for Confinement {
    fn drop(&mut self) {
        if let Some(leaf) = self.leaf.take() {
            self.sandbox.groups.remove(leaf);
        }
        if let Some(scratch) = self.scratch.take() {
            scratch.remove();
        }
    }
}

fn unmade(what: &str, error: &io::Error) -> Refusal {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    let is_full = matches!(error.kind(), StorageFull | QuotaExceeded);
    let mend = if is_full { " Free some on that disk of the node, then run it again." } else { "" };
    Refusal::new(Code::SandboxUnavailable, format!("The walls could not be put up: {what}: {error}.{mend}"))
}
