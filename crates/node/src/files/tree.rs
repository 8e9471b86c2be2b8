//! Whole folders: counted, copied, removed; by descriptors, without links being followed, and within one
//! file system.

use std::ops::Bound;
use std::os::fd::AsFd as _;

use cortex_core::files::op::Kind;
use nix::sys::stat::{Mode, fchmod};

use super::beneath::Dir;
use super::fault::Fault;
use super::read;
use super::walk::LEVELS_MAX;

/// Names that are in memory of each level.
const NAMES_MAX: usize = 1_024;
/// What a copy keeps of permissions: neither setuid, setgid nor sticky bits (SYNC rule 16).
const MODE_KEPT: u16 = 0o777;

/// What lies in a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Entries below it.
    pub(super) entries: u64,
    /// The path of one that is neither file, folder nor link.
    pub(super) other: Option<Vec<u8>>,
}

/// Counts what lies in a folder.
///
/// # Errors
///
/// [`Fault::TooMany`] when it is deeper than can be open at once; `EXDEV` when another file system is
/// mounted in it.
pub(super) fn tally(dir: &Dir) -> Result<Tally, Fault> {
    let mut tally = Tally::default();
    count(dir, 1, &[], &mut tally)?;
    Ok(tally)
}

fn count(dir: &Dir, depth: usize, path: &[u8], tally: &mut Tally) -> Result<(), Fault> {
    each(dir, depth, |name| {
        let stat = match dir.stat(name) {
            Err(fault) if fault.is_absent() => return Ok(()),
            stat => stat?,
        };
        tally.entries += 1;
        let path = [path, b"/", name].concat();
        match stat.kind {
            Kind::Dir => count(&dir.dir(name)?, depth + 1, &path, tally),
            Kind::Other => {
                tally.other.get_or_insert(path);
                Ok(())
            }
            Kind::File | Kind::Link => Ok(()),
        }
    })
}

/// Hands over the names of a folder in byte order.
pub(super) fn each(
    dir: &Dir,
    depth: usize,
    mut act: impl FnMut(&[u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    if depth > LEVELS_MAX {
        return Err(Fault::TooMany);
    }
    let mut last: Option<Box<[u8]>> = None;
    loop {
        let from = last.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut part = dir.names(from, NAMES_MAX)?;
        part.names.iter().try_for_each(|name| act(name))?;
        last = part.names.pop();
        if !part.more {
            return Ok(());
        }
    }
}

/// Removes a folder with all that is in it; `removed` counts what is gone, also when it fails.
pub(super) fn remove(above: &Dir, name: &[u8], removed: &mut u64) -> Result<(), Fault> {
    clear(&above.dir(name)?, 1, removed)?;
    above.remove_dir(name)?;
    *removed += 1;
    Ok(())
}

fn clear(dir: &Dir, depth: usize, removed: &mut u64) -> Result<(), Fault> {
    each(dir, depth, |name| {
        let stat = match dir.stat(name) {
            Err(fault) if fault.is_absent() => return Ok(()),
            stat => stat?,
        };
        if stat.kind == Kind::Dir {
            clear(&dir.dir(name)?, depth + 1, removed)?;
            dir.remove_dir(name)?;
        } else {
            dir.unlink(name)?;
        }
        *removed += 1;
        Ok(())
    })
}

/// Copies what lies in a folder into another one, which is empty; `made` counts.
pub(super) fn copy(from: &Dir, to: &Dir, max: u64, made: &mut u64) -> Result<(), Fault> {
    fill(from, to, 1, max, made)
}

fn fill(from: &Dir, to: &Dir, depth: usize, max: u64, made: &mut u64) -> Result<(), Fault> {
    each(from, depth, |name| {
        let stat = from.stat(name)?;
        if *made >= max {
            return Err(Fault::TooMany);
        }
        match stat.kind {
            Kind::Dir => {
                to.make_dir(name, Mode::S_IRWXU)?;
                let made_dir = to.dir(name)?;
                fill(&from.dir(name)?, &made_dir, depth + 1, max, made)?;
                set_mode(&made_dir, stat.mode)?;
            }
            Kind::Link => to.make_link(name, &from.link_target(name)?)?,
            Kind::File => copy_file(from, name, to)?,
            Kind::Other => return Err(Fault::Unfit(Kind::Other)),
        }
        *made += 1;
        Ok(())
    })
}

fn copy_file(from: &Dir, name: &[u8], to: &Dir) -> Result<(), Fault> {
    use std::io::Write as _;
    let file = from.regular(name)?;
    let before = super::beneath::Stat::of_open(&file)?;
    let mut copy = to.create(name)?;
    read::pieces(&file, 0, u64::MAX, |piece| Ok(copy.write_all(piece)?))?;
    if !super::beneath::Stat::of_open(&file)?.is_untouched_since(&before) {
        return Err(Fault::Restless);
    }
    Ok(fchmod(&copy, Mode::from_bits_truncate((before.mode & MODE_KEPT).into()))?)
}

/// Gives a folder that was made here the permissions of the one that it is a copy of.
pub(super) fn set_mode(dir: &Dir, mode: u16) -> Result<(), Fault> {
    Ok(fchmod(dir.as_fd(), Mode::from_bits_truncate((mode & MODE_KEPT).into()))?)
}
