//! Which folder it is: a marker in it, and its inode.

use std::io::Write as _;
use std::os::fd::AsFd as _;

use cortex_core::files::content::ContentId;
use cortex_core::sync::RootState;
use cortex_core::workspace::RootIdentity;
use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod};

use super::super::beneath::Dir;
use super::super::fault::Fault;
use super::super::read;
use super::{OURS, cache};
use crate::sandbox::walls::FileId;

/// The name of the marker in the folder of ours.
const NAME: &[u8] = b"root";
/// 64 hex digits and the end of a line.
const BYTES: u64 = 65;

/// A folder, told from one that took its place (SYNC rule 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// What stands in `.cortex/root`.
    pub(crate) marker: [u8; 32],
    /// Device and inode of the folder.
    pub(crate) file: FileId,
}

impl Identity {
    /// Marks the folder, unless it has a marker, and says which one it is. Of two who do so at once, both
    /// get the marker of the first.
    ///
    /// # Errors
    /// `EINVAL` when there is something in the marker's place that is none: it is never written anew.
    pub(crate) fn make(dir: &Dir) -> Result<Self, Fault> {
        let ours = cache::ours(dir)?;
        if ours.find(NAME)?.is_none() {
            let mut marker = [0; 32];
            getrandom::fill(&mut marker).map_err(|_| Fault::Sys(Errno::EAGAIN))?;
            let text = format!("{}\n", ContentId::new(marker));
            let temp = format!("root-{}~", &text[..16]);
            let mut file = ours.create(temp.as_bytes())?;
            let written = file.write_all(text.as_bytes()).map_err(Fault::from);
            let named = written
                .and_then(|()| Ok(fchmod(file.as_fd(), Mode::from_bits_truncate(0o444))?))
                .and_then(|()| Ok(file.sync_all()?))
                .and_then(|()| ours.rename_new(temp.as_bytes(), &ours, NAME));
            if let Err(fault) = named {
                // Nobody misses it.
                let _removed = ours.unlink(temp.as_bytes());
                if !fault.is_taken() {
                    return Err(fault);
                }
            }
            nix::unistd::fsync(&ours)?;
            nix::unistd::fsync(dir)?;
        }
        Self::read(dir)?.ok_or(Fault::Sys(Errno::EINVAL))
    }

    /// The one of the folder; `None` when it has no marker.
    pub(crate) fn read(dir: &Dir) -> Result<Option<Self>, Fault> {
        let found = dir.dir(OURS).and_then(|ours| ours.regular(NAME));
        let file = match found {
            Err(fault) if fault.is_absent() => return Ok(None),
            found => found?,
        };
        let (text, _) = read::whole(&file, BYTES)?;
        let text = String::from_utf8(text).unwrap_or_default();
        let Ok(marker) = text.trim_end().parse::<ContentId>() else { return Ok(None) };
        Ok(Some(Self { marker: *marker.as_bytes(), file: dir.stat_self()?.id }))
    }

    /// [`RootState::Dir`] when the folder is this one, [`RootState::Unavailable`] else: nothing is known
    /// then of what was in it.
    pub(crate) fn check(expected: &RootIdentity, dir: &Dir) -> RootState {
        match Self::told(dir) {
            Ok(found) if expected.is(&found) => RootState::Dir,
            Ok(_) | Err(_) => RootState::Unavailable,
        }
    }

    /// The folder as the hub is told of it, marked or not.
    pub(crate) fn told(dir: &Dir) -> Result<RootIdentity, Fault> {
        if let Some(found) = Self::read(dir)? {
            return Ok(found.root());
        }
        let FileId { dev, ino } = dir.stat_self()?.id;
        Ok(RootIdentity { marker: RootIdentity::UNMARKED, dev, ino })
    }

    /// For the hub.
    pub(crate) const fn root(&self) -> RootIdentity {
        RootIdentity { marker: self.marker, dev: self.file.dev, ino: self.file.ino }
    }
}
