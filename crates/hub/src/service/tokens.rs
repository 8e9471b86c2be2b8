//! API tokens: made, listed, revoked. Only a hash is kept; the secret is in one answer, or for
//! the first administrator in one file.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use cortex_core::access::somebody_administers;
use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::event::{Event, EventKind};
use cortex_core::id::{TokenId, UserId};
use cortex_core::invite::to_hex;
use cortex_core::limits::{TOKEN_NODES_MAX, TOKENS_MAX};
use cortex_core::lock::Locks;
use cortex_core::name::{Name, Selector, printable};
use cortex_core::rights::{CLIENT, Right, Rights};
use cortex_core::time::WallTime;
use cortex_core::token::{NodeScope, Role, Token, TokenKind, Tool};
use cortex_core::{Code, Refusal};
use cortex_store::{Tx, WriteError};

use crate::clock::{self, Clock};
use crate::secret::Secret;
use crate::service::{Caller, Context, anew, targets};

/// Longest life that may be asked for: ten years.
const TTL_MS_MAX: u64 = 10 * 365 * 24 * 3_600 * 1_000;
/// Who made the first token.
const HUB: &str = "hub";

/// The use cases of tokens. Cheap to clone.
#[derive(Clone)]
pub struct Tokens {
    context: Context,
}

/// A token to make.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Its name.
    pub name: Name,
    /// Its role.
    pub role: Role,
    /// What it is for.
    pub kind: TokenKind,
    /// At most these rights.
    pub rights: Option<Rights>,
    /// Only on these nodes, by name or id.
    pub nodes: Vec<String>,
    /// Or only on those with these labels.
    pub selector: Option<Selector>,
    /// Its tools.
    pub tools: Option<BTreeSet<Tool>>,
    /// Life, milliseconds.
    pub ttl_ms: Option<u64>,
}

/// Who makes or ends a token, for its rows.
pub(super) struct By {
    actor: String,
    /// With which token; `None` when it is made without one: by a login, or by the hub.
    token: Option<TokenId>,
}

impl By {
    /// This caller.
    pub(super) fn of(caller: &Caller) -> Self {
        Self { actor: caller.actor(), token: Some(caller.token.id) }
    }

    /// Somebody without a token.
    pub(super) fn named(actor: impl Into<String>) -> Self {
        Self { actor: actor.into(), token: None }
    }
}

impl Tokens {
    /// The use cases over `context`.
    pub const fn new(context: Context) -> Self {
        Self { context }
    }

    /// At the first start of a hub: makes the administrator's token and writes its secret to
    /// `file`, which only its owner can read. The file is durable before the token counts, so
    /// that there is never a token that nobody has. Returns whether it was the first start.
    pub async fn begin(&self, file: &Path) -> Result<bool, Refusal> {
        if !self.context.view(|view| view.tokens()).await?.is_empty() {
            return Ok(false);
        }
        let (token, secret) = mint(&self.context.clock, "cxt_", Name::parse("admin")?, Role::Admin);
        let path = file.to_owned();
        let written =
            tokio::task::spawn_blocking(move || crate::files::write_private(&path, secret.reveal())).await;
        written
            .map_err(|error| error.to_string())
            .and_then(|done| done.map_err(|error| error.to_string()))
            .map_err(|error| {
            let message = format!("The first token cannot be written to {}: {error}.", file.display());
            Refusal::new(Code::BadConfig, message)
                .hint("Make the data directory writable, or choose another one with `--data-dir`.")
        })?;
        self.keep(token, By::named(HUB), |_, _| Ok(Vec::new())).await?;
        Ok(true)
    }

    /// Makes a token, which is the caller's user's when it has one. Needs `tokens:write`, and gives no
    /// more than the caller has. `Conflict` when the name is taken.
    pub async fn create(&self, caller: &Caller, new: NewToken) -> Result<(Token, Secret), Refusal> {
        let (token, secret) = self.prepare(caller, new)?;
        caller.may_make(&token)?;
        let again = caller.clone();
        let check = move |tx: &mut dyn Tx, token: &Token| {
            anew(tx, &again, token.created_at)?.may_make(token)?;
            make_room(tx, token)
        };
        let token = self.keep(token, By::of(caller), check).await?;
        Ok((token, secret))
    }

    /// All tokens by name, from memory; of sessions those that have not ended. Needs `tokens:read`.
    pub fn list(&self, caller: &Caller) -> Result<Vec<Arc<Token>>, Refusal> {
        caller.anywhere(Right::TokensRead)?;
        let mut tokens = self.context.directory.tokens();
        tokens.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        Ok(tokens)
    }

    /// Ends a token, named by id or by the name of a live one. Needs `tokens:write`. The last way in of
    /// an administrator stays (`Conflict`): nobody could let anybody in again.
    pub async fn revoke(&self, caller: &Caller, which: &str) -> Result<Token, Refusal> {
        caller.anywhere(Right::TokensWrite)?;
        let id = self.find(which, self.context.clock.wall())?;
        self.end(caller, id, Some(Right::TokensWrite)).await
    }

    /// Ends a token: the caller's own, or by this right any.
    pub(super) async fn end(
        &self,
        caller: &Caller,
        id: TokenId,
        by: Option<Right>,
    ) -> Result<Token, Refusal> {
        let (again, now) = (caller.clone(), self.context.clock.wall());
        let work = move |tx: &mut dyn Tx| {
            let again = anew(tx, &again, now)?;
            by.map_or(Ok(()), |right| again.anywhere(right))?;
            let token = tx.token(id)?.ok_or_else(|| unknown(&id.to_string()))?;
            if token.revoked_at.is_some() {
                return Ok(token);
            }
            let token = revoke(tx, token, &By::of(&again), now)?;
            keep_an_administrator(tx, now, || {
                format!("`{}` is the only lasting administrator's token.", token.name)
            })?;
            Ok(token)
        };
        let directory = self.context.directory.clone();
        self.context.commit(work, move |token: &Token| directory.put_token(token.clone())).await
    }

    fn prepare(&self, caller: &Caller, new: NewToken) -> Result<(Token, Secret), Refusal> {
        if new.ttl_ms.is_some_and(|ms| ms == 0 || ms > TTL_MS_MAX) {
            let message = format!("`ttl_ms` must be above 0 and at most {TTL_MS_MAX}.");
            return Err(Refusal::new(Code::InvalidArgument, message));
        }
        if new.rights.is_some_and(Rights::is_none) {
            let message = "A token without any right would open nothing.";
            return Err(Refusal::new(Code::InvalidArgument, message)
                .hint("Name one right at least, or leave `rights` out for all of the role."));
        }
        let nodes = self.scope(caller, &new)?;
        let (token, secret) = mint(&self.context.clock, "cxt_", new.name, new.role);
        // What a client could never use is not promised in lists either.
        let rights = match (new.kind, new.rights) {
            (TokenKind::Client, None) => Some(Rights::of_role(new.role).meet(CLIENT)),
            (_, rights) => rights,
        };
        let expires_at = new.ttl_ms.map(|ms| token.created_at.plus_ms(ms));
        let (kind, tools, user) = (new.kind, new.tools, caller.token.user);
        Ok((Token { kind, user, rights, nodes, tools, expires_at, ..token }, secret))
    }

    fn scope(&self, caller: &Caller, new: &NewToken) -> Result<Option<NodeScope>, Refusal> {
        let wrong = |message: String| Err(Refusal::new(Code::InvalidArgument, message));
        match (&new.selector, new.nodes.as_slice()) {
            (None, []) => Ok(None),
            (Some(_), [_, ..]) => wrong("`nodes` and `selector` exclude each other.".to_owned()),
            (Some(selector), []) if selector.is_all() => {
                wrong("An empty selector bounds nothing; leave it out.".to_owned())
            }
            (Some(selector), []) => Ok(Some(NodeScope::Selector(selector.clone()))),
            (None, nodes) if nodes.len() > TOKEN_NODES_MAX => Err(Refusal::new(
                Code::TooLarge,
                format!("A token names at most {TOKEN_NODES_MAX} nodes; use a selector for more."),
            )),
            (None, nodes) => {
                let directory = &self.context.directory;
                let ids = nodes.iter().map(|text| targets::find(directory, caller, text).map(|node| node.id));
                Ok(Some(NodeScope::Nodes(ids.collect::<Result<_, _>>()?)))
            }
        }
    }

    fn find(&self, which: &str, now: WallTime) -> Result<TokenId, Refusal> {
        let tokens = self.context.directory.tokens();
        let by_id = which.parse().ok().filter(|id: &TokenId| tokens.iter().any(|token| token.id == *id));
        let live = |token: &&Arc<Token>| token.name.as_str() == which && token.check(now).is_ok();
        by_id.or_else(|| tokens.iter().find(live).map(|token| token.id)).ok_or_else(|| unknown(which))
    }

    /// Keeps a token that passes `check`, which says what was ended for it.
    async fn keep(
        &self,
        token: Token,
        by: By,
        check: impl FnOnce(&mut dyn Tx, &Token) -> Result<Vec<Token>, WriteError> + Send + 'static,
    ) -> Result<Token, Refusal> {
        let work = move |tx: &mut dyn Tx| {
            let ended = check(tx, &token)?;
            tx.put_token(&token)?;
            record(tx, &token, EventKind::TokenCreated, "token.create", &by, token.created_at)?;
            Ok((token, ended))
        };
        let directory = self.context.directory.clone();
        let after = move |(token, ended): &(Token, Vec<Token>)| {
            ended.iter().chain([token]).for_each(|token| directory.put_token(token.clone()));
        };
        Ok(self.context.commit(work, after).await?.0)
    }
}

/// Room for one more token. One that has ended by itself gives its name away: it would have it for ever.
fn make_room(tx: &mut dyn Tx, new: &Token) -> Result<Vec<Token>, WriteError> {
    let now = new.created_at;
    let (good, ended): (Vec<Token>, Vec<Token>) = tx
        .tokens()?
        .into_iter()
        .filter(|token| token.kind != TokenKind::Session && token.revoked_at.is_none())
        .partition(|token| token.check(now).is_ok());
    if good.len() >= TOKENS_MAX {
        let message = format!("The hub has {TOKENS_MAX} tokens that are good, which is the most.");
        return Err(Refusal::new(Code::Quota, message)
            .hint("End some that nobody needs with `cortex token revoke`.")
            .into());
    }
    let same = ended.into_iter().filter(|token| token.name == new.name);
    same.map(|token| revoke(tx, token, &By::named(HUB), now)).collect()
}

/// A token that is bound by nothing but its role, and its secret.
pub(super) fn mint(clock: &Clock, prefix: &str, name: Name, role: Role) -> (Token, Secret) {
    let secret = Secret::new(format!("{prefix}{}", to_hex(&clock::random::<32>())));
    let token = Token {
        id: clock::new_token_id(clock),
        name,
        role,
        secret_hash: secret.hash(),
        created_at: clock.wall(),
        expires_at: None,
        revoked_at: None,
        kind: TokenKind::Api,
        user: None,
        rights: None,
        nodes: None,
        tools: None,
    };
    (token, secret)
}

/// Ends a token within a transaction, with its event and its audit row.
pub(super) fn revoke(tx: &mut dyn Tx, token: Token, by: &By, now: WallTime) -> Result<Token, WriteError> {
    let token = Token { revoked_at: Some(now), ..token };
    tx.put_token(&token)?;
    record(tx, &token, EventKind::TokenRevoked, "token.revoke", by, now)?;
    Ok(token)
}

/// Ends all that a user can still show, and of these `wanted`; also what has ended by the hub's clock, which
/// may be set back.
pub(super) fn revoke_of(
    tx: &mut dyn Tx,
    user: UserId,
    by: &By,
    now: WallTime,
    wanted: impl Fn(&Token) -> bool,
) -> Result<Vec<Token>, WriteError> {
    let own = tx.tokens()?.into_iter().filter(|token| token.user == Some(user) && token.revoked_at.is_none());
    let ending: Vec<Token> = own.filter(wanted).collect();
    ending.into_iter().map(|token| revoke(tx, token, by, now)).collect()
}

/// Refuses `conflict` what this transaction did when it leaves nobody who can let others in. Who is
/// locked cannot.
pub(super) fn keep_an_administrator(
    tx: &dyn Tx,
    now: WallTime,
    message: impl FnOnce() -> String,
) -> Result<(), WriteError> {
    let (locks, mut tokens, mut users) = (Locks::new(tx.locks()?), tx.tokens()?, tx.users()?);
    tokens.retain(|token| locks.on_caller(token.id, token.user, now).is_none());
    users.retain(|user| locks.on_user(user.id, now).is_none());
    if somebody_administers(&tokens, &users, &tx.grants()?, now) {
        return Ok(());
    }
    Err(Refusal::new(Code::Conflict, message())
        .hint("Make another administrator first with `cortex token create NAME --role admin`.")
        .into())
}

/// The refusal of a token that there is not.
pub(super) fn unknown(which: &str) -> Refusal {
    Refusal::new(Code::NotFound, format!("There is no token `{}`.", printable(which, 80)))
        .hint("List the tokens with `cortex token ls`.")
}

pub(super) fn record(
    tx: &mut dyn Tx,
    token: &Token,
    kind: EventKind,
    action: &str,
    by: &By,
    now: WallTime,
) -> Result<(), WriteError> {
    tx.append_event(&Event::new(kind, now).actor(by.actor.as_str()).subject(token.name.as_str()))?;
    let detail = Some(format!("{} {} ({})", token.id, token.name, told(token)));
    let row = AuditRow::new(now, by.actor.as_str(), action, Outcome::Allowed);
    tx.append_audit(&AuditRow { detail, token: by.token, ..row })?;
    Ok(())
}

/// What a token can do, in words: `operator, client; rights runs:start; nodes role=ci; tools exec`.
fn told(token: &Token) -> String {
    let mut words = token.role.as_str().to_owned();
    if token.kind != TokenKind::Api {
        words.push_str(&format!(", {}", token.kind.as_str()));
    }
    if let Some(rights) = token.rights {
        words.push_str(&format!("; rights {rights}"));
    }
    match &token.nodes {
        Some(NodeScope::Nodes(ids)) => {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            words.push_str(&format!("; nodes {}", ids.join(",")));
        }
        Some(NodeScope::Selector(selector)) => words.push_str(&format!("; nodes {selector}")),
        None => {}
    }
    if let Some(tools) = &token.tools {
        let tools: Vec<&str> = tools.iter().copied().map(Tool::as_str).collect();
        words.push_str(&format!("; tools {}", tools.join(",")));
    }
    words
}
