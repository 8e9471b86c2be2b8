//! Rows of the audit log: who asked for what, and what was answered. Written before the effect.

use crate::id::{ConsentId, NodeId, Revision, RunId, TokenId};
use crate::time::WallTime;

/// How the question was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It may happen.
    Allowed,
    /// It was refused.
    Denied,
}

impl Outcome {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
        }
    }

    /// Reads the text form back.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "allowed" => Some(Self::Allowed),
            "denied" => Some(Self::Denied),
            _ => None,
        }
    }
}

/// One row. The store numbers it and chains it to the row before by hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// When, on the hub's wall clock.
    pub at: WallTime,
    /// Who: `token:admin`, `node:build-2`, `invite:<id>`, `hub`; `http:<address>` of one who showed
    /// no good token.
    pub actor: String,
    /// What, as a dotted verb: `run.start`, `node.join`, `policy.set`.
    pub action: String,
    /// The answer.
    pub outcome: Outcome,
    /// The code or rule behind the answer: `exec.allow`, `invite_used`.
    pub reason: Option<String>,
    /// The node concerned.
    pub node: Option<NodeId>,
    /// The run concerned.
    pub run: Option<RunId>,
    /// The policy revision by which it was judged.
    pub policy_revision: Option<Revision>,
    /// The exact argument vector of a command.
    pub argv: Vec<String>,
    /// One sentence more. Never a secret.
    pub detail: Option<String>,
    /// The token with which it was asked: a name may be used again, an id is not.
    pub token: Option<TokenId>,
    /// blake3 of the policy document by which it was judged (ABUSE 39).
    pub policy_hash: Option<[u8; 32]>,
    /// The question that allowed it.
    pub consent: Option<ConsentId>,
}

impl AuditRow {
    /// A row that names only who, what and the answer.
    pub fn new(at: WallTime, actor: impl Into<String>, action: impl Into<String>, outcome: Outcome) -> Self {
        Self {
            at,
            actor: actor.into(),
            action: action.into(),
            outcome,
            reason: None,
            node: None,
            run: None,
            policy_revision: None,
            argv: Vec::new(),
            detail: None,
            token: None,
            policy_hash: None,
            consent: None,
        }
    }
}
