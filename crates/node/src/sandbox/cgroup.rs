//! Control groups: one per run, for the memory and the processes of all of it together. They are a
//! bound and no wall: where none can be had, the bounds of single processes stand in (`limits`).
//!
//! Version 2 where it is delegated to the node, else version 1 where its folders may be written.
//! Never here: which bounds.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Groups that could not be removed yet, at most; beyond it the oldest is left to the next start.
const LEFT_MAX: usize = 512;
/// How the node's own group of groups is called; its process number follows.
const PREFIX: &str = "cortex-node-";

/// Where the node makes the groups of its runs.
#[derive(Debug, Default)]
pub(crate) struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    /// Ended, but the system still holds on to them.
    left: Mutex<Vec<PathBuf>>,
}

#[derive(Debug)]
struct Hierarchy {
    folder: PathBuf,
    /// Held on it.
    _lock: File,
    /// Of version 2.
    is_unified: bool,
    /// Files for a bound on memory, and on what goes to swap besides.
    memory: Option<(&'static str, &'static str)>,
    /// The file for a bound on processes.
    pids: Option<&'static str>,
}

/// The group of one run. Remove it with [`Cgroups::remove`].
#[derive(Debug, Default)]
pub(crate) struct Leaf {
    folders: Vec<PathBuf>,
    /// Who writes `0` to one of them is in the group.
    pub(crate) entrances: Vec<OwnedFd>,
    /// Where the system counts what it ended for want of memory.
    memory_events: Option<PathBuf>,
}

impl Leaf {
    /// Whether something in it was ended because it had no memory left.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        let text = self.memory_events.as_ref().and_then(|file| fs::read_to_string(file).ok());
        let count =
            text.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("oom_kill ")));
        count.is_some_and(|count| count.trim() != "0")
    }
}

/// A hierarchy as this process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    folder: PathBuf,
    /// Of version 1: what it controls. Empty: version 2.
    controllers: Vec<String>,
}

impl Cgroups {
    /// Looks for a place and makes the node's own group there.
    pub(crate) fn find() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let seen = locate(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
        let unified = seen.iter().find(|one| one.controllers.is_empty());
        let mut hierarchies: Vec<Hierarchy> = unified.and_then(unified_at).into_iter().collect();
        for (name, memory, pids) in [
            ("memory", Some(("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")), None),
            ("pids", None, Some("pids.max")),
        ] {
            let is_there =
                |one: &Hierarchy| if memory.is_some() { one.memory.is_some() } else { one.pids.is_some() };
            if hierarchies.iter().any(is_there) {
                continue;
            }
            let found = seen.iter().find(|one| one.controllers.iter().any(|other| other == name));
            let made = found.and_then(|found| make(&found.folder).ok());
            hierarchies.extend(made.map(|(folder, lock)| Hierarchy {
                folder,
                _lock: lock,
                is_unified: false,
                memory,
                pids,
            }));
        }
        Self { hierarchies, left: Mutex::default() }
    }

    /// Whether memory is bounded by them.
    pub(crate) fn bounds_memory(&self) -> bool {
        self.hierarchies.iter().any(|one| one.memory.is_some())
    }

    /// Whether processes are.
    pub(crate) fn bounds_processes(&self) -> bool {
        self.hierarchies.iter().any(|one| one.pids.is_some())
    }

    /// A group for one run, by its name.
    pub(crate) fn leaf(&self, name: &str, memory: Option<u64>, processes: Option<u32>) -> io::Result<Leaf> {
        self.remove_left();
        let mut leaf = Leaf::default();
        for one in &self.hierarchies {
            let has_use =
                (one.memory.is_some() && memory.is_some()) || (one.pids.is_some() && processes.is_some());
            if has_use && let Err(error) = one.add(&mut leaf, name, memory, processes) {
                self.remove(leaf);
                return Err(error);
            }
        }
        Ok(leaf)
    }

    /// Removes the group of a run of which nothing is left.
    pub(crate) fn remove(&self, leaf: Leaf) {
        let stay: Vec<PathBuf> = leaf.folders.into_iter().filter(|folder| !is_removed(folder)).collect();
        if stay.is_empty() {
            return;
        }
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.extend(stay);
        let over = left.len().saturating_sub(LEFT_MAX);
        left.drain(..over);
    }

    fn remove_left(&self) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(|folder| !is_removed(folder));
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        self.remove_left();
        for one in &self.hierarchies {
            // What stays is removed by the next node that starts here.
            let _removed = fs::remove_dir(&one.folder);
        }
    }
}

impl Hierarchy {
    fn add(
        &self,
        leaf: &mut Leaf,
        name: &str,
        memory: Option<u64>,
        processes: Option<u32>,
    ) -> io::Result<()> {
        let folder = self.folder.join(name);
        fs::create_dir(&folder)?;
        leaf.folders.push(folder.clone());
        if let (Some((file, swap)), Some(bytes)) = (self.memory, memory) {
            fs::write(folder.join(file), bytes.to_string())?;
            let events = if self.is_unified { "memory.events" } else { "memory.oom_control" };
            leaf.memory_events = Some(folder.join(events));
            // Of version 1: memory and swap together.
            let swap_bytes = if self.is_unified { 0 } else { bytes };
            // A kernel that does not count swap has no such file.
            let _counted = fs::write(folder.join(swap), swap_bytes.to_string());
        }
        if let (Some(file), Some(max)) = (self.pids, processes) {
            fs::write(folder.join(file), max.to_string())?;
        }
        // In version 1 a thread that moves itself takes no lock on all processes of the machine, as
        // one that moves a process does. The child has one thread.
        let entrance = folder.join(if self.is_unified { "cgroup.procs" } else { "tasks" });
        let entrance = File::options().write(true).open(entrance)?;
        leaf.entrances.push(entrance.into());
        Ok(())
    }
}

/// The node's own group in version 2, when memory or processes can be controlled there.
fn unified_at(seen: &Seen) -> Option<Hierarchy> {
    let offered = fs::read_to_string(seen.folder.join("cgroup.controllers")).ok()?;
    let has = |name| offered.split_whitespace().any(|one| one == name);
    let (memory, pids) = (has("memory"), has("pids"));
    let wanted = [memory.then_some("+memory"), pids.then_some("+pids")].into_iter().flatten();
    let wanted = wanted.collect::<Vec<_>>().join(" ");
    if wanted.is_empty() || let_down(&seen.folder, &wanted).is_err() {
        return None;
    }
    let (folder, lock) = make(&seen.folder).ok()?;
    if fs::write(folder.join("cgroup.subtree_control"), &wanted).is_err() {
        let _removed = fs::remove_dir(&folder);
        return None;
    }
    Some(Hierarchy {
        folder,
        _lock: lock,
        is_unified: true,
        memory: memory.then_some(("memory.max", "memory.swap.max")),
        pids: pids.then_some("pids.max"),
    })
}

/// Lets groups below use these controllers. A group with processes of its own may not, so a node
/// that is alone in its group moves down into one beside those of its runs.
fn let_down(folder: &Path, wanted: &str) -> io::Result<()> {
    let control = folder.join("cgroup.subtree_control");
    match fs::write(&control, wanted) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {}
        other => return other,
    }
    let own = std::process::id().to_string();
    if fs::read_to_string(folder.join("cgroup.procs"))?.split_whitespace().any(|pid| pid != own) {
        return Err(io::Error::from_raw_os_error(nix::libc::EBUSY));
    }
    let beside = folder.join("cortex-node");
    if let Err(error) = fs::create_dir(&beside)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error);
    }
    fs::write(beside.join("cgroup.procs"), own)?;
    fs::write(control, wanted)
}

/// The node's own folder in one with its lock, after those of nodes that are gone.
fn make(at: &Path) -> io::Result<(PathBuf, File)> {
    for entry in fs::read_dir(at)?.flatten() {
        let name = entry.file_name();
        let pid =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
            && let Ok(_lock) = hold(&entry.path())
        {
            remove_group(&entry.path());
        }
    }
    // More than one node may live in a process.
    for number in 0..1_000 {
        let folder = at.join(format!("{PREFIX}{}-{number}", std::process::id()));
        match fs::create_dir(&folder) {
            Ok(()) => match hold(&folder) {
                Ok(lock) => return Ok((folder, lock)),
                // Whoever looked in between took it for one of the dead.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    let _removed = fs::remove_dir(&folder);
                    return Err(error);
                }
            },
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}

/// A group for as long as this lives: one whose node cannot be seen from here, since its process numbers
/// are others, is not taken for one of the dead.
fn hold(folder: &Path) -> io::Result<File> {
    let flags = nix::libc::O_DIRECTORY | nix::libc::O_NOFOLLOW;
    let lock = File::options().read(true).custom_flags(flags).open(folder)?;
    lock.try_lock()?;
    Ok(lock)
}

/// A group and the empty ones in it; one with processes stays.
fn remove_group(folder: &Path) {
    if let Ok(entries) = fs::read_dir(folder) {
        for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
            let _removed = fs::remove_dir(entry.path());
        }
    }
    let _removed = fs::remove_dir(folder);
}

fn is_removed(folder: &Path) -> bool {
    match fs::remove_dir(folder) {
        Ok(()) => true,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// The hierarchies that are mounted, at the group of this process.
fn locate(groups: &str, mounts: &str) -> Vec<Seen> {
    let mut seen = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let controllers: Vec<String> =
            controllers.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        if let Some((point, root)) = mounted(mounts, &controllers) {
            // A container sees its part of the tree alone, at its root.
            let below = Path::new(path).strip_prefix(&root).unwrap_or(Path::new(""));
            seen.push(Seen { folder: point.join(below), controllers });
        }
    }
    seen
}

fn mounted(mounts: &str, controllers: &[String]) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ').skip(3);
        let (root, point) = (front.next()?, front.next()?);
        let mut back = back.split(' ');
        let (kind, options) = (back.next()?, back.nth(1).unwrap_or(""));
        let is_it = match controllers {
            [] => kind == "cgroup2",
            some => kind == "cgroup" && some.iter().all(|name| options.split(',').any(|one| one == name)),
        };
        is_it.then(|| (PathBuf::from(point), PathBuf::from(root)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(folder: &str, controllers: &[&str]) -> Seen {
        Seen {
            folder: folder.into(),
            controllers: controllers.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn the_nodes_own_groups_are_found_in_both_versions() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:1 - cgroup cgroup rw,memory\n\
            36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let groups = "4:memory:/a/b\n3:cpu,cpuacct:/\n8:pids:/\n0::/user.slice/x\n";
        assert_eq!(
            locate(groups, mounts),
            [
                seen("/sys/fs/cgroup/memory/a/b", &["memory"]),
                seen("/sys/fs/cgroup/cpu,cpuacct/", &["cpu", "cpuacct"]),
                seen("/sys/fs/cgroup/unified/user.slice/x", &[]),
            ]
        );
    }

    #[test]
    fn the_bounds_of_a_run_are_written_to_its_group_in_version_2() {
        let folder = tempfile::tempdir().expect("a folder");
        let unified = Hierarchy {
            folder: folder.path().to_owned(),
            _lock: hold(folder.path()).expect("held"),
            is_unified: true,
            memory: Some(("memory.max", "memory.swap.max")),
            pids: Some("pids.max"),
        };
        std::fs::create_dir(folder.path().join("run")).expect("made");
        let mut leaf = Leaf::default();
        assert!(unified.add(&mut leaf, "run", Some(1_000), Some(9)).is_err(), "a name is used once");
        // Where the system makes the files, a test has to: there `cgroup.procs` is missing.
        assert!(unified.add(&mut leaf, "other", Some(1_000), Some(9)).is_err());
        let read = |file: &str| fs::read_to_string(folder.path().join("other").join(file)).expect("written");
        assert_eq!([read("memory.max"), read("memory.swap.max"), read("pids.max")], ["1000", "0", "9"]);
        assert!(!leaf.ran_out_of_memory());
        fs::write(folder.path().join("other/memory.events"), "oom 1\noom_kill 1\n").expect("written");
        assert!(leaf.ran_out_of_memory());
    }

    /// Two containers that share a tree of groups do not see each other's processes.
    #[test]
    fn a_group_that_a_node_holds_stays_though_its_process_is_not_in_sight() {
        let place = tempfile::tempdir().expect("a folder");
        // No process has that number.
        let others = ["living", "dead"].map(|name| place.path().join(format!("{PREFIX}999999999-{name}")));
        others.iter().for_each(|folder| fs::create_dir_all(folder.join("run")).expect("made"));
        let lock = hold(&others[0]).expect("held");
        let (own, _lock) = make(place.path()).expect("made");
        assert!(own.is_dir() && others[0].is_dir() && !others[1].exists());
        drop(lock);
        let (second, _lock) = make(place.path()).expect("made");
        assert!(own.is_dir() && second != own && !others[0].exists());
    }

    #[test]
    fn in_a_container_the_own_group_is_the_root_of_what_is_mounted() {
        let mounts = "35 31 0:32 /docker/1 /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        for path in ["/docker/1", "/", "/../other"] {
            assert_eq!(
                locate(&format!("0::{path}\n"), mounts)[0].folder,
                Path::new("/sys/fs/cgroup/"),
                "{path}"
            );
        }
        assert_eq!(locate("0::/docker/1/in\n", mounts)[0].folder, Path::new("/sys/fs/cgroup/in"));
        assert_eq!(locate("garbage\n\n", "more garbage"), []);
    }
}
