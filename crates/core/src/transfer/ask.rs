//! What the hub asks a node to send, or to make of a folder.

use crate::error::{Code, Refusal};
use crate::files::ask::Ticket;
use crate::files::content::TreeId;
use crate::files::path::{FilePath, RelPath};
use crate::id::{Attempt, LockEpoch, Revision, TaskId, TransferId, WorkspaceId};
use crate::limits;
use crate::name::printable;
use crate::sync::{DeleteLimits, HaltId, Mode};
use crate::workspace::RootIdentity;

/// A transfer, as the hub gives it to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferAsk {
    /// The transfer. It may be repeated: what is there already is not moved again.
    pub id: TransferId,
    /// Leave for its stream.
    pub ticket: Ticket,
    /// What.
    pub work: TransferWork,
    /// Who asked, for the node's own log.
    pub caller: String,
    /// The policy revision by which the hub allowed it.
    pub policy_revision: Revision,
    /// The attempt of a task for which it is done.
    pub attempt: Option<(TaskId, Attempt)>,
    /// The lock of a workspace under which it is done.
    pub lock: Option<(WorkspaceId, LockEpoch)>,
    /// How long it may take, milliseconds from its arrival: 1 to [`limits::TRANSFER_MS_MAX`].
    pub deadline_ms: u64,
    /// W3C traceparent.
    pub traceparent: Option<String>,
}

/// What a transfer is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferWork {
    /// A folder of the node becomes what a tree of the hub says.
    Apply(Box<ApplyAsk>),
    /// A folder of the node is sent to the hub.
    Send(Box<SendAsk>),
}

impl TransferWork {
    /// The folder of the node.
    pub const fn path(&self) -> &FilePath {
        match self {
            Self::Apply(ask) => &ask.dest,
            Self::Send(ask) => &ask.source,
        }
    }

    /// Checks the bounds.
    ///
    /// # Errors
    /// `too_large` and `invalid_argument` of the filters; `invalid_argument` for a mode that does not write
    /// the node, and for a name of the node that is none.
    pub fn check(&self) -> Result<(), Refusal> {
        match self {
            Self::Send(ask) => {
                check_only(ask.only.as_deref())?;
                ask.filters.check()
            }
            Self::Apply(ask) => {
                if !ask.mode.writes(crate::sync::End::Node) {
                    let message = "The mode of the transfer does not write the node's folder.";
                    return Err(Refusal::new(Code::InvalidArgument, message));
                }
                let follows = matches!(ask.mode, Mode::FromHub { .. }) && ask.only.is_none();
                if ask.read_only && !follows {
                    let message = "Only a folder that follows the hub, all of it, is made read-only.";
                    return Err(Refusal::new(Code::InvalidArgument, message));
                }
                if ask.node_name.is_empty() || ask.node_name.len() > limits::NAME_BYTES_MAX {
                    let message = "The transfer lacks the node's name, or has one that is too long.";
                    return Err(Refusal::new(Code::InvalidArgument, message));
                }
                check_only(ask.only.as_deref())?;
                ask.filters.check()
            }
        }
    }
}

/// A name of one entry, which is not the folder of our own files in any spelling that a disk takes for it.
fn check_only(only: Option<&str>) -> Result<(), Refusal> {
    let Some(name) = only else { return Ok(()) };
    let is_one = RelPath::parse(name).is_ok_and(|path| !path.is_root() && path.parts().count() == 1);
    if is_one && !name.eq_ignore_ascii_case(limits::OWN_FOLDER) {
        return Ok(());
    }
    let message = format!("`{}` is no name of one entry of a folder.", printable(name, 120));
    Err(Refusal::new(Code::InvalidArgument, message).hint("Name one file or folder, without a `/`."))
}

/// A folder of the node becomes what a tree says, as far as the planner lets it ([`crate::sync::plan`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplyAsk {
    /// The folder.
    pub dest: FilePath,
    /// What it is to be.
    pub target: TreeId,
    /// What hub and node last agreed on; `None` when there was nothing before. What the node has kept of its
    /// objects does not move again. The node remembers which tree the last transfer made of the folder: a
    /// first push without a base, to a folder where it remembers one, takes that for its base and is no
    /// first one.
    pub base: Option<TreeId>,
    /// The one entry of the folder that the transfer is about, by its name; `None`: all of it. Nothing else in
    /// the folder is looked at, written or removed, and nothing is remembered in it. Trees have no other
    /// entry then.
    pub only: Option<String>,
    /// Who may write what. One that writes the node.
    pub mode: Mode,
    /// When removals halt.
    pub limits: DeleteLimits,
    /// The halt that a person let pass.
    pub accepted: Option<HaltId>,
    /// What of the folder does not belong to it.
    pub filters: Filters,
    /// Every file is read anew, whatever its times say.
    pub checksum: bool,
    /// Only the plan is told.
    pub dry_run: bool,
    /// Afterwards nobody has leave to write what is in the folder: modes 0444 and 0555. Only with all of a
    /// folder, and with a mode in which nothing of the node is ever taken over.
    pub read_only: bool,
    /// The name of the node, for the names of copies.
    pub node_name: String,
    /// The revision of the target, for the names of copies.
    pub revision: Revision,
    /// Which folder that is; another one is not touched. `None`: whichever is there, and it is marked.
    pub identity: Option<RootIdentity>,
}

/// A folder, or one file, of the node is sent to the hub as a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendAsk {
    /// The folder.
    pub source: FilePath,
    /// The one entry of the folder that is sent, by its name; `None`: all of it, or the file that `source`
    /// is, as a tree of one entry.
    pub only: Option<String>,
    /// What hub and node last agreed on: an entry that is the same there keeps its time from there.
    pub base: Option<TreeId>,
    /// What of the folder is not sent.
    pub filters: Filters,
    /// Every file is read anew, whatever its times say.
    pub checksum: bool,
    /// The folder becomes one that is told from others: it is marked, if that can be and was not done.
    pub mark: bool,
    /// Which folder that is; of another one nothing is told. `None`: whichever is there.
    pub identity: Option<RootIdentity>,
}

/// What of a folder belongs to a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filters {
    /// Patterns that are left out, in the form of `.gitignore`; at most [`limits::EXCLUDES_MAX`] of 1 to
    /// [`limits::EXCLUDE_BYTES_MAX`] bytes.
    pub exclude: Vec<String>,
    /// Whether `.gitignore` and `.cortexignore` in the folder are heeded.
    pub ignore_files: bool,
    /// Whether `.git` and its like belong to it.
    pub vcs: bool,
    /// Whether links that lead out of the folder are kept, as text; else they are a problem that is told.
    pub links_outside: bool,
}

impl Default for Filters {
    fn default() -> Self {
        Self { exclude: Vec::new(), ignore_files: true, vcs: false, links_outside: true }
    }
}

impl Filters {
    /// Checks the bounds.
    ///
    /// # Errors
    /// `too_large`, `invalid_argument`.
    pub fn check(&self) -> Result<(), Refusal> {
        let (count_max, bytes_max) = (limits::EXCLUDES_MAX, limits::EXCLUDE_BYTES_MAX);
        if self.exclude.len() > count_max || self.exclude.iter().any(|pattern| pattern.len() > bytes_max) {
            let message = format!("A transfer has at most {count_max} patterns of {bytes_max} bytes.");
            return Err(Refusal::new(Code::TooLarge, message)
                .hint("Use fewer patterns, or keep them in a `.cortexignore` of the folder."));
        }
        let is_bad = |pattern: &&String| pattern.is_empty() || pattern.contains(char::is_control);
        match self.exclude.iter().find(is_bad) {
            Some(pattern) => {
                let message = format!("`{}` is no pattern of files.", printable(pattern, 120));
                Err(Refusal::new(Code::InvalidArgument, message)
                    .hint("Write one pattern per entry, such as `target/` or `*.o`."))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::samples::path;
    use crate::sync::Push;

    fn apply(mode: Mode, filters: Filters) -> TransferWork {
        TransferWork::Apply(Box::new(ApplyAsk {
            dest: path("/srv/مشروع"),
            target: TreeId::of(b"t"),
            base: None,
            only: None,
            mode,
            limits: DeleteLimits::default(),
            accepted: None,
            filters,
            checksum: false,
            dry_run: false,
            read_only: false,
            node_name: "a".to_owned(),
            revision: Revision(1),
            identity: None,
        }))
    }

    #[test]
    fn only_what_writes_the_node_is_applied_there() {
        let push = Mode::Push(Push::default());
        for (mode, passes) in [(push, true), (Mode::FromHub { repair: true }, true), (Mode::FromNode, false)]
        {
            assert_eq!(apply(mode, Filters::default()).check().is_ok(), passes, "{mode:?}");
        }
        for (mode, passes) in [(push, false), (Mode::TwoWay, false), (Mode::FromHub { repair: true }, true)] {
            let TransferWork::Apply(mut ask) = apply(mode, Filters::default()) else { unreachable!() };
            ask.read_only = true;
            assert_eq!(TransferWork::Apply(ask).check().is_ok(), passes, "{mode:?}");
        }
        let TransferWork::Apply(mut ask) = apply(push, Filters::default()) else { unreachable!() };
        ask.node_name.clear();
        assert!(TransferWork::Apply(ask).check().is_err(), "copies need the node's name");
    }

    #[test]
    fn the_only_entry_is_one_name_and_none_of_ours() {
        let passes = |name: &str| {
            let TransferWork::Apply(mut ask) = apply(Mode::Push(Push::default()), Filters::default()) else {
                unreachable!()
            };
            ask.only = Some(name.to_owned());
            TransferWork::Apply(ask).check().is_ok()
        };
        for name in ["ملف.txt", "a b", &"n".repeat(255)] {
            assert!(passes(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "/a", "a/", ".cortex", ".Cortex", &"n".repeat(256)] {
            assert!(!passes(name), "{name}");
        }
    }

    #[test]
    fn patterns_are_bounded_and_each_is_one_line() {
        let of = |exclude: Vec<String>| Filters { exclude, ..Filters::default() };
        let code = |exclude| of(exclude).check().err().map(|refusal| refusal.code);
        assert_eq!(code(vec!["x".repeat(limits::EXCLUDE_BYTES_MAX); limits::EXCLUDES_MAX]), None);
        assert_eq!(code(vec!["x".to_owned(); limits::EXCLUDES_MAX + 1]), Some(Code::TooLarge));
        assert_eq!(code(vec!["x".repeat(limits::EXCLUDE_BYTES_MAX + 1)]), Some(Code::TooLarge));
        assert_eq!(code(vec![String::new()]), Some(Code::InvalidArgument));
        assert_eq!(code(vec!["a\nb".to_owned()]), Some(Code::InvalidArgument));
    }
}
