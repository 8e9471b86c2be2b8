//! Policy, version 2: what may be started on a node, with which arguments, and behind which walls.
//!
//! STRICT is the default and what every failure falls back to. In STRICT a command is an
//! argument vector whose program is looked up by name; no shell is started and no text is
//! parsed, so metacharacters are ordinary bytes (SECURITY, ABUSE 30 and 36). The lists and the
//! argument schemas are the first wall and never the last: what a program does is held by the
//! [walls](crate::sandbox::Walls) around it.

mod ceiling;
mod document;
mod files;
mod judge;
mod profiles;
mod schema;
mod within;

pub use ceiling::{Bounds, Ceiling, Site};
pub use document::{Args, Document, Program, Sensitive, check_program};
pub use files::{FileQuestion, Reach, TransferQuestion, judge_files, judge_transfer, reach, spoken_transfer};
pub use judge::{Answer, Question, Rule, judge};
pub use profiles::{ELEVATION, PROFILES};
pub use schema::{ArgRule, Effect, Shape, is_interpreter, is_launcher};

use crate::id::{NodeId, Revision};
use crate::time::WallTime;

/// Whether the allow-list decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Only what is allowed runs.
    #[default]
    Strict,
    /// Everything runs that is not denied. An administrator's explicit act, per node.
    Permissive,
}

impl Mode {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Permissive => "permissive",
        }
    }

    /// Reads the text form; anything unknown is STRICT (ABUSE 37).
    pub fn parse_or_strict(text: &str) -> Self {
        if text == "permissive" { Self::Permissive } else { Self::Strict }
    }
}

/// The policy of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whose.
    pub node: NodeId,
    /// Raised by each change.
    pub revision: Revision,
    /// The profile that its document was last taken from.
    pub profile: String,
    /// What it says.
    pub document: Document,
    /// Last change, on the hub's clock.
    pub changed_at: WallTime,
}

impl Policy {
    /// The policy of a node for which nobody has said anything: STRICT.
    pub fn strict(node: NodeId, now: WallTime) -> Self {
        Self {
            node,
            revision: Revision(1),
            profile: "strict".to_owned(),
            document: Document::strict(),
            changed_at: now,
        }
    }

    /// The policy as a built-in profile gives it; `None` for an unknown name.
    pub fn from_profile(node: NodeId, profile: &str, revision: Revision, now: WallTime) -> Option<Self> {
        let document = Document::profile(profile)?;
        Some(Self { node, revision, profile: profile.to_owned(), document, changed_at: now })
    }

    /// What holds on a node whose policy cannot be read, or is not its own: nothing is allowed.
    pub fn unreadable(node: NodeId) -> Self {
        Self {
            node,
            revision: Revision(0),
            profile: "unreadable".to_owned(),
            document: Document::nothing(),
            changed_at: WallTime(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_mode_is_strict() {
        for text in ["", "Permissive", "permissive ", "strict", "open", "\0"] {
            assert_eq!(Mode::parse_or_strict(text), Mode::Strict, "{text:?}");
        }
        assert_eq!(Mode::parse_or_strict("permissive"), Mode::Permissive);
    }
}
