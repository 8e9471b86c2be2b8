//! Questions to people: a command that waits until somebody says yes.
//!
//! A question holds the whole command and the id of the run that it would become, so that an
//! answer starts exactly what was shown.

mod decide;
mod risks;

use crate::event::{Event, EventKind};
use crate::id::{ConsentId, NodeId, RunId, TokenId, UserId};
use crate::run::RunSpec;
use crate::time::WallTime;

pub use decide::{Answered, Answerer, Reply, answer, ask, check_reason, expire, withdraw};
pub use risks::risks;

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
    /// The asker's key: the same request again is the same question, and the same run after it.
    pub key: Option<String>,
    /// W3C traceparent of the request.
    pub traceparent: Option<String>,
    /// The asker's words; empty when the policy asks and the caller gave none.
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

impl Consent {
    /// What is told of it where it stands. Never the command, nor what people wrote.
    pub fn told(&self, now: WallTime) -> Event {
        let (kind, actor) = match self.standing {
            Standing::Pending => (EventKind::ConsentAsked, Some(&self.caller)),
            Standing::Approved | Standing::Denied => (EventKind::ConsentAnswered, self.answered_by.as_ref()),
            Standing::Expired | Standing::Withdrawn => (EventKind::ConsentEnded, self.answered_by.as_ref()),
        };
        let event = Event::new(kind, now).node(self.node).run(self.run).subject(self.id.to_string());
        let detail = match self.standing {
            Standing::Pending => self.rule.as_str(),
            Standing::Approved | Standing::Denied | Standing::Expired | Standing::Withdrawn => {
                self.standing.as_str()
            }
        };
        Event { actor: actor.cloned(), ..event.detail(detail) }
    }
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

/// An answer that holds for questions to come: of this token, on this node, in the same folder, with
/// the same variables and with or without standard input as the command that it was given for.
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
    /// In which folder.
    pub cwd: Option<String>,
    /// With which variables.
    pub env: Vec<(String, String)>,
    /// Whether with standard input.
    pub stdin: bool,
    /// Until when; `None` until it is ended.
    pub until: Option<WallTime>,
    /// Who gave it.
    pub made_by: String,
    /// When.
    pub made_at: WallTime,
    /// When it was ended.
    pub ended_at: Option<WallTime>,
}

impl ConsentRule {
    /// Whether it answers a question of this token about this command on this node.
    pub fn covers(&self, node: NodeId, token: TokenId, spec: &RunSpec, now: WallTime) -> bool {
        let words = if self.exact { self.pattern.0 == spec.argv } else { self.pattern.covers(&spec.argv) };
        let same = self.cwd == spec.cwd && self.env == spec.env && self.stdin == spec.stdin;
        self.node == node && self.token == token && words && same && self.holds(now)
    }

    /// Whether it was not ended, by anybody or by its time.
    pub fn holds(&self, now: WallTime) -> bool {
        self.ended_at.is_none() && self.until.is_none_or(|end| now < end)
    }
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
