//! A file takes the place of another one only if that is still what was seen (SYNC rule 6): the two change
//! places, what came out is looked at, and it comes back when it is something else. So a change of
//! somebody else in the moment between is not lost, whoever of the two wins.

use cortex_core::files::content::ContentId;
use cortex_core::files::op::Kind;
use nix::errno::Errno;

use super::beneath::{Dir, Stat};
use super::fault::Fault;
use super::place::Work;
use super::read;
use super::seam::Moment;
use super::temp;

/// How far apart two changes of one file are at least, so that its times tell them apart. Clocks of file
/// systems step by up to 10 ms, those of FAT by 2 s.
const GRAIN_NS: i64 = 2_500_000_000;

/// What a file was when it was hashed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// What was known of it.
    pub(crate) stat: Stat,
    /// What it held.
    pub(crate) etag: ContentId,
    /// Whether its times may be the same after one more change.
    pub(crate) is_racy: bool,
}

impl Seen {
    /// `now_ns` is the file system's clock not later than the hashing.
    pub(crate) fn new(stat: Stat, etag: ContentId, now_ns: i64) -> Self {
        Self { stat, etag, is_racy: stat.mtime_ns.saturating_add(GRAIN_NS) > now_ns }
    }

    /// Whether the entry of this name is that file, with that content.
    pub(crate) fn is_there(&self, folder: &Dir, name: &[u8]) -> Result<bool, Fault> {
        let Some(stat) = folder.find(name)? else { return Ok(false) };
        if stat.is_as(&self.stat) && !self.is_racy {
            return Ok(true);
        }
        if stat.kind != Kind::File || stat.size != self.stat.size {
            return Ok(false);
        }
        Ok(read::hash(&folder.regular(name)?)?.etag == self.etag)
    }
}

/// What a name is expected to hold.
pub(crate) trait Look {
    /// Whether it is there as far as can be told without a look at the content.
    fn is_near(&self, folder: &Dir, name: &[u8]) -> Result<bool, Fault>;

    /// Whether it is there.
    fn is_at(&self, folder: &Dir, name: &[u8]) -> Result<bool, Fault>;
}

impl Look for Seen {
    fn is_near(&self, folder: &Dir, name: &[u8]) -> Result<bool, Fault> {
        Ok(folder.find(name)?.is_some_and(|stat| stat.is_as(&self.stat)))
    }

    fn is_at(&self, folder: &Dir, name: &[u8]) -> Result<bool, Fault> {
        self.is_there(folder, name)
    }
}

/// Where the new file lies, and where the old one comes to lie: on the file system of the target.
#[derive(Clone, Copy)]
pub(crate) struct Aside<'a> {
    /// The folder of both.
    pub(crate) dir: &'a Dir,
    /// The new file, which nobody has seen.
    pub(crate) new: &'a [u8],
    /// What was visible before.
    pub(crate) was: &'a [u8],
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Swapped {
    /// The new file has the name, and the old one is gone.
    Done,
    /// The target was something else, and still is; the new file is gone. `kept` is the name of something
    /// that a third party put there at the same time.
    Changed { kept: Option<String> },
}

/// Gives the new file the name `name` in the folder, if what is there is what was seen.
pub(crate) fn swap(
    work: &Work<'_>,
    aside: &Aside<'_>,
    folder: &Dir,
    name: &str,
    seen: &dyn Look,
) -> Result<Swapped, Fault> {
    let (dir, was, target) = (aside.dir, aside.was, name.as_bytes());
    let ours = dir.stat(aside.new)?.id;
    // Whoever reads between the exchange and its way back sees what never came to be, and may build on it.
    // So it is only tried when nothing speaks against it.
    if !seen.is_near(folder, target)? {
        dir.unlink(aside.new)?;
        return Ok(Swapped::Changed { kept: None });
    }
    work.seam.pass(Moment::Looked);
    if !work.seam.may_exchange() {
        return replace(work, aside, folder, name, seen);
    }
    // From here on something may be under the temporary name that was visible before.
    dir.rename_new(aside.new, dir, was)?;
    match dir.exchange(was, folder, target) {
        Ok(()) => {}
        Err(fault) if fault.is_not_supported() => {
            dir.rename_new(was, dir, aside.new)?;
            return replace(work, aside, folder, name, seen);
        }
        Err(fault) => {
            dir.unlink(was)?;
            return if fault.is_absent() { Ok(Swapped::Changed { kept: None }) } else { Err(fault) };
        }
    }
    work.seam.pass(Moment::Renamed);
    // What cannot be looked at is not what was expected.
    if seen.is_at(dir, was).unwrap_or(false) {
        // It is done, also when this name stays.
        let _removed = dir.unlink(was);
        return Ok(Swapped::Done);
    }
    for _ in 0..2 {
        match dir.exchange(was, folder, target) {
            Ok(()) => {}
            Err(fault) if fault.is_absent() => return put_back(work, dir, was, folder, name),
            Err(fault) => return Err(fault),
        }
        if dir.stat(was)?.id == ours {
            let _removed = dir.unlink(was);
            return Ok(Swapped::Changed { kept: None });
        }
        // A third party put its own file there meanwhile. It is the newest, so it keeps the name.
    }
    keep(work, dir, was, folder, name)
}

/// The name is free: somebody removed what was there, or moved it.
pub(super) fn put_back(
    work: &Work<'_>,
    dir: &Dir,
    was: &[u8],
    folder: &Dir,
    name: &str,
) -> Result<Swapped, Fault> {
    match dir.rename_new(was, folder, name.as_bytes()) {
        Ok(()) => Ok(Swapped::Changed { kept: None }),
        Err(fault) if fault.is_taken() => keep(work, dir, was, folder, name),
        Err(fault) => Err(fault),
    }
}

/// Gives what lies under the temporary name one that people see.
pub(crate) fn keep(
    work: &Work<'_>,
    dir: &Dir,
    was: &[u8],
    folder: &Dir,
    name: &str,
) -> Result<Swapped, Fault> {
    let kept = temp::conflict(name, work.id);
    dir.rename_new(was, folder, kept.as_bytes())?;
    Ok(Swapped::Changed { kept: Some(kept) })
}

/// Where two names cannot be exchanged: the old file gets a further name, so that it is not lost when it
/// is replaced, and is looked at before and after. Only what takes the name by a rename between the look
/// and ours is not noticed.
fn replace(
    work: &Work<'_>,
    aside: &Aside<'_>,
    folder: &Dir,
    name: &str,
    seen: &dyn Look,
) -> Result<Swapped, Fault> {
    let (dir, new, was, target) = (aside.dir, aside.new, aside.was, name.as_bytes());
    let changed = || {
        dir.unlink(new)?;
        Ok(Swapped::Changed { kept: None })
    };
    let has_second = match folder.add_name(target, dir, was) {
        Ok(()) => true,
        Err(fault) if fault.is_absent() => return changed(),
        // File systems without hard links, and files that others own.
        Err(Fault::Sys(Errno::EPERM | Errno::EOPNOTSUPP | Errno::EMLINK)) => false,
        Err(fault) => return Err(fault),
    };
    let is_seen = if has_second { seen.is_at(dir, was) } else { seen.is_at(folder, target) };
    if !is_seen.unwrap_or(false) || !seen.is_near(folder, target).unwrap_or(false) {
        if has_second {
            dir.unlink(was)?;
        }
        return changed();
    }
    dir.rename(new, folder, target)?;
    work.seam.pass(Moment::Renamed);
    if !has_second || seen.is_at(dir, was).unwrap_or(false) {
        if has_second {
            let _removed = dir.unlink(was);
        }
        return Ok(Swapped::Done);
    }
    dir.rename(was, folder, target)?;
    Ok(Swapped::Changed { kept: None })
}
