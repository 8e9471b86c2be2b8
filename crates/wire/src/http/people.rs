//! Shapes of users, their roles, their sessions, and tokens.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A password on its way to the hub. It does not print, and an error does not repeat it.
#[derive(Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(transparent)]
pub struct PasswordText(pub String);

impl fmt::Debug for PasswordText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordText(withheld)")
    }
}

impl<'de> Deserialize<'de> for PasswordText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The library's own words for a wrong type show the value.
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Self(text)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                Err(D::Error::custom("`password` is not a text"))
            }
        }
    }
}

/// `POST /login`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// Name of the user.
    pub user: String,
    /// Its password.
    pub password: PasswordText,
}

/// The answer to a login: the only time the session's secret is seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoggedIn {
    /// `cxs_…`.
    pub token: String,
    /// Name of the user.
    pub user: String,
    /// When the session ends.
    pub expires_at: String,
}

/// `POST /password`: one's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    /// The one that holds.
    pub current: PasswordText,
    /// The one from here on.
    pub new: PasswordText,
}

/// `POST /users`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserRequest {
    /// Its name.
    pub name: String,
    /// What it logs in with; without one it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<PasswordText>,
    /// Its groups.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
}

/// `PATCH /users/{user}`. What is missing stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UserPatch {
    /// A new password. Its sessions end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<PasswordText>,
    /// All its groups from here on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<BTreeSet<String>>,
}

/// A user in lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserView {
    /// UUID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its groups.
    pub groups: Vec<String>,
    /// Whether it has a password.
    pub can_log_in: bool,
    /// The roles that it and its groups have.
    pub roles: Vec<RoleGrantView>,
    /// When it was added.
    pub created_at: String,
}

/// `POST /grants`: a role for a user or a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GrantRequest {
    /// Name of a user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Or of a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// `viewer`, `operator` or `admin`.
    pub role: String,
    /// On the nodes with these labels; on all and on the hub itself when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
}

/// A role that was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RoleGrantView {
    /// UUID.
    pub id: String,
    /// `user:<name>` or `group:<name>`.
    pub subject: String,
    /// The role.
    pub role: String,
    /// On which nodes; empty is all, and the hub itself.
    pub selector: String,
    /// Who gave it.
    pub created_by: String,
    /// When.
    pub created_at: String,
}

/// `POST /tokens`. Nobody makes one that can do more than the one it is made with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Its name.
    pub name: String,
    /// `viewer`, `operator` or `admin`.
    pub role: String,
    /// `api`, or `client` for an AI client; `api` when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// At most these of the role's rights: `runs:start`; all when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rights: Option<Vec<String>>,
    /// Only on these nodes, by name or id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Or only on nodes with these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The tools of an AI client: `exec`, `nodes_list`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// Life; without end when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

/// The answer to `POST /tokens`: the only time the secret is seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenCreated {
    /// `cxt_…`.
    pub token: String,
    /// The record.
    pub record: TokenView,
}

/// A token in lists.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// UUID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its role; of a session the role is the user's.
    pub role: String,
    /// `live`, `expired` or `revoked`.
    pub state: String,
    /// When it was made.
    pub created_at: String,
    /// When it ends.
    pub expires_at: Option<String>,
    /// `api`, `session` or `client`.
    #[serde(default)]
    pub kind: String,
    /// Name of the user whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The rights that it has at most, when that is not all of its role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rights: Option<Vec<String>>,
    /// The nodes that it is good on, when that is not all: their names, and ids of those that went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Vec<String>>,
    /// The labels of the nodes that it is good on, when that is not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// The tools that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<String>>,
}

/// `GET /whoami`: the caller as the hub sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WhoAmI {
    /// `token:<name>` or `user:<name>`.
    pub actor: String,
    /// Its highest role.
    pub role: String,
    /// `api`, `session` or `client`.
    #[serde(default)]
    pub kind: String,
    /// Name of the user, when the token is one's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What it may do on some nodes at least.
    #[serde(default)]
    pub rights: Vec<String>,
    /// Whether it may do all that on all nodes, and on the hub itself.
    #[serde(default)]
    pub everywhere: bool,
    /// The tools that it has, when not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<String>>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_neither_printed_nor_repeated_by_an_error() {
        let login: Login = serde_json::from_str(r#"{"user":"ada","password":"canary-12345"}"#).expect("read");
        assert!(!format!("{login:?}").contains("canary"));
        for wrong in [r#"{"user":"ada","password":12345678}"#, r#"{"user":"ada","password":["canary"]}"#] {
            let error = serde_json::from_str::<Login>(wrong).expect_err("no text").to_string();
            assert!(!error.contains("12345678") && !error.contains("canary"), "{error}");
        }
    }
}
