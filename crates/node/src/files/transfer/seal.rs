//! Leave to write, taken from a folder that only the hub changes, and given back while it does. It keeps slips
//! away, not its owner: what he writes all the same is drift, and never reaches the hub.
//!
//! What cannot be given or taken, such as of files of others, stays as it is: content is what counts.

use cortex_core::files::op::Kind;

use super::super::beneath::Dir;
use super::super::fault::Fault;
use super::super::scan::OURS;
use super::super::tree::{each, set_mode};

/// What owners may do, as it is added to a folder.
const OWNER: u16 = 0o700;
const DIR: u16 = 0o555;
const PERMISSIONS: u16 = 0o7777;

/// Gives the owner leave to change entries of the folder and of all below it.
pub(super) fn open(dir: &Dir) {
    let _left = opened(dir, 0);
}

fn opened(dir: &Dir, depth: usize) -> Result<(), Fault> {
    let stat = dir.stat_self()?;
    if stat.mode & OWNER != OWNER {
        set_mode(dir, stat.mode | OWNER)?;
    }
    each(dir, depth, |name| {
        if dir.stat(name).is_ok_and(|stat| stat.kind == Kind::Dir) && !(depth == 0 && name == OURS) {
            let _left = dir.dir(name).and_then(|below| opened(&below, depth + 1));
        }
        Ok(())
    })
}

/// Takes leave to write from the folder and all in it, our own folder aside.
pub(super) fn close(dir: &Dir) {
    let _left = closed(dir, 0);
}

fn closed(dir: &Dir, depth: usize) -> Result<(), Fault> {
    each(dir, depth, |name| {
        let Ok(stat) = dir.stat(name) else { return Ok(()) };
        match stat.kind {
            Kind::Dir if depth == 0 && name == OURS => {}
            Kind::Dir => {
                let _left = dir.dir(name).and_then(|below| closed(&below, depth + 1));
            }
            // Of one that has another name elsewhere, the modes are not this folder's.
            Kind::File if stat.links > 1 => {}
            Kind::File => {
                let mode = if stat.mode & 0o100 == 0 { 0o444 } else { 0o555 };
                if stat.mode & PERMISSIONS != mode {
                    let _left = dir.regular(name).and_then(|file| super::super::apply::set_mode(&file, mode));
                }
            }
            Kind::Link | Kind::Other => {}
        }
        Ok(())
    })?;
    if dir.stat_self()?.mode & PERMISSIONS == DIR { Ok(()) } else { set_mode(dir, DIR) }
}
