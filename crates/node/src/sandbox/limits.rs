//! What a run may use at most, where it is set: in its control group, or process by process where
//! there is none. Also its place when memory runs out: before the node. Never here: output, time.

use std::io;

use cortex_core::sandbox::Limits;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::cgroup::Cgroups;
use crate::run::bytes::{Reader, Writer};

/// Open files of a process when the policy does not say: at first, and as far as it may raise it.
const FILES: (u64, u64) = (4_096, 65_536);
/// Bytes of a core, for "none, and no program is started for one either".
const NO_CORE: u64 = 1;
/// The kernel takes no lower bound on process numbers.
const PID_MAX_MIN: u32 = 301;
/// Numbers that a run's guard and the program itself take.
const PIDS_OF_OURS: u32 = 2;
/// First release in which each process namespace has a bound of its own.
const PID_MAX_SINCE: (u32, u32) = (6, 14);
/// Memory of a run's `/tmp` when the policy bounds none.
const SCRATCH_BYTES: u64 = 512 * 1024 * 1024;
/// The system takes 0 for "no bound".
const SCRATCH_BYTES_MIN: u64 = 4_096;
/// Runs are ended before the node when memory runs out; 1000 would be before everything else.
const SCORE: &[u8] = b"500";

/// Bounds of each single process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Bytes of memory that is its alone.
    pub(crate) data: Option<u64>,
    /// Processes and threads of its user.
    pub(crate) processes: Option<u64>,
    /// Open files.
    pub(crate) files: Option<u64>,
    /// Bytes of one file.
    pub(crate) file_bytes: Option<u64>,
}

/// Where a run's bounds are set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Set {
    /// On each process.
    pub(crate) bounds: Bounds,
    /// On the numbers of its process namespace.
    pub(crate) pid_max: Option<u32>,
    /// Bytes of its `/tmp`.
    pub(crate) scratch_bytes: u64,
}

impl Set {
    /// With these groups, and with process numbers of its own or not. `already` says how many
    /// processes and threads the run's user has beside the run.
    pub(crate) fn new(limits: &Limits, groups: &Cgroups, has_numbers: bool, already: u64) -> Self {
        let by_numbers = has_numbers && bounds_numbers();
        let processes = limits.processes.filter(|_| !groups.bounds_processes());
        Self {
            bounds: Bounds {
                data: limits.memory_bytes.filter(|_| !groups.bounds_memory()),
                processes: processes.filter(|_| !by_numbers).map(|max| already + u64::from(max)),
                files: limits.files,
                file_bytes: limits.file_bytes,
            },
            pid_max: processes
                .filter(|_| by_numbers)
                .map(|max| max.saturating_add(PIDS_OF_OURS).max(PID_MAX_MIN)),
            scratch_bytes: limits
                .memory_bytes
                .map_or(SCRATCH_BYTES, |bytes| (bytes / 2).clamp(SCRATCH_BYTES_MIN, SCRATCH_BYTES)),
        }
    }
}

/// Whether processes can be bounded by their numbers in a namespace.
pub(crate) fn bounds_numbers() -> bool {
    release().is_some_and(|release| release >= PID_MAX_SINCE)
}

fn release() -> Option<(u32, u32)> {
    let text = nix::sys::utsname::uname().ok()?;
    parse_release(text.release().to_str()?)
}

fn parse_release(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

impl Bounds {
    pub(crate) fn write(&self, out: &mut Writer) {
        for one in [self.data, self.processes, self.files, self.file_bytes] {
            out.maybe(one);
        }
    }

    pub(crate) fn read(rest: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            data: rest.maybe()?,
            processes: rest.maybe()?,
            files: rest.maybe()?,
            file_bytes: rest.maybe()?,
        })
    }

    /// Between fork and exec. It needs no rights.
    pub(crate) fn set(&self) -> io::Result<()> {
        // Where cores are piped to a program of the machine, that gets them under every bound but this
        // one, outside of all walls. Without the right to raise it, none is the least that there is.
        if setrlimit(Resource::RLIMIT_CORE, NO_CORE, NO_CORE).is_err() {
            lower(Resource::RLIMIT_CORE, 0, 0)?;
        }
        let (soft, hard) = self.files.map_or(FILES, |files| (files.min(FILES.0), files));
        lower(Resource::RLIMIT_NOFILE, soft, hard)?;
        for (resource, max) in [
            (Resource::RLIMIT_FSIZE, self.file_bytes),
            (Resource::RLIMIT_NPROC, self.processes),
            (Resource::RLIMIT_DATA, self.data),
        ] {
            if let Some(max) = max {
                lower(resource, max, max)?;
            }
        }
        Ok(())
    }
}

fn lower(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let (_, held) = getrlimit(resource)?;
    Ok(setrlimit(resource, soft.min(held), hard.min(held))?)
}

/// Between fork and exec, before the user changes: that closes the file.
#[expect(unsafe_code, reason = "open and write between fork and exec, without the allocation of std")]
pub(crate) fn go_first_when_memory_runs_out() {
    // SAFETY: the path is a C string, the bytes are as long as is said, and the descriptor is this
    // function's own. A system without it has another order, which is no wall.
    unsafe {
        let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd >= 0 {
            libc::write(fd, SCORE.as_ptr().cast(), SCORE.len());
            libc::close(fd);
        }
    }
}

/// Processes and threads of a user on this machine.
pub(crate) fn tasks_of(uid: u32) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir("/proc") else { return 0 };
    let own = entries.flatten().filter(|entry| {
        let is_process = entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        is_process && entry.metadata().is_ok_and(|data| data.uid() == uid)
    });
    own.map(|entry| std::fs::read_dir(entry.path().join("task")).map_or(1, |tasks| tasks.count() as u64))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_groups_the_bounds_are_on_processes_and_their_numbers() {
        let limits = Limits {
            memory_bytes: Some(1 << 30),
            processes: Some(256),
            files: Some(100),
            ..Limits::default()
        };
        let set = Set::new(&limits, &Cgroups::default(), false, 30);
        let bounds = Bounds { data: Some(1 << 30), processes: Some(286), files: Some(100), file_bytes: None };
        assert_eq!((set.bounds, set.pid_max, set.scratch_bytes), (bounds, None, SCRATCH_BYTES));
        if bounds_numbers() {
            let set = Set::new(&limits, &Cgroups::default(), true, 30);
            assert_eq!((set.bounds.processes, set.pid_max), (None, Some(PID_MAX_MIN)));
        }
        let set = Set::new(&Limits::default(), &Cgroups::default(), true, 30);
        assert_eq!(set, Set { scratch_bytes: SCRATCH_BYTES, ..Set::default() });
    }

    #[test]
    fn a_tmp_is_bounded_whatever_the_policy_says_of_memory() {
        for (memory_bytes, expected) in [
            (Some(1), 4_096),
            (Some(1 << 20), 1 << 19),
            (Some(u64::MAX), SCRATCH_BYTES),
            (None, SCRATCH_BYTES),
        ] {
            let limits = Limits { memory_bytes, ..Limits::default() };
            assert_eq!(Set::new(&limits, &Cgroups::default(), true, 0).scratch_bytes, expected);
        }
    }

    #[test]
    fn releases_are_compared_by_their_numbers() {
        assert_eq!(parse_release("6.18.44-x-v657"), Some((6, 18)));
        assert_eq!(parse_release("5.15.0"), Some((5, 15)));
        assert_eq!(parse_release("weird"), None);
    }
}
