//! Users, their groups and their roles: added, changed, removed; roles given and taken back. With a
//! user go its tokens, its sessions and its roles, in the same transaction.
//!
//! Nobody gives more than it has, and the last administrator stays.

pub(crate) mod passwords;

use std::collections::BTreeSet;
use std::sync::Arc;

use cortex_core::access::rights_of;
use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::id::{GrantId, UserId};
use cortex_core::limits::{GRANTS_MAX, GROUPS_MAX, USERS_MAX};
use cortex_core::name::{Name, Selector, printable};
use cortex_core::rights::{Right, Rights};
use cortex_core::time::WallTime;
use cortex_core::token::{Role, Token, TokenKind};
use cortex_core::user::{PasswordHash, RoleGrant, Subject, User};
use cortex_core::{Code, Refusal};
use cortex_store::{Tx, WriteError};

use crate::clock;
use crate::secret::Secret;
use crate::service::tokens::{By, keep_an_administrator, revoke_of};
use crate::service::{Caller, Context, anew};
use passwords::Passwords;

/// The use cases of users. Cheap to clone.
#[derive(Clone)]
pub struct Users {
    context: Context,
    passwords: Passwords,
}

/// What to change of a user.
#[derive(Debug, Default)]
pub struct UserChange {
    /// A new password. Its sessions end.
    pub password: Option<Secret>,
    /// All its groups from here on.
    pub groups: Option<BTreeSet<Name>>,
}

/// Who gets a role, as it was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grantee {
    /// A user by name or id.
    User(String),
    /// A group.
    Group(Name),
}

/// What a transaction changed, for the maps.
struct Changed {
    user: User,
    tokens: Vec<Token>,
    grants: Vec<RoleGrant>,
}

impl Users {
    /// The use cases over `context`.
    pub(crate) fn new(context: Context, passwords: Passwords) -> Self {
        Self { context, passwords }
    }

    /// All users by name. Needs `users:read`.
    pub fn list(&self, caller: &Caller) -> Result<Vec<Arc<User>>, Refusal> {
        caller.anywhere(Right::UsersRead)?;
        Ok(self.context.directory.users())
    }

    /// A user by name or id. Needs `users:read`.
    pub fn get(&self, caller: &Caller, which: &str) -> Result<Arc<User>, Refusal> {
        caller.anywhere(Right::UsersRead)?;
        self.find(which)
    }

    /// All roles that were given, oldest first. Needs `users:read`.
    pub fn grants(&self, caller: &Caller) -> Result<Vec<RoleGrant>, Refusal> {
        caller.anywhere(Right::UsersRead)?;
        Ok(self.context.directory.grants())
    }

    /// Adds a user. Needs `users:write`, and all that its groups may do. `Conflict` when the name is
    /// taken.
    pub async fn add(
        &self,
        caller: &Caller,
        name: Name,
        password: Option<Secret>,
        groups: BTreeSet<Name>,
    ) -> Result<User, Refusal> {
        caller.anywhere(Right::UsersWrite)?;
        check_groups(&groups)?;
        let password = match password {
            Some(password) => Some(self.passwords.hash(password).await?),
            None => None,
        };
        let now = self.context.clock.wall();
        let id = clock::new_user_id(&self.context.clock);
        let user = User { id, name, password, groups, created_at: now, removed_at: None };
        let again = caller.clone();
        let work = move |tx: &mut dyn Tx| {
            let again = anew(tx, &again, now)?;
            again.anywhere(Right::UsersWrite)?;
            again.may_give(rights_of(&user, &tx.grants()?))?;
            if tx.users()?.len() >= USERS_MAX {
                let message = format!("The hub has {USERS_MAX} users, which is the most.");
                return Err(Refusal::new(Code::Quota, message).into());
            }
            tx.put_user(&user)?;
            record(tx, &again, "user.add", words(&user), now)?;
            Ok(user)
        };
        let directory = self.context.directory.clone();
        self.context.commit(work, move |user: &User| directory.put_user(user.clone())).await
    }

    /// Changes password and groups. Needs `users:write`, and all that the user may do before and after:
    /// whoever sets a password can be that user.
    pub async fn change(&self, caller: &Caller, which: &str, change: UserChange) -> Result<User, Refusal> {
        caller.anywhere(Right::UsersWrite)?;
        change.groups.as_ref().map_or(Ok(()), check_groups)?;
        let (id, now) = (self.find(which)?.id, self.context.clock.wall());
        let password = match change.password {
            Some(password) => Some(self.passwords.hash(password).await?),
            None => None,
        };
        let (again, groups) = (caller.clone(), change.groups);
        let work = move |tx: &mut dyn Tx| {
            let again = anew(tx, &again, now)?;
            again.anywhere(Right::UsersWrite)?;
            let before = live(tx, id)?;
            changed(tx, &again, before, password, groups, now)
        };
        self.commit(work).await
    }

    /// Removes a user, with its tokens, sessions and roles. Needs `users:write`. `Conflict` when nobody
    /// would be left who can let others in.
    pub async fn remove(&self, caller: &Caller, which: &str) -> Result<User, Refusal> {
        caller.anywhere(Right::UsersWrite)?;
        let (id, now, again) = (self.find(which)?.id, self.context.clock.wall(), caller.clone());
        let work = move |tx: &mut dyn Tx| {
            let again = anew(tx, &again, now)?;
            again.anywhere(Right::UsersWrite)?;
            let user = User { removed_at: Some(now), ..live(tx, id)? };
            tx.put_user(&user)?;
            let own = tx.grants()?.into_iter().filter(|grant| grant.subject == Subject::User(id));
            let grants: Vec<_> = own.map(|grant| RoleGrant { revoked_at: Some(now), ..grant }).collect();
            for grant in &grants {
                tx.put_grant(grant)?;
            }
            let tokens = revoke_of(tx, id, &By::of(&again), now, |_| true)?;
            keep_an_administrator(tx, now, || format!("`{}` is the only administrator.", user.name))?;
            let detail = format!("{}; {} token(s) ended", words(&user), tokens.len());
            record(tx, &again, "user.remove", detail, now)?;
            Ok(Changed { user, tokens, grants })
        };
        self.commit(work).await
    }

    /// Gives a role on the nodes that `selector` matches; the empty one is all, and the hub itself.
    /// Needs `users:write`, and all that the role can do.
    pub async fn grant(
        &self,
        caller: &Caller,
        grantee: Grantee,
        role: Role,
        selector: Selector,
    ) -> Result<RoleGrant, Refusal> {
        caller.anywhere(Right::UsersWrite)?;
        caller.may_give(Rights::of_role(role))?;
        let subject = match grantee {
            Grantee::User(which) => Subject::User(self.find(&which)?.id),
            Grantee::Group(group) => Subject::Group(group),
        };
        let now = self.context.clock.wall();
        let grant = RoleGrant {
            id: clock::new_grant_id(&self.context.clock),
            subject,
            role,
            selector,
            created_by: caller.actor(),
            created_at: now,
            revoked_at: None,
        };
        let again = caller.clone();
        let work = move |tx: &mut dyn Tx| {
            let again = anew(tx, &again, now)?;
            again.anywhere(Right::UsersWrite)?;
            again.may_give(Rights::of_role(grant.role))?;
            let held = tx.grants()?;
            let same = |held: &&RoleGrant| {
                held.subject == grant.subject && held.role == grant.role && held.selector == grant.selector
            };
            if let Some(same) = held.iter().find(same) {
                return Ok(same.clone());
            }
            if held.len() >= GRANTS_MAX {
                let message = format!("The hub has {GRANTS_MAX} grants, which is the most.");
                return Err(Refusal::new(Code::Quota, message).into());
            }
            let whom = subject_words(tx, &grant.subject)?;
            tx.put_grant(&grant)?;
            record(tx, &again, "user.grant", grant_words(&grant, &whom), now)?;
            Ok(grant)
        };
        let (directory, board) = (self.context.directory.clone(), self.context.board.clone());
        let after = move |grant: &RoleGrant| {
            directory.put_grant(grant.clone());
            board.wake_all();
        };
        self.context.commit(work, after).await
    }

    /// Takes a role back. Needs `users:write`. Twice changes nothing; `Conflict` when nobody would be
    /// left who can let others in.
    pub async fn ungrant(&self, caller: &Caller, id: GrantId) -> Result<RoleGrant, Refusal> {
        caller.anywhere(Right::UsersWrite)?;
        let (now, again) = (self.context.clock.wall(), caller.clone());
        let work = move |tx: &mut dyn Tx| {
            let again = anew(tx, &again, now)?;
            again.anywhere(Right::UsersWrite)?;
            let found = tx.grants()?.into_iter().find(|grant| grant.id == id);
            let unknown = || {
                Refusal::new(Code::NotFound, format!("There is no grant {id}."))
                    .hint("List the grants with `cortex user grants`.")
            };
            let grant = RoleGrant { revoked_at: Some(now), ..found.ok_or_else(unknown)? };
            tx.put_grant(&grant)?;
            keep_an_administrator(tx, now, || "This grant makes the only administrator.".to_owned())?;
            let whom = subject_words(tx, &grant.subject)?;
            record(tx, &again, "user.ungrant", grant_words(&grant, &whom), now)?;
            Ok(grant)
        };
        let directory = self.context.directory.clone();
        self.context.commit(work, move |grant: &RoleGrant| directory.put_grant(grant.clone())).await
    }

    /// A user by name or id, whatever the caller may see.
    fn find(&self, which: &str) -> Result<Arc<User>, Refusal> {
        self.context.directory.user_called(which).ok_or_else(|| unknown(which))
    }

    async fn commit(
        &self,
        work: impl FnOnce(&mut dyn Tx) -> Result<Changed, WriteError> + Send + 'static,
    ) -> Result<User, Refusal> {
        let directory = self.context.directory.clone();
        let after = move |changed: &Changed| {
            changed.tokens.iter().for_each(|token| directory.put_token(token.clone()));
            changed.grants.iter().for_each(|grant| directory.put_grant(grant.clone()));
            directory.put_user(changed.user.clone());
        };
        Ok(self.context.commit(work, after).await?.user)
    }
}

fn changed(
    tx: &mut dyn Tx,
    caller: &Caller,
    before: User,
    password: Option<PasswordHash>,
    groups: Option<BTreeSet<Name>>,
    now: WallTime,
) -> Result<Changed, WriteError> {
    let grants = tx.grants()?;
    caller.may_give(rights_of(&before, &grants))?;
    let renewed = password.is_some();
    let user = User {
        password: password.or_else(|| before.password.clone()),
        groups: groups.unwrap_or_else(|| before.groups.clone()),
        ..before.clone()
    };
    if user == before {
        return Ok(Changed { user, tokens: Vec::new(), grants: Vec::new() });
    }
    caller.may_give(rights_of(&user, &grants))?;
    tx.put_user(&user)?;
    let mut tokens = Vec::new();
    if renewed {
        // Not the one with which it is done: whoever changes its own password goes on.
        let other = |token: &Token| token.kind == TokenKind::Session && token.id != caller.token.id;
        tokens = revoke_of(tx, user.id, &By::of(caller), now, other)?;
    }
    keep_an_administrator(tx, now, || format!("`{}` is the only administrator.", user.name))?;
    let detail = if renewed { format!("{}; new password", words(&user)) } else { words(&user) };
    record(tx, caller, "user.change", detail, now)?;
    Ok(Changed { user, tokens, grants: Vec::new() })
}

/// The stored record of a user that is not removed.
fn live(tx: &dyn Tx, id: UserId) -> Result<User, WriteError> {
    let user = tx.user(id)?.filter(|user| user.removed_at.is_none());
    Ok(user.ok_or_else(|| unknown(&id.to_string()))?)
}

fn check_groups(groups: &BTreeSet<Name>) -> Result<(), Refusal> {
    if groups.len() <= GROUPS_MAX {
        return Ok(());
    }
    Err(Refusal::new(Code::TooLarge, format!("A user has at most {GROUPS_MAX} groups.")))
}

/// The refusal of a user that there is not.
pub(super) fn unknown(which: &str) -> Refusal {
    Refusal::new(Code::NotFound, format!("There is no user `{}`.", printable(which, 80)))
        .hint("List the users with `cortex user ls`.")
}

/// `ada (crew, night)`.
fn words(user: &User) -> String {
    let groups: Vec<&str> = user.groups.iter().map(Name::as_str).collect();
    if groups.is_empty() { user.name.to_string() } else { format!("{} ({})", user.name, groups.join(", ")) }
}

fn subject_words(tx: &dyn Tx, subject: &Subject) -> Result<String, WriteError> {
    Ok(match subject {
        Subject::User(id) => format!("user:{}", live(tx, *id)?.name),
        Subject::Group(group) => format!("group:{group}"),
    })
}

fn grant_words(grant: &RoleGrant, whom: &str) -> String {
    let place =
        if grant.selector.is_all() { "everywhere".to_owned() } else { format!("on {}", grant.selector) };
    format!("{} {whom}: {} {place}", grant.id, grant.role.as_str())
}

fn record(
    tx: &mut dyn Tx,
    caller: &Caller,
    action: &str,
    detail: String,
    now: WallTime,
) -> Result<(), WriteError> {
    let row = AuditRow::new(now, caller.actor(), action, Outcome::Allowed);
    tx.append_audit(&AuditRow { detail: Some(detail), token: Some(caller.token.id), ..row })?;
    Ok(())
}
