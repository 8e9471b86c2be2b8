//! Shapes of questions to people and of answers that last.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A question, in lists and alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConsentView {
    /// UUID.
    pub id: String,
    /// `pending`, `approved`, `denied`, `expired` or `withdrawn`.
    pub standing: String,
    /// UUID of the run that it becomes.
    pub run_id: String,
    /// The node's name.
    pub node: String,
    /// The node's UUID.
    pub node_id: String,
    /// Who asks.
    pub caller: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Working directory, when given.
    pub cwd: Option<String>,
    /// Names of the variables that it sets.
    pub env_names: Vec<String>,
    /// Whether standard input will follow.
    pub stdin: bool,
    /// Time after which the run is ended, when given.
    pub timeout_ms: Option<u64>,
    /// The caller's words; empty when the policy asks by itself.
    pub reason: String,
    /// The rule that asks: `sensitive rm`, `exec.allow`, `asked`.
    pub rule: String,
    /// What a person should notice. None is no promise.
    pub notes: Vec<String>,
    /// Who answered, or ended it.
    pub answered_by: Option<String>,
    /// Words to whoever asked.
    pub note: Option<String>,
    /// When it was asked.
    pub created_at: String,
    /// When it ends without an answer.
    pub expires_at: String,
    /// When it was answered, or ended.
    pub answered_at: Option<String>,
}

/// `GET /consents/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConsentDetails {
    /// The question.
    #[serde(flatten)]
    pub consent: ConsentView,
    /// The variables with their values, for whoever asked and whoever may answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
    /// What was answered to questions about the same program on this node, newest first, at most five.
    pub similar: Vec<ConsentView>,
}

/// `POST /consents/{id}/approve`. Without a member it is this once. With `for_ms` alone it is this very
/// command for that time. With `words` it is every command that begins with so many words of this one,
/// for `for_ms`, or until somebody ends it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConsentApprove {
    /// For how long the answer lasts, at most thirty days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub for_ms: Option<u64>,
    /// How many of the first words stay the same; the program is the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub words: Option<usize>,
}

/// `POST /consents/{id}/deny`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsentDeny {
    /// Why, for whoever asked.
    #[serde(default)]
    pub note: String,
}

/// An answer that lasts. It holds for its token on its node, in its folder and with its variables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConsentRuleView {
    /// UUID.
    pub id: String,
    /// The node's name.
    pub node: String,
    /// The node's UUID.
    pub node_id: String,
    /// UUID of the token whose questions it answers.
    pub token_id: String,
    /// Its name; the id when it is not known any more.
    pub token: String,
    /// The words with which the command begins.
    pub pattern: Vec<String>,
    /// Whether nothing may follow them.
    pub exact: bool,
    /// Working directory, when the command had one.
    pub cwd: Option<String>,
    /// Names of the variables that the command sets.
    pub env_names: Vec<String>,
    /// When it ends; without end when missing.
    pub until: Option<String>,
    /// Who gave it.
    pub made_by: String,
    /// When.
    pub made_at: String,
}
