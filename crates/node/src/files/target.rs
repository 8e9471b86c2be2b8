//! The file that a write is about, before it: what is there, and whether that is what is expected.

use std::rc::Rc;

use cortex_core::error::{Code, Refusal};
use cortex_core::files::op::{Expect, WriteHow};
use cortex_core::limits;
use cortex_core::name::printable;
use cortex_core::words::count;
use nix::errno::Errno;

use super::beneath::{Dir, Follow, Stat};
use super::fault::{Fault, conflict};
use super::make::{self, Made};
use super::place::{Place, Work};
use super::read::{self, Hashed};
use super::write::Wanted;

/// The file before it is written.
#[derive(Debug)]
pub(super) struct Target<'a> {
    pub(super) place: Place<'a>,
    /// `None` in a dry run that would make it.
    pub(super) folder: Option<Rc<Dir>>,
    pub(super) name: &'a str,
    /// Folders that were made for it; they go again when nothing comes of it.
    pub(super) made: Made,
    pub(super) there: Option<Stat>,
    /// What it holds, as far as it was hashed.
    pub(super) hashed: Option<Hashed>,
    pub(super) landing: Landing,
}

/// How the new file takes its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Landing {
    /// Nothing is there; what comes in between stays.
    New,
    /// Nothing is there; a file that comes in between is replaced.
    NewOrOver,
    /// A file is there, whatever it holds.
    Over,
    /// What was hashed is there.
    Same,
}

impl<'a> Target<'a> {
    /// Looks at what is there, and whether that is what is expected.
    pub(super) fn look(work: &Work<'_>, place: Place<'a>, wanted: &Wanted) -> Result<Self, Refusal> {
        let (above, name) = place.above()?;
        let found = match (wanted.mkdirs, wanted.dry_run) {
            (true, false) => {
                make::folders(work, place.root, &above, None).map(|(dir, made)| (Some(dir), made))
            }
            (true, true) => match place.parent() {
                Ok((dir, _)) => Ok((Some(dir), Made::default())),
                Err(refusal) if refusal.code == Code::NotFound => Ok((None, Made::default())),
                Err(refusal) => return Err(refusal),
            },
            (false, _) => place.root.dir(&above, Follow::Within).map(|dir| (Some(dir), Made::default())),
        };
        let (folder, made) = found.map_err(|fault| place.refusal(fault))?;
        let mut target = Self {
            place,
            folder: folder.map(Rc::new),
            name,
            made,
            there: None,
            hashed: None,
            landing: Landing::New,
        };
        target.find(wanted)?;
        Ok(target)
    }

    fn find(&mut self, wanted: &Wanted) -> Result<(), Refusal> {
        let place = self.place;
        if let Some(folder) = &self.folder {
            self.there = folder.find(self.name.as_bytes()).map_err(|fault| place.refusal(fault))?;
            if let Some(there) = &self.there {
                place.must_be_file(folder, self.name, there)?;
            }
        }
        match (wanted.how, self.there) {
            (WriteHow::Create, Some(_)) => return Err(exists(&place)),
            (WriteHow::Replace, None) if wanted.expect == Expect::Any => {
                return Err(place.refusal(Fault::Sys(Errno::ENOENT)));
            }
            (WriteHow::Create | WriteHow::Replace | WriteHow::Append | WriteHow::Put, _) => {}
        }
        let appends = wanted.how == WriteHow::Append;
        if appends && self.there.is_some_and(|there| there.size > limits::FILE_BODY_BYTES_MAX) {
            return Err(too_large(&place));
        }
        self.hash(appends || matches!(wanted.expect, Expect::Etag(_)))?;
        self.landing = match (wanted.expect, self.there) {
            (Expect::Absent, None) => Landing::New,
            (Expect::Absent, Some(there)) => return Err(is_there(&place, &there, self.hashed.as_ref())),
            (Expect::Etag(_), None) => return Err(mismatch(&place, None)),
            (Expect::Etag(etag), Some(_)) => {
                if self.hashed.is_none_or(|hashed| hashed.etag != etag) {
                    return Err(mismatch(&place, self.hashed.as_ref()));
                }
                Landing::Same
            }
            (Expect::Any, None) if wanted.how == WriteHow::Put => Landing::NewOrOver,
            (Expect::Any, None) => Landing::New,
            (Expect::Any, Some(_)) if wanted.how == WriteHow::Append => Landing::Same,
            (Expect::Any, Some(_)) => Landing::Over,
        };
        Ok(())
    }

    /// Of a file that need not be hashed its answer does without when that takes long, or cannot be.
    fn hash(&mut self, is_needed: bool) -> Result<(), Refusal> {
        let (Some(folder), Some(there)) = (&self.folder, &self.there) else { return Ok(()) };
        if !is_needed && there.size > limits::ETAG_AUTO_BYTES_MAX {
            return Ok(());
        }
        match folder.regular(self.name.as_bytes()).and_then(|file| read::hash(&file)) {
            Ok(hashed) => {
                self.there = Some(hashed.stat);
                self.hashed = Some(hashed);
                Ok(())
            }
            Err(_) if !is_needed => Ok(()),
            Err(fault) => Err(self.place.refusal(fault)),
        }
    }

    /// A file that was read just now, and that must not have changed since.
    pub(super) fn of_read(place: Place<'a>, folder: Dir, name: &'a str, hashed: Hashed) -> Self {
        Self {
            place,
            folder: Some(Rc::new(folder)),
            name,
            made: Made::default(),
            there: Some(hashed.stat),
            hashed: Some(hashed),
            landing: Landing::Same,
        }
    }

    /// What it holds, when that is not more than `max` bytes; nothing when it is not there.
    pub(super) fn old(&self, max: u64) -> Result<Vec<u8>, Fault> {
        let (Some(folder), Some(_)) = (&self.folder, &self.there) else { return Ok(Vec::new()) };
        let file = folder.regular(self.name.as_bytes())?;
        Ok(read::whole(&file, max)?.0)
    }
}

/// Something is there already.
pub(super) fn exists(place: &Place<'_>) -> Refusal {
    let path = printable(place.path.as_str(), 300);
    conflict("exists", format!("`{path}` is there already."), "Choose another name, or replace it.")
        .detail("path", path)
}

/// Nothing was expected there.
fn is_there(place: &Place<'_>, there: &Stat, hashed: Option<&Hashed>) -> Refusal {
    if hashed.is_some() {
        return mismatch(place, hashed);
    }
    let (path, size) = (printable(place.path.as_str(), 300), there.size);
    Refusal::new(
        Code::EtagMismatch,
        format!("`{path}` is there already, with {}.", count(size, "byte", "bytes")),
    )
    .detail("path", path)
    .detail("size", size.to_string())
}

/// More than a file is written with.
pub(super) fn too_large(place: &Place<'_>) -> Refusal {
    let (path, max) = (printable(place.path.as_str(), 300), limits::FILE_BODY_BYTES_MAX);
    Refusal::new(
        Code::TooLarge,
        format!("`{path}` would hold more than one file is written with; the bound is {max} bytes."),
    )
    .hint("Send it by `cortex push`, or write it with a command on the node.")
}

/// The file is not what the caller knows, with what it is.
pub(super) fn mismatch(place: &Place<'_>, now: Option<&Hashed>) -> Refusal {
    let path = printable(place.path.as_str(), 300);
    let what = match now {
        Some(hashed) => {
            format!("it holds {} with the etag {}", count(hashed.stat.size, "byte", "bytes"), hashed.etag)
        }
        None => "it is not there, or was changed in this moment".to_owned(),
    };
    let refusal = Refusal::new(Code::EtagMismatch, format!("`{path}` is not what was expected: {what}."))
        .detail("path", path);
    match now {
        Some(hashed) => {
            refusal.detail("etag", hashed.etag.to_string()).detail("size", hashed.stat.size.to_string())
        }
        None => refusal,
    }
}
