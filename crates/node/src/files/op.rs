//! One operation from its beginning: reads are done at once, changes are prepared and then committed.

use cortex_core::error::{Code, Refusal};
use cortex_core::files::answer::FileAnswer;
use cortex_core::files::content::ContentId;
use cortex_core::files::op::{Content, FileOp, ReadAs};

use super::cat::{self, Reading};
use super::edit;
use super::grep;
use super::list::{self, Shown};
use super::make;
use super::moving::{self, Copy, Move};
use super::place::{Place, Work};
use super::remove::{self, Removal};
use super::walk::Budget;
use super::write::{Declared, Draft, Prepared, Wanted};

/// What an operation has come to.
#[derive(Debug)]
pub(crate) enum Begun<'a> {
    /// It is over.
    Answer(FileAnswer),
    /// The content follows: of a read after its answer.
    Reading(FileAnswer, Reading),
    /// It waits for the content of a write.
    Upload(Box<Upload<'a>>),
    /// Nothing is visible yet; committed it happens, dropped it does not.
    Ready(Change<'a>),
}

/// A write whose content comes in pieces.
#[derive(Debug)]
pub(crate) struct Upload<'a> {
    draft: Draft<'a>,
    declared: Declared,
    dry_run: bool,
}

/// A change that was prepared.
#[derive(Debug)]
pub(crate) enum Change<'a> {
    /// A file gets new content.
    Write(Box<Prepared<'a>>),
    /// A folder is made.
    MakeDir(Place<'a>, bool, Option<u16>),
    /// Entries go.
    Remove(Removal<'a>),
    /// An entry gets another path.
    Move(Box<Move<'a>>),
    /// An entry gets a copy.
    Copy(Copy<'a>),
}

/// Begins an operation that was judged and checked. `at` is the place of its path, `source` that of where a
/// move or a copy comes from.
///
/// # Errors
///
/// What the parts say; `internal` without the place of a source that the operation has.
pub(crate) fn begin<'a>(
    work: &Work<'_>,
    op: &FileOp,
    at: Place<'a>,
    source: Option<Place<'a>>,
) -> Result<Begun<'a>, Refusal> {
    let from =
        || source.ok_or_else(|| Refusal::new(Code::Internal, "The place that it comes from is missing."));
    let answer = match op {
        FileOp::List { depth, hidden, glob, hash, page, .. } => {
            let shown = Shown { depth: *depth, hidden: *hidden, glob: glob.as_ref(), hash: *hash };
            list::list(&at, shown, page, &op.question(), Budget::full())?
        }
        FileOp::Stat { hash, .. } => cat::stat(&at, *hash)?,
        FileOp::Read { range, want: ReadAs::Inline { bytes_max }, hash, .. } => {
            cat::inline(&at, *range, *bytes_max, *hash)?
        }
        FileOp::Read { range, want: ReadAs::Stream, hash, .. } => {
            return Ok(match cat::stream(&at, *range, *hash)? {
                cat::Streamed::Inline(answer) => Begun::Answer(answer),
                cat::Streamed::Pieces(answer, reading) => Begun::Reading(answer, reading),
            });
        }
        FileOp::Find { query, page, .. } => list::find(&at, query, page, &op.question(), Budget::full())?,
        FileOp::Grep { query, page, .. } => grep::grep(&at, query, page, &op.question(), Budget::full())?,
        FileOp::Write { content, how, expect, mkdirs, mode, dry_run, .. } => {
            let wanted =
                Wanted { how: *how, expect: *expect, mkdirs: *mkdirs, mode: *mode, dry_run: *dry_run };
            let draft = Draft::begin(work, at, &wanted)?;
            let mut upload = Upload { draft, declared: Declared::default(), dry_run: *dry_run };
            return match content {
                Content::Streamed { id, len } => {
                    upload.declared = Declared { id: *id, len: *len };
                    Ok(Begun::Upload(Box::new(upload)))
                }
                Content::Inline(bytes) => {
                    upload.write(bytes)?;
                    upload.finish(work)
                }
            };
        }
        FileOp::Edit { edits, expect, dry_run, .. } => {
            let prepared = edit::prepare(work, at, edits, *expect, *dry_run)?;
            return ready(work, Change::Write(Box::new(prepared)), *dry_run);
        }
        FileOp::MakeDir { parents, mode, .. } => {
            return Ok(Begun::Ready(Change::MakeDir(at, *parents, *mode)));
        }
        FileOp::Remove { recursive, expect, dry_run, .. } => {
            let removal = remove::prepare(at, *recursive, *expect)?;
            if !dry_run {
                return Ok(Begun::Ready(Change::Remove(removal)));
            }
            removal.told()
        }
        FileOp::Move { replace, expect, .. } => {
            let moving = moving::prepare(from()?, at, *replace, *expect)?;
            return Ok(Begun::Ready(Change::Move(Box::new(moving))));
        }
        FileOp::Copy { recursive, replace, expect, .. } => {
            let copy = moving::copy(work, from()?, at, *recursive, *replace, *expect)?;
            return Ok(Begun::Ready(Change::Copy(copy)));
        }
    };
    Ok(Begun::Answer(answer))
}

/// A dry run ends with what would come of it.
fn ready<'a>(work: &Work<'_>, change: Change<'a>, dry_run: bool) -> Result<Begun<'a>, Refusal> {
    if dry_run { change.commit(work).map(Begun::Answer) } else { Ok(Begun::Ready(change)) }
}

impl<'a> Upload<'a> {
    /// Takes in the next bytes.
    ///
    /// # Errors
    ///
    /// `too_large`, `no_space`, and others of the disk.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.draft.write(bytes)
    }

    /// What the sender says at the end that it has sent, as far as that was not declared before.
    pub(crate) fn told(&mut self, len: u64, id: Option<ContentId>) {
        self.declared.len.get_or_insert(len);
        self.declared.id = self.declared.id.or(id);
    }

    /// All bytes are there.
    ///
    /// # Errors
    ///
    /// `invalid_argument` when they are not what was declared, and those of the disk.
    pub(crate) fn finish(self, work: &Work<'_>) -> Result<Begun<'a>, Refusal> {
        let prepared = self.draft.finish(work, self.declared)?;
        ready(work, Change::Write(Box::new(prepared)), self.dry_run)
    }
}

impl Change<'_> {
    /// What the file will hold, and bytes of it; `None` when no file gets content.
    pub(crate) fn intended(&self) -> Option<(ContentId, u64)> {
        match self {
            Self::Write(prepared) => Some((prepared.etag(), prepared.bytes())),
            Self::Copy(Copy::File(prepared)) => Some((prepared.etag(), prepared.bytes())),
            Self::Copy(Copy::Tree(_)) | Self::MakeDir(..) | Self::Remove(_) | Self::Move(_) => None,
        }
    }

    /// Does it.
    ///
    /// # Errors
    ///
    /// What the parts say.
    pub(crate) fn commit(self, work: &Work<'_>) -> Result<FileAnswer, Refusal> {
        match self {
            Self::Write(prepared) => prepared.commit(work),
            Self::MakeDir(place, parents, mode) => make::make_dir(work, &place, parents, mode),
            Self::Remove(removal) => removal.commit(work),
            Self::Move(moving) => moving.commit(work),
            Self::Copy(copy) => copy.commit(work),
        }
    }
}

#[cfg(test)]
#[path = "op_tests.rs"]
mod tests;
