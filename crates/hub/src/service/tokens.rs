//! API tokens: made, listed, revoked. Only a hash is kept; the secret is in one answer, or for
//! the first administrator in one file.

use std::path::Path;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::event::{Event, EventKind};
use cortex_core::id::TokenId;
use cortex_core::invite::to_hex;
use cortex_core::name::Name;
use cortex_core::rights::Right;
use cortex_core::time::WallTime;
use cortex_core::token::{Role, Token, TokenKind};
use cortex_core::{Code, Refusal};
use cortex_store::{Tx, WriteError};

use crate::clock::{self, Clock};
use crate::secret::Secret;
use crate::service::{Caller, Context};

/// Longest life that may be asked for: ten years.
const TTL_MS_MAX: u64 = 10 * 365 * 24 * 3_600 * 1_000;
/// Who made the first token.
const HUB: &str = "hub";

/// The use cases of tokens. Cheap to clone.
#[derive(Clone)]
pub struct Tokens {
    context: Context,
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
        let (token, secret) = mint(&self.context.clock, Name::parse("admin")?, Role::Admin, None);
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
        self.keep(token, HUB.to_owned()).await?;
        Ok(true)
    }

    /// Makes a token. Needs `tokens:write`. `Conflict` when the name is taken.
    pub async fn create(
        &self,
        caller: &Caller,
        name: Name,
        role: Role,
        ttl_ms: Option<u64>,
    ) -> Result<(Token, Secret), Refusal> {
        caller.anywhere(Right::TokensWrite)?;
        if ttl_ms.is_some_and(|ms| ms == 0 || ms > TTL_MS_MAX) {
            let message = format!("`ttl_ms` must be above 0 and at most {TTL_MS_MAX}.");
            return Err(Refusal::new(Code::InvalidArgument, message));
        }
        let (token, secret) = mint(&self.context.clock, name, role, ttl_ms);
        let token = self.keep(token, caller.actor()).await?;
        Ok((token, secret))
    }

    /// All tokens by name, from memory.
    pub fn list(&self, caller: &Caller) -> Result<Vec<std::sync::Arc<Token>>, Refusal> {
        caller.anywhere(Right::TokensRead)?;
        let mut tokens = self.context.directory.tokens();
        tokens.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        Ok(tokens)
    }

    /// Ends a token, named by id or by the name of a live one. Needs `tokens:write`. The last
    /// administrator's token stays (`Conflict`): nobody could let anybody in again.
    pub async fn revoke(&self, caller: &Caller, which: &str) -> Result<Token, Refusal> {
        caller.anywhere(Right::TokensWrite)?;
        let (actor, now) = (caller.actor(), self.context.clock.wall());
        let id = self.find(which, now)?;
        let work = move |tx: &mut dyn Tx| {
            let mut token = tx.token(id)?.ok_or_else(|| unknown(&id.to_string()))?;
            if token.revoked_at.is_some() {
                return Ok(token);
            }
            refuse_last_admin(&tx.tokens()?, &token, now)?;
            token.revoked_at = Some(now);
            tx.put_token(&token)?;
            record(tx, &token, EventKind::TokenRevoked, "token.revoke", &actor, now)?;
            Ok(token)
        };
        let directory = self.context.directory.clone();
        self.context.commit(work, move |token: &Token| directory.put_token(token.clone())).await
    }

    fn find(&self, which: &str, now: WallTime) -> Result<TokenId, Refusal> {
        let tokens = self.context.directory.tokens();
        let by_id = which.parse().ok().filter(|id: &TokenId| tokens.iter().any(|token| token.id == *id));
        let live = |token: &&std::sync::Arc<Token>| token.name.as_str() == which && token.check(now).is_ok();
        by_id.or_else(|| tokens.iter().find(live).map(|token| token.id)).ok_or_else(|| unknown(which))
    }

    async fn keep(&self, token: Token, actor: String) -> Result<Token, Refusal> {
        let work = move |tx: &mut dyn Tx| {
            tx.put_token(&token)?;
            record(tx, &token, EventKind::TokenCreated, "token.create", &actor, token.created_at)?;
            Ok(token)
        };
        let directory = self.context.directory.clone();
        self.context.commit(work, move |token: &Token| directory.put_token(token.clone())).await
    }
}

fn mint(clock: &Clock, name: Name, role: Role, ttl_ms: Option<u64>) -> (Token, Secret) {
    let secret = Secret::new(format!("cxt_{}", to_hex(&clock::random::<32>())));
    let now = clock.wall();
    let token = Token {
        id: clock::new_token_id(clock),
        name,
        role,
        secret_hash: secret.hash(),
        created_at: now,
        expires_at: ttl_ms.map(|ms| now.plus_ms(ms)),
        revoked_at: None,
        kind: TokenKind::Api,
        user: None,
        rights: None,
        nodes: None,
        tools: None,
    };
    (token, secret)
}

fn refuse_last_admin(all: &[Token], token: &Token, now: WallTime) -> Result<(), Refusal> {
    let lasting = |other: &&Token| {
        other.id != token.id
            && other.role == Role::Admin
            && other.check(now).is_ok()
            && other.expires_at.is_none()
    };
    if token.role != Role::Admin || token.check(now).is_err() || all.iter().any(|other| lasting(&other)) {
        return Ok(());
    }
    let message = format!("`{}` is the only lasting administrator's token.", token.name);
    Err(Refusal::new(Code::Conflict, message)
        .hint("Make another one first with `cortex token create NAME --role admin`."))
}

fn unknown(which: &str) -> Refusal {
    let shown = cortex_core::name::printable(which, 80);
    Refusal::new(Code::NotFound, format!("There is no token `{shown}`."))
}

fn record(
    tx: &mut dyn Tx,
    token: &Token,
    kind: EventKind,
    action: &str,
    actor: &str,
    now: WallTime,
) -> Result<(), WriteError> {
    tx.append_event(&Event::new(kind, now).actor(actor).subject(token.name.as_str()))?;
    let detail = Some(format!("{} {} ({})", token.id, token.name, token.role.as_str()));
    tx.append_audit(&AuditRow { detail, ..AuditRow::new(now, actor, action, Outcome::Allowed) })?;
    Ok(())
}
