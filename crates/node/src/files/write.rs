//! A file gets new content in one step: it is written beside it, made durable, and takes its name. Until
//! then the old content is untouched; whoever opens the file sees one or the other whole (SYNC rules 4 to
//! 6).

use std::io::Write as _;
use std::os::fd::AsFd as _;

use cortex_core::error::{Code, Refusal};
use cortex_core::files::answer::{Diff, FileAnswer, Note};
use cortex_core::files::content::ContentId;
use cortex_core::files::entity::unknown_outcome;
use cortex_core::files::op::{Expect, WriteHow};
use cortex_core::limits;
use cortex_core::name::printable;
use cortex_core::words::count;
use cortex_wire::diff;
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid, fchown};

use super::acl;
use super::beneath::{Dir, Stat};
use super::fault::Fault;
use super::place::{Place, Work};
use super::read;
use super::seam::{Moment, Synced};
use super::swap::{Aside, Seen, Swapped, swap};
use super::target::{Landing, Target, exists, mismatch, too_large};
use super::temp::{self, Temp};

/// Permissions of a new file when the caller does not say.
const MODE: u16 = 0o644;
/// What a file keeps of its permissions when it gets new content: neither setuid nor setgid.
const MODE_KEPT: u16 = 0o1777;
/// Old or new content beyond which no difference is shown.
const DIFF_SIDE_BYTES_MAX: u64 = limits::EDIT_BYTES_MAX;

/// What a caller wants of a write, beside the content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) how: WriteHow,
    pub(crate) expect: Expect,
    pub(crate) mkdirs: bool,
    pub(crate) mode: Option<u16>,
    pub(crate) dry_run: bool,
}

/// What content that came in pieces must be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Declared {
    pub(crate) id: Option<ContentId>,
    pub(crate) len: Option<u64>,
}

/// New content on its way to the disk.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    /// `None` in a dry run. Goes before the folders that were made for it.
    temp: Option<Temp>,
    target: Target<'a>,
    mode: Option<u16>,
    hasher: blake3::Hasher,
    bytes: u64,
    /// Of an append: how long the file was, and what comes after that, which is what was declared.
    appended: Option<(u64, blake3::Hasher)>,
    /// The content, in a dry run and as long as a difference of it is shown.
    pub(super) shown: Option<Vec<u8>>,
}

/// New content that is whole and durable, and that nobody sees yet. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Prepared<'a> {
    temp: Option<Temp>,
    target: Target<'a>,
    etag: ContentId,
    bytes: u64,
    /// Whether times on this file system can tell the old content from a later one.
    seen: Option<Seen>,
    pub(super) diff: Option<Diff>,
    pub(super) notes: Vec<Note>,
}

impl<'a> Draft<'a> {
    /// Looks at the target, and begins a file beside it.
    ///
    /// # Errors
    ///
    /// `conflict`, `etag_mismatch`, `not_found`, `unsupported_entry`, and those of the disk.
    pub(crate) fn begin(work: &Work<'_>, place: Place<'a>, wanted: &Wanted) -> Result<Self, Refusal> {
        let target = Target::look(work, place, wanted)?;
        let mut draft = Self::on(work, target, wanted.mode, wanted.dry_run)?;
        if wanted.how == WriteHow::Append && draft.target.there.is_some() {
            draft.write_old()?;
            draft.appended = Some((draft.bytes, blake3::Hasher::new()));
        }
        Ok(draft)
    }

    /// Begins a file that takes the place of `target`.
    pub(super) fn on(
        work: &Work<'_>,
        target: Target<'a>,
        mode: Option<u16>,
        dry_run: bool,
    ) -> Result<Self, Refusal> {
        let place = target.place;
        let temp = match &target.folder {
            Some(folder) if !dry_run => {
                Some(Temp::new(folder, work.id).map_err(|fault| match folder.stat_self() {
                    Ok(stat) => denied(place.refusal(fault), &stat),
                    Err(_) => place.refusal(fault),
                })?)
            }
            Some(_) | None => None,
        };
        let shown = dry_run.then(Vec::new);
        Ok(Self { target, temp, mode, hasher: blake3::Hasher::new(), bytes: 0, appended: None, shown })
    }

    fn write_old(&mut self) -> Result<(), Refusal> {
        let place = self.target.place;
        let Some(folder) = self.target.folder.clone() else { return Ok(()) };
        let file = folder.regular(self.target.name.as_bytes()).map_err(|fault| place.refusal(fault))?;
        let size = self.target.there.map_or(0, |there| there.size);
        let mut refused = Ok(());
        read::pieces(&file, 0, size, |piece| {
            refused = self.write(piece);
            if refused.is_ok() { Ok(()) } else { Err(Fault::TooMany) }
        })
        .or_else(|fault| if refused.is_err() { Ok(()) } else { Err(place.refusal(fault)) })?;
        refused?;
        // What was copied is what was hashed, or the target has changed since.
        let etag = ContentId::new(self.hasher.finalize().into());
        if self.target.hashed.is_some_and(|hashed| hashed.etag != etag) {
            return Err(mismatch(&place, None));
        }
        Ok(())
    }

    /// Takes in the next bytes.
    ///
    /// # Errors
    ///
    /// `too_large` beyond [`limits::FILE_BODY_BYTES_MAX`], and those of the disk.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        if self.bytes.saturating_add(bytes.len() as u64) > limits::FILE_BODY_BYTES_MAX {
            return Err(too_large(&self.target.place));
        }
        if let Some((_, hasher)) = &mut self.appended {
            hasher.update(bytes);
        }
        self.put(bytes)
    }

    /// As [`Self::write`], of what lies on this machine already, however long.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.bytes += bytes.len() as u64;
        self.hasher.update(bytes);
        if self.bytes > DIFF_SIDE_BYTES_MAX {
            self.shown = None;
        } else if let Some(shown) = &mut self.shown {
            shown.extend_from_slice(bytes);
        }
        let Some(temp) = &mut self.temp else { return Ok(()) };
        temp.file.write_all(bytes).map_err(|error| self.target.place.refusal(error.into()))
    }

    /// All bytes are there: makes them durable.
    ///
    /// # Errors
    ///
    /// `invalid_argument` when they are not what was declared, and those of the disk.
    pub(crate) fn finish(self, work: &Work<'_>, declared: Declared) -> Result<Prepared<'a>, Refusal> {
        let Self { target, temp, mode, hasher, bytes, appended, shown } = self;
        let place = target.place;
        let etag = ContentId::new(hasher.finalize().into());
        let (arrived, id) = match appended {
            Some((old, hasher)) => (bytes - old, ContentId::new(hasher.finalize().into())),
            None => (bytes, etag),
        };
        if declared.len.is_some_and(|len| len != arrived)
            || declared.id.is_some_and(|declared| declared != id)
        {
            let message = format!(
                "What arrived for `{}` is not what was declared: {}, etag {id}.",
                printable(place.path.as_str(), 300),
                count(arrived, "byte", "bytes")
            );
            return Err(Refusal::new(Code::InvalidArgument, message)
                .hint("Send the content again, whole and unchanged.")
                .detail("etag", id.to_string())
                .detail("size", arrived.to_string()));
        }
        let diff = match shown {
            Some(new) => target.old(DIFF_SIDE_BYTES_MAX).ok().map(|old| diff_of(&place, &old, &new)),
            None => None,
        };
        let mut prepared = Prepared { target, temp, etag, bytes, seen: None, diff, notes: Vec::new() };
        prepared.dress(mode).and_then(|()| prepared.sync(work)).map_err(|fault| place.refusal(fault))?;
        Ok(prepared)
    }
}

impl Prepared<'_> {
    /// What the file will hold.
    pub(crate) const fn etag(&self) -> ContentId {
        self.etag
    }

    /// Bytes of it.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Owner, permissions and access list: those of the old file, as far as this user may.
    fn dress(&mut self, mode: Option<u16>) -> Result<(), Fault> {
        let (Some(temp), Some(folder)) = (&self.temp, &self.target.folder) else { return Ok(()) };
        let file = &temp.file;
        let made = Stat::of_open(file)?;
        let Some(old) = self.target.there else {
            fchmod(file, Mode::from_bits_truncate(mode.unwrap_or(MODE).into()))?;
            return Ok(());
        };
        if old.links > 1 {
            self.notes.push(Note::HardLinkBroken);
        }
        if made.gid != old.gid && fchown(file, None, Some(Gid::from_raw(old.gid))).is_err()
            || made.uid != old.uid && fchown(file, Some(Uid::from_raw(old.uid)), None).is_err()
        {
            self.notes.push(Note::OwnerNotKept);
        }
        fchmod(file, Mode::from_bits_truncate((old.mode & MODE_KEPT).into()))?;
        let has_list = folder.regular(self.target.name.as_bytes()).is_ok_and(|old| acl::copy(&old, file));
        if !has_list {
            self.notes.push(Note::AclNotKept);
        }
        if let Some(hashed) = self.target.hashed {
            self.seen = Some(Seen::new(hashed.stat, hashed.etag, made.mtime_ns));
        }
        Ok(())
    }

    fn sync(&self, work: &Work<'_>) -> Result<(), Fault> {
        let Some(temp) = &self.temp else { return Ok(()) };
        work.seam.sync(temp.file.as_fd(), Synced::Content)?;
        work.seam.pass(Moment::TempSynced);
        Ok(())
    }

    /// Gives the content its name.
    ///
    /// # Errors
    ///
    /// `etag_mismatch` or `conflict` when the target is not what it was, with what is there untouched;
    /// `unknown_outcome` when it has its name and the disk cannot say whether it will keep it.
    pub(crate) fn commit(mut self, work: &Work<'_>) -> Result<FileAnswer, Refusal> {
        let place = self.target.place;
        let mut created = self.target.there.is_none();
        if let (Some(mut temp), Some(folder)) = (self.temp.take(), self.target.folder.clone()) {
            work.seam.pass(Moment::Prepared);
            created = self.land(work, &mut temp, &folder)?;
            self.target.made.keep();
            let synced = work.seam.sync(folder.as_fd(), Synced::Names);
            synced.map_err(|fault| {
                let why = fault.refusal(place.path.as_str()).message;
                unknown_outcome(work.id, why.trim_end_matches('.'))
            })?;
            work.seam.pass(Moment::DirSynced);
            return Ok(self.answer(created, false));
        }
        Ok(self.answer(created, true))
    }

    /// Whether it was not there before.
    fn land(&self, work: &Work<'_>, temp: &mut Temp, folder: &Dir) -> Result<bool, Refusal> {
        let Target { place, name, landing, .. } = self.target;
        let failed = |fault: Fault| place.refusal(fault);
        let target = name.as_bytes();
        match landing {
            Landing::New | Landing::NewOrOver => match folder.rename_new(temp.name(), folder, target) {
                Ok(()) => {
                    temp.keep();
                    work.seam.pass(Moment::Renamed);
                    return Ok(true);
                }
                Err(fault) if fault.is_taken() && landing == Landing::NewOrOver => {}
                Err(fault) if fault.is_taken() => return Err(exists(&place)),
                Err(fault) => return Err(failed(fault)),
            },
            Landing::Same => {
                let Some(seen) = &self.seen else { return Err(mismatch(&place, None)) };
                let was = temp::seen(work.id);
                let aside = Aside { dir: folder, new: temp.name(), was: was.as_bytes() };
                return match swap(work, &aside, folder, name, seen).map_err(failed)? {
                    Swapped::Done => {
                        temp.keep();
                        Ok(false)
                    }
                    Swapped::Changed { kept } => {
                        // What came back is where it was; that this is durable is worth a try.
                        let _synced = work.seam.sync(folder.as_fd(), Synced::Names);
                        let now = folder.regular(target).and_then(|file| read::hash(&file)).ok();
                        Err(beside(mismatch(&place, now.as_ref()), kept))
                    }
                };
            }
            Landing::Over => {}
        }
        if let Some(there) = folder.find(target).map_err(failed)? {
            place.must_be_file(folder, name, &there)?;
        }
        folder.rename(temp.name(), folder, target).map_err(failed)?;
        temp.keep();
        work.seam.pass(Moment::Renamed);
        Ok(false)
    }

    fn answer(self, created: bool, dry_run: bool) -> FileAnswer {
        FileAnswer::Written {
            etag: self.etag,
            bytes: self.bytes,
            created,
            before: self.target.hashed.map(|hashed| hashed.etag),
            diff: self.diff,
            notes: self.notes,
            dry_run,
        }
    }
}

/// The difference, for people, under the path that the caller named.
pub(super) fn diff_of(place: &Place<'_>, old: &[u8], new: &[u8]) -> Diff {
    let name = printable(place.path.as_str(), 1_000);
    diff::unified(old, new, &format!("a{name}"), &format!("b{name}"))
}

/// Says where content is that came in between.
pub(super) fn beside(mut refusal: Refusal, kept: Option<String>) -> Refusal {
    let Some(kept) = kept else { return refusal };
    refusal.message.push_str(&format!(" Content that came in between is kept as `{kept}` beside it."));
    refusal.hint("Look at both, and decide which one the file shall hold.")
}

/// A folder of somebody else, with the words that its owner needs.
pub(super) fn denied(refusal: Refusal, folder: &Stat) -> Refusal {
    if refusal.code != Code::Forbidden {
        return refusal;
    }
    let us = Uid::effective();
    let mut refusal = refusal;
    refusal.message = format!(
        "{} Its folder belongs to uid {} with mode {:o}; this node's runs are uid {us}.",
        refusal.message,
        folder.uid,
        folder.mode & 0o777
    );
    let hint = format!(
        "Ask the owner of the machine for access of uid {us} to that folder, for example with `setfacl -m u:{us}:rwx`."
    );
    refusal.hint(hint)
}

#[cfg(test)]
#[path = "write_tests.rs"]
mod tests;
