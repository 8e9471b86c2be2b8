//! Questions to people: a command that waits until somebody says yes.
//!
//! A question holds the whole command and the id of the run that it would become, so that an
//! answer starts exactly what was shown.

use crate::id::{ConsentId, NodeId, RunId, TokenId, UserId};
use crate::run::RunSpec;
use crate::time::WallTime;

/// Where a question stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It waits.
    Pending,
    /// Somebody, or a lasting answer, said yes.
    Approved,
    /// Somebody said no.
    Denied,
    /// Nobody answered in time.
    Expired,
    /// Whoever asked took it back, or may not ask any more.
    Withdrawn,
}

impl Standing {
    /// All.
    pub const ALL: &'static [Self] =
        &[Self::Pending, Self::Approved, Self::Denied, Self::Expired, Self::Withdrawn];

    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
        }
    }

    /// Reads the text form back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|standing| standing.as_str() == text)
    }
}

/// One question as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    /// Its id.
    pub id: ConsentId,
    /// The run that it becomes.
    pub run: RunId,
    /// Where.
    pub node: NodeId,
    /// Who asks: `token:<name>` or `user:<name>`.
    pub caller: String,
    /// With which token.
    pub token: TokenId,
    /// For which user, when the token is one's.
    pub user: Option<UserId>,
    /// What.
    pub spec: RunSpec,
    /// The asker's words.
    pub reason: String,
    /// The rule of the policy that asks: `sensitive rm`, `exec.allow`, `asked`.
    pub rule: String,
    /// What a person should notice.
    pub notes: Vec<String>,
    /// Where it stands.
    pub standing: Standing,
    /// Who answered: `user:<name>`, `token:<name>`, or `rule:<id>`.
    pub answered_by: Option<String>,
    /// The answerer's words to whoever asked.
    pub note: Option<String>,
    /// When it was asked.
    pub created_at: WallTime,
    /// When it ends without an answer.
    pub expires_at: WallTime,
    /// When it was answered, or ended.
    pub answered_at: Option<WallTime>,
}

/// Which commands a lasting answer covers: the program and its first arguments, word by word.
/// What follows them is free.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern(pub Vec<String>);

impl Pattern {
    /// Whether the command begins with these words. An empty pattern covers nothing.
    pub fn covers(&self, argv: &[String]) -> bool {
        !self.0.is_empty() && argv.starts_with(&self.0)
    }
}

/// An answer that holds for questions to come: of this token, on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsentRule {
    /// Its id.
    pub id: ConsentId,
    /// Where.
    pub node: NodeId,
    /// For whom.
    pub token: TokenId,
    /// For what.
    pub pattern: Pattern,
    /// Whether what follows the pattern must be nothing: the answer was for this command alone.
    pub exact: bool,
    /// Until when; `None` until it is ended.
    pub until: Option<WallTime>,
    /// Who gave it.
    pub made_by: String,
    /// When.
    pub made_at: WallTime,
    /// When it was ended.
    pub ended_at: Option<WallTime>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_what_begins_with_its_words() {
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let pattern = Pattern(words(&["git", "push"]));
        for (argv, covered) in [
            (&["git", "push"][..], true),
            (&["git", "push", "origin"], true),
            (&["git", "pushy"], false),
            (&["git"], false),
            (&["git", "-v", "push"], false),
        ] {
            assert_eq!(pattern.covers(&words(argv)), covered, "{argv:?}");
        }
        assert!(!Pattern(Vec::new()).covers(&words(&["git"])));
    }

    #[test]
    fn every_standing_is_read_back() {
        for standing in Standing::ALL {
            assert_eq!(Standing::parse(standing.as_str()), Some(*standing));
        }
    }
}
