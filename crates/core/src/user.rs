//! People: who they are, to which groups they belong, and which roles they have where.

use std::collections::BTreeSet;
use std::fmt;

use crate::id::{GrantId, UserId};
use crate::name::{Name, Selector};
use crate::time::WallTime;
use crate::token::Role;

/// A password as it is kept: the text of an argon2id hash in PHC form. It does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// Wraps the text.
    pub const fn new(phc: String) -> Self {
        Self(phc)
    }

    /// The text, for the store and for comparing.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(withheld)")
    }
}

/// One person as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Its name, unique among those that are not removed; the actor in audit rows is `user:<name>`.
    pub name: Name,
    /// What it logs in with; `None` cannot log in.
    pub password: Option<PasswordHash>,
    /// Its groups.
    pub groups: BTreeSet<Name>,
    /// When it was added.
    pub created_at: WallTime,
    /// When it was removed. The row stays, so that old audit rows keep their meaning.
    pub removed_at: Option<WallTime>,
}

/// Who gets a role.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// One person.
    User(UserId),
    /// Everybody in a group.
    Group(Name),
}

/// A role on the nodes that a selector matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleGrant {
    /// Its id.
    pub id: GrantId,
    /// Who has it.
    pub subject: Subject,
    /// Which role.
    pub role: Role,
    /// On which nodes; the empty selector is all, and the hub itself.
    pub selector: Selector,
    /// Who gave it.
    pub created_by: String,
    /// When.
    pub created_at: WallTime,
    /// When it was taken back.
    pub revoked_at: Option<WallTime>,
}

impl RoleGrant {
    /// Whether it was given to this user, or to one of its groups.
    pub fn is_of(&self, user: &User) -> bool {
        match &self.subject {
            Subject::User(id) => *id == user.id,
            Subject::Group(group) => user.groups.contains(group),
        }
    }
}
