//! Watches: a node tells its hub that something in a folder changed. It is a hint, from which follows a look
//! and nothing else; what a folder holds is known by looking at it. A watch belongs to a link and ends with
//! it, and a folder that is not watched is looked at from time to time (SYNC rule 14).

mod looks;

pub use self::looks::Looks;

use crate::files::path::FilePath;
use crate::id::WatchId;
use crate::transfer::Filters;

/// A folder that a node is to watch. A second one of the same id takes the place of the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchAsk {
    /// Which watch.
    pub id: WatchId,
    /// The folder.
    pub path: FilePath,
    /// What of it belongs to its tree: what is left out is not watched.
    pub filters: Filters,
}

/// What a node tells of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchNews {
    /// Which watch.
    pub id: WatchId,
    /// What it sees.
    pub sight: Sight,
}

/// What a watch sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// All of the folder is watched. What happened before that was not told.
    Watching,
    /// Something changed.
    Changed,
    /// Nothing further is told: the watch has ended.
    Blind(Blind),
}

impl Sight {
    /// What is told of both when the first was not told yet: a look follows from either, and the one that says
    /// how the watch stands stays.
    #[must_use]
    pub const fn after(self, earlier: Self) -> Self {
        match (earlier, self) {
            (Self::Watching | Self::Blind(_), Self::Changed) => earlier,
            (Self::Changed, Self::Changed) | (_, Self::Watching | Self::Blind(_)) => self,
        }
    }
}

/// Why a watch ended, or did not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blind {
    /// The system watches no more folders for this user (`fs.inotify.max_user_watches` and its like).
    Limit,
    /// The system had more to tell than it keeps.
    Overflow,
    /// The folder could not be watched for another reason.
    Failed,
    /// The node's policy does not give the folder.
    Denied,
    /// More folders than a node watches ([`crate::limits::WATCHES_MAX`]), or more in one than it watches
    /// ([`crate::limits::WATCH_DIRS_MAX`]).
    Many,
    /// The folder is not there, or was moved or removed.
    Moved,
    /// It lies on a file system that does not tell of all changes: those of other machines, and in user space.
    Remote,
    /// The process that watched has ended, or another policy holds.
    Ended,
}

impl Blind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Limit,
        Self::Overflow,
        Self::Failed,
        Self::Denied,
        Self::Many,
        Self::Moved,
        Self::Remote,
        Self::Ended,
    ];

    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Overflow => "overflow",
            Self::Failed => "failed",
            Self::Denied => "denied",
            Self::Many => "many",
            Self::Moved => "moved",
            Self::Remote => "remote",
            Self::Ended => "ended",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_that_wait_the_one_that_says_how_it_stands_is_told() {
        let (watching, changed) = (Sight::Watching, Sight::Changed);
        let blind = |why| Sight::Blind(why);
        let rows = [
            (changed, changed, changed),
            (watching, changed, watching),
            (changed, watching, watching),
            (changed, blind(Blind::Moved), blind(Blind::Moved)),
            (watching, blind(Blind::Limit), blind(Blind::Limit)),
            (blind(Blind::Limit), changed, blind(Blind::Limit)),
            (blind(Blind::Limit), watching, watching),
        ];
        for (earlier, later, told) in rows {
            assert_eq!(later.after(earlier), told, "{earlier:?}, then {later:?}");
        }
    }

    #[test]
    fn each_reason_has_a_word_of_its_own() {
        let words: std::collections::BTreeSet<&str> = Blind::ALL.iter().map(|why| why.as_str()).collect();
        assert_eq!(words.len(), Blind::ALL.len());
    }
}
