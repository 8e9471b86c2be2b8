//! Sessions: a person's name and password become a token that ends by itself.
//!
//! Never here: an answer, or the time that it takes, that tells a wrong password from a user that is
//! not there; a name that nobody has in a log (it may be a password in the wrong place).

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::event::EventKind;
use cortex_core::limits::{NAME_BYTES_MAX, SESSION_TTL_MS, SESSIONS_KEPT_MS};
use cortex_core::name::Name;
use cortex_core::time::WallTime;
use cortex_core::token::{Role, Token, TokenKind};
use cortex_core::user::{PasswordHash, User};
use cortex_core::{Code, Refusal};
use cortex_store::{Tx, WriteError};

use crate::secret::Secret;
use crate::service::network::{Sources, Tries};
use crate::service::tokens::{self, By, Tokens};
use crate::service::users::passwords::{Compared, Passwords};
use crate::service::{Caller, Context, anew};

/// Sessions of one user at once; a further login ends the oldest.
const SESSIONS_MAX: usize = 32;
/// Old sessions of all users that a login removes: more than it adds.
const TRIM_BATCH: usize = 100;

/// The use cases of sessions. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    context: Context,
    passwords: Passwords,
    tries: Arc<Mutex<Failed>>,
}

/// Failed logins.
struct Failed {
    sources: Sources,
    names: Tries<Name>,
}

/// A session that began.
#[derive(Debug)]
pub struct Begun {
    /// Whose.
    pub user: Name,
    /// When it ends.
    pub expires_at: WallTime,
    /// What to show from here on.
    pub secret: Secret,
}

/// What the transaction of a login changed.
struct Kept {
    user: User,
    session: Token,
    ended: Vec<Token>,
}

impl Sessions {
    /// The use cases over `context`.
    pub(crate) fn new(context: Context, passwords: Passwords) -> Self {
        let failed = Failed {
            sources: Sources::new("Too many failed logins came from this address."),
            names: Tries::new("Too many logins of this user failed."),
        };
        Self { context, passwords, tries: Arc::new(Mutex::new(failed)) }
    }

    /// Begins a session of whoever knows this name and password.
    ///
    /// # Errors
    /// `unauthenticated` for a wrong password, a user that is not there and one without a password,
    /// alike; `rate_limited` after too many failures of an address or a name; `store_unavailable`.
    pub async fn login(
        &self,
        name: &str,
        password: Secret,
        source: Option<IpAddr>,
    ) -> Result<Begun, Refusal> {
        // Cut before it is read: only what can be a name is kept.
        let name =
            Some(name).filter(|name| name.len() <= NAME_BYTES_MAX).and_then(|name| Name::parse(name).ok());
        self.begin_try(name.as_ref(), source)?;
        let begun = self.prove(name.as_ref(), password).await;
        // What the hub could not do is no guess.
        if begun.as_ref().map_or_else(|refusal| refusal.code != Code::Unauthenticated, |_| true) {
            self.forgive(name.as_ref(), source);
        }
        begun
    }

    /// Ends the caller's session.
    ///
    /// # Errors
    /// `invalid_argument` when the token is no session.
    pub async fn logout(&self, caller: &Caller) -> Result<(), Refusal> {
        if caller.token.kind != TokenKind::Session {
            let message = format!("`{}` is no session but a token.", caller.token.name);
            return Err(Refusal::new(Code::InvalidArgument, message)
                .hint("End it with `cortex token revoke`, if it should end."));
        }
        Tokens::new(self.context.clone()).end(caller, caller.token.id, None).await.map(drop)
    }

    /// Sets the caller's own password, which has to be known. Its other sessions end.
    ///
    /// # Errors
    /// `invalid_argument` when the caller is no session, or the new password is too short; `forbidden` when
    /// the current one is another; `rate_limited`; `store_unavailable`.
    pub async fn set_password(
        &self,
        caller: &Caller,
        current: Secret,
        new: Secret,
        source: Option<IpAddr>,
    ) -> Result<(), Refusal> {
        let (TokenKind::Session, Some(user)) = (caller.token.kind, caller.user.clone()) else {
            let message = format!("`{}` is no session, and has no password.", caller.token.name);
            return Err(
                Refusal::new(Code::InvalidArgument, message).hint("Log in first with `cortex login`.")
            );
        };
        self.begin_try(Some(&user.name), source)?;
        let compared = self.passwords.compare(current, user.password.clone()).await;
        if compared != Ok(Compared::Wrong) {
            self.forgive(Some(&user.name), source);
        }
        if compared? == Compared::Wrong {
            let refusal = Refusal::new(Code::Forbidden, "The current password is another one.");
            return Err(
                refusal.hint("Check it and try again, or ask an administrator for `cortex user passwd`.")
            );
        }
        let fresh = self.passwords.hash(new).await?;
        let (again, now, compared) = (caller.clone(), self.context.clock.wall(), user);
        let work = move |tx: &mut dyn Tx| renew(tx, &again, &compared, fresh, now);
        let directory = self.context.directory.clone();
        let after = move |(user, ended): &(User, Vec<Token>)| {
            ended.iter().for_each(|token| directory.put_token(token.clone()));
            directory.put_user(user.clone());
        };
        self.context.commit(work, after).await.map(drop)
    }

    async fn prove(&self, name: Option<&Name>, password: Secret) -> Result<Begun, Refusal> {
        let user = name.and_then(|name| self.context.directory.user_named(name));
        let kept = user.as_ref().and_then(|user| user.password.clone());
        let compared = self.passwords.compare(password, kept).await?;
        match (user, compared) {
            (Some(user), Compared::Right) => self.begin(&user, None).await,
            (Some(user), Compared::Weak(fresh)) => self.begin(&user, Some(fresh)).await,
            (_, Compared::Wrong) | (None, _) => Err(wrong()),
        }
    }

    async fn begin(&self, user: &User, fresh: Option<PasswordHash>) -> Result<Begun, Refusal> {
        if let Some(lock) = self.context.directory.locks().on_user(user.id, self.context.clock.wall()) {
            return Err(lock.refusal());
        }
        let placeholder = Name::parse("session")?;
        let (token, secret) = tokens::mint(&self.context.clock, "cxs_", placeholder, Role::Admin);
        let now = token.created_at;
        let id = token.id.to_string();
        let session = Token {
            // Without a bound of its own: the user's roles are what it can do.
            name: Name::parse(&format!("session-{}", &id[id.len() - 12..]))?,
            kind: TokenKind::Session,
            user: Some(user.id),
            expires_at: Some(now.plus_ms(SESSION_TTL_MS)),
            ..token
        };
        let compared = user.clone();
        let work = move |tx: &mut dyn Tx| keep(tx, &compared, fresh, session, now);
        let directory = self.context.directory.clone();
        let after = move |kept: &Kept| {
            kept.ended.iter().for_each(|token| directory.put_token(token.clone()));
            directory.put_user(kept.user.clone());
            directory.put_token(kept.session.clone());
        };
        let kept = self.context.commit(work, after).await?;
        let expires_at = kept.session.expires_at.unwrap_or(now);
        Ok(Begun { user: kept.user.name, expires_at, secret })
    }

    /// Counted in advance, so that tries at the same time count as well.
    fn begin_try(&self, name: Option<&Name>, source: Option<IpAddr>) -> Result<(), Refusal> {
        let now = self.context.clock.now();
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        tries.sources.check(source, now)?;
        if let Some(name) = name {
            tries.names.check(name, now)?;
            tries.names.fail(name.clone(), now);
        }
        tries.sources.fail(source, now);
        Ok(())
    }

    fn forgive(&self, name: Option<&Name>, source: Option<IpAddr>) {
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        tries.sources.forgive(source);
        if let Some(name) = name {
            tries.names.forgive(name);
        }
    }
}

/// Keeps a session, when the user is still the one whose password was compared.
fn keep(
    tx: &mut dyn Tx,
    compared: &User,
    fresh: Option<PasswordHash>,
    session: Token,
    now: WallTime,
) -> Result<Kept, WriteError> {
    let live = tx.user(compared.id)?.filter(|user| user.removed_at.is_none());
    let Some(mut user) = live.filter(|user| user.password == compared.password) else {
        return Err(wrong().into());
    };
    if let Some(fresh) = fresh {
        user.password = Some(fresh);
        tx.put_user(&user)?;
    }
    let by = By::named(format!("user:{}", user.name));
    tx.trim_sessions(WallTime(now.0.saturating_sub_unsigned(SESSIONS_KEPT_MS)), TRIM_BATCH)?;
    let ended = end_oldest(tx, &user, &by, now)?;
    tx.put_token(&session)?;
    tokens::record(tx, &session, EventKind::TokenCreated, "user.login", &by, now)?;
    Ok(Kept { user, session, ended })
}

/// Keeps a user's own new password, when the old one is still the one that was compared.
fn renew(
    tx: &mut dyn Tx,
    caller: &Caller,
    compared: &User,
    fresh: PasswordHash,
    now: WallTime,
) -> Result<(User, Vec<Token>), WriteError> {
    anew(tx, caller, now)?;
    let live = tx.user(compared.id)?.filter(|user| user.password == compared.password);
    let changed = || Refusal::new(Code::Conflict, "The password was changed in the meantime.");
    let user = User { password: Some(fresh), ..live.ok_or_else(changed)? };
    tx.put_user(&user)?;
    let other = |token: &Token| token.kind == TokenKind::Session && token.id != caller.token.id;
    let ended = tokens::revoke_of(tx, user.id, &By::of(caller), now, other)?;
    let row = AuditRow::new(now, caller.actor(), "user.passwd", Outcome::Allowed);
    let detail = Some(format!("{}; {} other session(s) ended", user.name, ended.len()));
    tx.append_audit(&AuditRow { detail, token: Some(caller.token.id), ..row })?;
    Ok((user, ended))
}

/// Makes room for one more session.
fn end_oldest(tx: &mut dyn Tx, user: &User, by: &By, now: WallTime) -> Result<Vec<Token>, WriteError> {
    // Newest first.
    let own = tx.tokens()?.into_iter().filter(|token| {
        token.user == Some(user.id) && token.kind == TokenKind::Session && token.check(now).is_ok()
    });
    let too_many: Vec<Token> = own.skip(SESSIONS_MAX - 1).collect();
    too_many.into_iter().map(|token| tokens::revoke(tx, token, by, now)).collect()
}

fn wrong() -> Refusal {
    let message = "There is no user with this name and this password.";
    Refusal::new(Code::Unauthenticated, message)
        .hint("Check both and try again, or ask an administrator for `cortex user passwd`.")
}
