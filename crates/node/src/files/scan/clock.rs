//! The clock of the disk, and which files are too young for it.

use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::beneath::{Dir, Stat};

/// The coarsest steps in which a disk counts the times of inodes, where they cannot be measured.
const GRAIN_NS: i64 = 2_000_000_000;

/// A moment before which a scan began.
///
/// A file whose inode changed before that moment gets another time with its next change, because the
/// disk's clock has stepped since. One that changed at that moment or after it may change once more and
/// have the same times still: it is read again by the next scan, whatever they say (SYNC 4).
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    began_ns: i64,
}

impl Clock {
    /// Asks the disk itself, by a file without a name, for what its clock shows; so neither its grain nor
    /// the clock of another machine is assumed. Where it makes no such file, our clock is taken, less the
    /// coarsest grain.
    pub(super) fn of(dir: &Dir) -> Self {
        let measured = dir.create_unnamed().and_then(Stat::of_open);
        let began_ns = measured.map_or_else(|_| now_ns().saturating_sub(GRAIN_NS), |stat| stat.ctime_ns);
        Self { began_ns }
    }

    /// Whether a change that comes may leave all its times as they are. A caller may set the time of the
    /// content, never that of the inode.
    pub(super) fn is_too_young(self, stat: &Stat) -> bool {
        stat.ctime_ns >= self.began_ns
    }
}

/// How often it is asked whether the clock has stepped, and for how long: most step every 4 ms or sooner.
const ASKED: (u32, Duration) = (20, Duration::from_millis(1));

/// Waits until the clock of the disk has stepped, so that nothing that was written before is too young for a
/// scan that begins then; else that reads it all once more. On a disk with a coarser clock it gives up.
pub(crate) fn await_tick(dir: &Dir) {
    let before = Clock::of(dir);
    for _ in 0..ASKED.0 {
        sleep(ASKED.1);
        if Clock::of(dir).began_ns > before.began_ns {
            return;
        }
    }
}

fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
