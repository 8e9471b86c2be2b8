//! One operation on the files of one node: what is asked, checked once ([`FileOp::check`]), and spoken
//! as a command so that policies and the audit log know it ([`FileOp::spoken`]).
//!
//! Never here: files.

mod canon;
mod check;

use std::fmt;

use bytes::Bytes;

use super::content::ContentId;
use super::path::FilePath;
use crate::sandbox::Access;

macro_rules! verbs {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $action:literal;)*) => {
        /// What is done, by the name of the command that does it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Verb { $($(#[$doc])* $variant,)* }

        impl Verb {
            /// All.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable text form.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// What the audit log calls it.
            pub const fn action(self) -> &'static str {
                match self { $(Self::$variant => $action,)* }
            }

            /// Reads the text form back.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

verbs! {
    /// List a folder.
    List = "ls", "fs.ls";
    /// Tell of one entry.
    Stat = "stat", "fs.stat";
    /// Read a file.
    Read = "cat", "fs.cat";
    /// Find entries by what they are.
    Find = "find", "fs.find";
    /// Find lines in files.
    Grep = "grep", "fs.grep";
    /// Write a file.
    Write = "write", "fs.write";
    /// Replace text in a file.
    Edit = "edit", "fs.edit";
    /// Make a folder.
    MakeDir = "mkdir", "fs.mkdir";
    /// Remove.
    Remove = "rm", "fs.rm";
    /// Move, or rename.
    Move = "mv", "fs.mv";
    /// Copy.
    Copy = "cp", "fs.cp";
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One operation. Its paths are those of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOp {
    /// The entries of a folder, in byte order of their names.
    List {
        /// The folder.
        path: FilePath,
        /// How many levels: 1 is the folder's own entries, at most [`crate::limits::LIST_DEPTH_MAX`].
        depth: u8,
        /// Whether names that begin with a dot are listed.
        hidden: bool,
        /// Only these names.
        glob: Option<Glob>,
        /// Whether files are hashed for their etag.
        hash: bool,
        /// Which part of the list.
        page: Page,
    },
    /// What one entry is; a link is not followed.
    Stat {
        /// The entry.
        path: FilePath,
        /// Whether a file is hashed for its etag.
        hash: bool,
    },
    /// Content of a file.
    Read {
        /// The file.
        path: FilePath,
        /// Which part.
        range: ReadRange,
        /// How it travels.
        want: ReadAs,
        /// Whether the whole file is hashed for its etag.
        hash: bool,
    },
    /// Entries below a folder, by what they are, in byte order of their paths.
    Find {
        /// The folder.
        path: FilePath,
        /// Which entries.
        query: FindQuery,
        /// Which part of the answer.
        page: Page,
    },
    /// Lines of files below a folder, or of one file.
    Grep {
        /// The folder, or the file.
        path: FilePath,
        /// Which lines.
        query: GrepQuery,
        /// Which part of the answer.
        page: Page,
    },
    /// Makes the file have this content. Nobody sees half of it.
    Write {
        /// The file.
        path: FilePath,
        /// What it shall hold.
        content: Content,
        /// Whether it may, or must, be there.
        how: WriteHow,
        /// What it must be before.
        expect: Expect,
        /// Whether folders that are missing above it are made.
        mkdirs: bool,
        /// Permissions of a new file, at most `0o777`; a file that is there keeps its own.
        mode: Option<u16>,
        /// Only say what would come of it.
        dry_run: bool,
    },
    /// Replaces text in a file: all of the replacements, or none.
    Edit {
        /// The file.
        path: FilePath,
        /// The replacements, each done on what the one before it left; 1 to [`crate::limits::EDITS_MAX`].
        edits: Vec<Edit>,
        /// What it must be before.
        expect: Expect,
        /// Only say what would come of it.
        dry_run: bool,
    },
    /// Makes a folder.
    MakeDir {
        /// The folder.
        path: FilePath,
        /// Whether folders that are missing above it are made, and one that is there already is good.
        parents: bool,
        /// Permissions of what is made, at most `0o777`.
        mode: Option<u16>,
    },
    /// Removes an entry; of a link the link.
    Remove {
        /// The entry.
        path: FilePath,
        /// Whether a folder goes with all that is in it.
        recursive: bool,
        /// What a file must be before.
        expect: Expect,
        /// Only say what would come of it.
        dry_run: bool,
    },
    /// Gives an entry another path.
    Move {
        /// Where it is.
        from: FilePath,
        /// Where it shall be.
        to: FilePath,
        /// Whether a file that is there already is replaced.
        replace: bool,
        /// What the file at `from` must be before.
        expect: Expect,
    },
    /// Makes another entry of the same content.
    Copy {
        /// What is copied.
        from: FilePath,
        /// Where the copy shall be.
        to: FilePath,
        /// Whether a folder is copied with all that is in it.
        recursive: bool,
        /// Whether a file that is there already is replaced.
        replace: bool,
        /// What the file at `from` must be.
        expect: Expect,
    },
}

/// Which part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadRange {
    /// All of it.
    All,
    /// These bytes; fewer when the file ends before.
    Bytes {
        /// The first one, from 0.
        from: u64,
        /// How many, at least 1.
        len: u64,
    },
    /// These lines; fewer when the file ends before.
    Lines {
        /// The first one, from 1.
        from: u64,
        /// How many, at least 1.
        count: u64,
    },
}

/// How content that was read travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadAs {
    /// Within the answer, cut to so many bytes: 1 to [`crate::limits::FILE_INLINE_BYTES_MAX`].
    Inline {
        /// Bytes.
        bytes_max: u32,
    },
    /// On a stream of its own.
    Stream,
}

/// Content to write.
#[derive(Clone, PartialEq, Eq)]
pub enum Content {
    /// It is here, at most [`crate::limits::FILE_INLINE_BYTES_MAX`].
    Inline(Bytes),
    /// It comes on a stream of its own.
    Streamed {
        /// What it must hash to.
        id: Option<ContentId>,
        /// How long it must be, bytes; at most [`crate::limits::FILE_BODY_BYTES_MAX`].
        len: Option<u64>,
    },
}

impl fmt::Debug for Content {
    /// Content is in no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(bytes) => write!(f, "Inline({} bytes)", bytes.len()),
            Self::Streamed { id, len } => {
                f.debug_struct("Streamed").field("id", id).field("len", len).finish()
            }
        }
    }
}

/// Whether a file that is written may, or must, be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteHow {
    /// It must not be there.
    Create,
    /// It must be there.
    Replace,
    /// Its content stays in front; it may be missing.
    Append,
    /// Either.
    Put,
}

/// What a file must be before it is changed: the caller's knowledge of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Whatever it is.
    Any,
    /// Nothing is there.
    Absent,
    /// It has this content.
    Etag(ContentId),
}

/// One replacement of text.
#[derive(Clone, PartialEq, Eq)]
pub struct Edit {
    /// What is there; not empty. It must be there exactly once, unless `all` is set.
    pub old: Bytes,
    /// What comes in its place.
    pub new: Bytes,
    /// Whether each place is replaced.
    pub all: bool,
}

impl fmt::Debug for Edit {
    /// Content is in no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (old, new) = (self.old.len(), self.new.len());
        write!(f, "Edit({old} bytes to {new}{})", if self.all { ", all" } else { "" })
    }
}

/// Which part of a list or search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Entries, or matches, at most; at least 1.
    pub limit: u32,
    /// Where the page before ended, as it said; at most [`crate::limits::FILE_CURSOR_BYTES_MAX`].
    pub cursor: Option<Bytes>,
}

/// A pattern for names, as `.gitignore` has them: `*` and `?` within a part of a path, `**` for any
/// number of parts, `[abc]` for one of these. One without a `/` is about the last part.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Glob(String);

/// Which entries are found. All conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FindQuery {
    /// Only these names.
    pub name: Option<Glob>,
    /// Only this kind.
    pub kind: Option<Kind>,
    /// Only files of at least so many bytes.
    pub size_min: Option<u64>,
    /// Only files of at most so many bytes.
    pub size_max: Option<u64>,
    /// Only what changed within the last so many milliseconds, by the node's clock.
    pub changed_within_ms: Option<u64>,
    /// Whether names that begin with a dot are looked at.
    pub hidden: bool,
    /// Whether what `.gitignore` and `.cortexignore` leave out is looked at.
    pub ignored: bool,
}

/// Which lines are found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrepQuery {
    /// What a line must contain: 1 to [`crate::limits::GREP_PATTERN_BYTES_MAX`] bytes, without line ends.
    pub pattern: String,
    /// Whether the pattern is plain text and not a regular expression.
    pub literal: bool,
    /// Whether upper and lower case are the same.
    pub ignore_case: bool,
    /// Only in files of these names.
    pub glob: Option<Glob>,
    /// Lines shown before and after, at most [`crate::limits::GREP_CONTEXT_MAX`].
    pub context: u8,
    /// Whether names that begin with a dot are looked at.
    pub hidden: bool,
    /// Whether what `.gitignore` and `.cortexignore` leave out is looked at.
    pub ignored: bool,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Dir,
    /// A symbolic link.
    Link,
    /// A device, pipe or socket, which is never opened.
    Other,
}

impl Kind {
    /// All.
    pub const ALL: &'static [Self] = &[Self::File, Self::Dir, Self::Link, Self::Other];

    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Dir => "dir",
            Self::Link => "link",
            Self::Other => "other",
        }
    }

    /// Reads the text form back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text)
    }
}

impl FileOp {
    /// What is done.
    pub const fn verb(&self) -> Verb {
        match self {
            Self::List { .. } => Verb::List,
            Self::Stat { .. } => Verb::Stat,
            Self::Read { .. } => Verb::Read,
            Self::Find { .. } => Verb::Find,
            Self::Grep { .. } => Verb::Grep,
            Self::Write { .. } => Verb::Write,
            Self::Edit { .. } => Verb::Edit,
            Self::MakeDir { .. } => Verb::MakeDir,
            Self::Remove { .. } => Verb::Remove,
            Self::Move { .. } => Verb::Move,
            Self::Copy { .. } => Verb::Copy,
        }
    }

    /// Whether it leaves everything as it was: neither journaled nor kept, and repeated without harm. A
    /// dry run is one.
    pub const fn is_read(&self) -> bool {
        match self {
            Self::List { .. }
            | Self::Stat { .. }
            | Self::Read { .. }
            | Self::Find { .. }
            | Self::Grep { .. } => true,
            Self::Write { dry_run, .. } | Self::Edit { dry_run, .. } | Self::Remove { dry_run, .. } => {
                *dry_run
            }
            Self::MakeDir { .. } | Self::Move { .. } | Self::Copy { .. } => false,
        }
    }

    /// The path that it is about; of a move or a copy where that leads to.
    pub const fn path(&self) -> &FilePath {
        match self {
            Self::List { path, .. }
            | Self::Stat { path, .. }
            | Self::Read { path, .. }
            | Self::Find { path, .. }
            | Self::Grep { path, .. }
            | Self::Write { path, .. }
            | Self::Edit { path, .. }
            | Self::MakeDir { path, .. }
            | Self::Remove { path, .. }
            | Self::Move { to: path, .. }
            | Self::Copy { to: path, .. } => path,
        }
    }

    /// Where a move or a copy comes from.
    pub const fn source(&self) -> Option<&FilePath> {
        match self {
            Self::Move { from, .. } | Self::Copy { from, .. } => Some(from),
            Self::List { .. }
            | Self::Stat { .. }
            | Self::Read { .. }
            | Self::Find { .. }
            | Self::Grep { .. }
            | Self::Write { .. }
            | Self::Edit { .. }
            | Self::MakeDir { .. }
            | Self::Remove { .. } => None,
        }
    }

    /// Each path with what must be allowed there, in the order in which they are spoken. A dry run needs
    /// what the change itself would need.
    pub fn paths(&self) -> impl Iterator<Item = (&FilePath, Access)> {
        let access = match self {
            Self::List { .. }
            | Self::Stat { .. }
            | Self::Read { .. }
            | Self::Find { .. }
            | Self::Grep { .. } => Access::Read,
            Self::Write { .. }
            | Self::Edit { .. }
            | Self::MakeDir { .. }
            | Self::Remove { .. }
            | Self::Move { .. }
            | Self::Copy { .. } => Access::Write,
        };
        let from = if matches!(self, Self::Copy { .. }) { Access::Read } else { access };
        self.source().map(|path| (path, from)).into_iter().chain([(self.path(), access)])
    }

    /// The operation as a command: `@rm --recursive /srv/x`. So entries of a policy on commands that need
    /// a person (`sensitive`) are about it too, and the audit log says it. Content is no part of it.
    pub fn spoken(&self) -> Vec<String> {
        let recursive = match self {
            Self::Remove { recursive, .. } | Self::Copy { recursive, .. } => *recursive,
            Self::List { .. }
            | Self::Stat { .. }
            | Self::Read { .. }
            | Self::Find { .. }
            | Self::Grep { .. }
            | Self::Write { .. }
            | Self::Edit { .. }
            | Self::MakeDir { .. }
            | Self::Move { .. } => false,
        };
        let mut words = vec![format!("@{}", self.verb())];
        words.extend(recursive.then(|| "--recursive".to_owned()));
        words.extend(self.paths().map(|(path, _)| path.to_string()));
        words
    }

    /// The name of exactly this operation: two that differ in anything have different ones. What a repeat
    /// with the same idempotency key must have, and what a person's leave is for.
    pub fn digest(&self) -> ContentId {
        ContentId::of(&canon::encode(self))
    }

    /// The name of a question without its page: a cursor belongs to one question.
    pub fn question(&self) -> ContentId {
        let mut op = self.clone();
        match &mut op {
            Self::List { page, .. } | Self::Find { page, .. } | Self::Grep { page, .. } => {
                *page = Page { limit: 1, cursor: None };
            }
            Self::Stat { .. }
            | Self::Read { .. }
            | Self::Write { .. }
            | Self::Edit { .. }
            | Self::MakeDir { .. }
            | Self::Remove { .. }
            | Self::Move { .. }
            | Self::Copy { .. } => {}
        }
        op.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::samples::{every, path};

    #[test]
    fn verbs_and_kinds_are_read_back() {
        assert!(Verb::ALL.iter().all(|verb| Verb::parse(verb.as_str()) == Some(*verb)));
        assert!(Verb::ALL.iter().all(|verb| verb.action() == format!("fs.{verb}")));
        assert!(Kind::ALL.iter().all(|kind| Kind::parse(kind.as_str()) == Some(*kind)));
        assert_eq!((Verb::parse("List"), Kind::parse("")), (None, None));
    }

    #[test]
    fn reads_change_nothing_and_dry_runs_are_reads_that_need_what_the_change_needs() {
        for op in every() {
            let dry = matches!(
                &op,
                FileOp::Write { dry_run: true, .. }
                    | FileOp::Edit { dry_run: true, .. }
                    | FileOp::Remove { dry_run: true, .. }
            );
            let reads = [Verb::List, Verb::Stat, Verb::Read, Verb::Find, Verb::Grep].contains(&op.verb());
            assert_eq!(op.is_read(), reads || dry, "{op:?}");
            let (_, last) = op.paths().last().expect("each has a path");
            assert_eq!(last == Access::Read, reads, "{op:?}");
        }
        let verbs: std::collections::BTreeSet<Verb> = every().iter().map(FileOp::verb).collect();
        assert_eq!(verbs.len(), Verb::ALL.len(), "there is a sample of each");
    }

    #[test]
    fn an_operation_is_spoken_as_a_command_without_its_content() {
        let expect = Expect::Any;
        let (from, to) = (path("/srv/خطة 1"), path("/w/b"));
        let remove = |recursive| FileOp::Remove { path: from.clone(), recursive, expect, dry_run: false };
        assert_eq!(remove(false).spoken(), ["@rm", "/srv/خطة 1"]);
        assert_eq!(remove(true).spoken(), ["@rm", "--recursive", "/srv/خطة 1"]);
        let copy =
            FileOp::Copy { from: from.clone(), to: to.clone(), recursive: false, replace: true, expect };
        assert_eq!(copy.spoken(), ["@cp", "/srv/خطة 1", "/w/b"]);
        assert_eq!(copy.paths().collect::<Vec<_>>(), [(&from, Access::Read), (&to, Access::Write)]);
        let mv = FileOp::Move { from: from.clone(), to: to.clone(), replace: false, expect };
        assert_eq!(mv.paths().collect::<Vec<_>>(), [(&from, Access::Write), (&to, Access::Write)]);
        assert_eq!((mv.path(), mv.source()), (&to, Some(&from)));
    }

    #[test]
    fn content_is_in_no_log() {
        let secret = Bytes::from_static(b"hunter2");
        let edit = Edit { old: secret.clone(), new: secret.clone(), all: true };
        let shown = format!("{:?} {edit:?}", Content::Inline(secret));
        assert_eq!(shown, "Inline(7 bytes) Edit(7 bytes to 7, all)");
    }
}
