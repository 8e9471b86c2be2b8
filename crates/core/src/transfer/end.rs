//! How a transfer ended, as its receiver tells it.

use crate::error::{Code, Refusal};
use crate::files::content::TreeId;
use crate::files::path::RelPath;
use crate::id::TransferId;
use crate::limits;
use crate::sync::{Halt, PlanCounts, Why};

/// What a node says of a transfer on the control stream, when it opens no stream for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferNews {
    /// Which transfer.
    pub id: TransferId,
    /// It was over at once, since the folder is what it is to be; or why nothing comes of it.
    pub end: Result<Box<TransferEnd>, Refusal>,
}

/// The end of a transfer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransferEnd {
    /// What is there at its end; `None` when that is not known: a dry run, a halt before the scan.
    pub root: Option<TreeId>,
    /// Files and links that were put; after a dry run, that would be.
    pub files: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// What became of the paths.
    pub counts: PlanCounts,
    /// What is worth a word, path by path; at most [`limits::TRANSFER_NOTES_MAX`], within
    /// [`limits::TRANSFER_NOTE_BYTES_MAX`] bytes of paths.
    pub notes: Vec<PathNote>,
    /// Notes that did not fit.
    pub notes_more: u64,
    /// The rule that stopped it: nothing was changed then.
    pub halt: Option<Halt>,
}

impl TransferEnd {
    /// Adds a note, or counts it when there is no room left.
    pub fn note(&mut self, note: PathNote) {
        let used: usize = self.notes.iter().map(PathNote::weight).sum();
        let fits = used + note.weight() <= limits::TRANSFER_NOTE_BYTES_MAX;
        if self.notes.len() < limits::TRANSFER_NOTES_MAX && fits && self.notes_more == 0 {
            self.notes.push(note);
        } else {
            self.notes_more += 1;
        }
    }
}

/// A word on one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathNote {
    /// The path below the folder.
    pub path: RelPath,
    /// What.
    pub what: Noted,
}

impl PathNote {
    /// Bytes of its paths.
    pub fn weight(&self) -> usize {
        let copy = match &self.what {
            Noted::Aside(copy) | Noted::Keep(copy) => copy.as_str().len(),
            Noted::Put
            | Noted::MakeDir
            | Noted::RemoveFile
            | Noted::RemoveDir
            | Noted::Exec
            | Noted::Held(_)
            | Noted::Failed(_) => 0,
        };
        self.path.as_str().len() + copy
    }
}

/// What is said of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Noted {
    /// It gets content, or did.
    Put,
    /// A folder is made.
    MakeDir,
    /// A file or link goes.
    RemoveFile,
    /// An empty folder goes.
    RemoveDir,
    /// Its exec bit changes.
    Exec,
    /// It gets another name, which is free.
    Keep(RelPath),
    /// Both sides changed it: one version keeps the name, the other is kept under this one.
    Aside(RelPath),
    /// It stays as it is.
    Held(Why),
    /// A step on it was not done.
    Failed(Code),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_among_the_notes_is_counted() {
        let note = |path: &str| PathNote { path: RelPath::parse(path).expect("a path"), what: Noted::Put };
        let mut end = TransferEnd::default();
        for n in 0..limits::TRANSFER_NOTES_MAX + 5 {
            end.note(note(&format!("ملف-{n}")));
        }
        assert_eq!((end.notes.len(), end.notes_more), (limits::TRANSFER_NOTES_MAX, 5));
        let mut end = TransferEnd::default();
        let long = ["n".repeat(250).as_str(); 15].join("/");
        for _ in 0..100 {
            end.note(note(&long));
        }
        let fit = limits::TRANSFER_NOTE_BYTES_MAX / long.len();
        assert_eq!((end.notes.len(), end.notes_more), (fit, 100 - fit as u64));
    }
}
