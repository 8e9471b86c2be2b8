//! Whether the owner of a task still may what the task needs. It is asked whenever something is handed
//! out, as things are then: a lock, a revoked token, a role that was taken back stop what waits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cortex_core::id::{TokenId, UserId};
use cortex_core::name::Name;
use cortex_core::pool::Owner;
use cortex_core::pool::room::LOOK_EVERY_MS;
use cortex_core::time::WallTime;
use cortex_core::token::{Role, Token, TokenKind};
use tokio::sync::watch;

use crate::service::{Caller, Context};

/// Owners as they stand at one moment, each looked up once.
pub(super) struct Owners<'c> {
    context: &'c Context,
    now: WallTime,
    found: BTreeMap<Owner, Result<Arc<Caller>, String>>,
}

impl<'c> Owners<'c> {
    pub(super) const fn new(context: &'c Context, now: WallTime) -> Self {
        Self { context, now, found: BTreeMap::new() }
    }

    /// The owner as a caller; or why nothing of it is handed out, for people.
    pub(super) fn get(&mut self, owner: Owner) -> Result<Arc<Caller>, String> {
        let (context, now) = (self.context, self.now);
        self.found.entry(owner).or_insert_with(|| look_up(context, owner, now)).clone()
    }
}

/// See [`LOOK_EVERY_MS`].
const LOOK_EVERY: Duration = Duration::from_millis(LOOK_EVERY_MS);

/// Until somebody or some node may be let in again: rights, labels or locks changed after `seen` was, or a
/// lock ended by itself.
pub(super) async fn let_in_again(context: &Context, seen: &mut watch::Receiver<u64>) {
    let now = context.clock.wall();
    let end = context.directory.locks().next_end(now);
    let wait = end.map(|end| u64::try_from(end.0.saturating_sub(now.0)).unwrap_or(0));
    let ended = async {
        match wait {
            Some(ms) => tokio::time::sleep(Duration::from_millis(ms.max(5)).min(LOOK_EVERY)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        // The directory outlives whoever has a share of it.
        _ = seen.changed() => {}
        () = ended => {}
    }
}

fn look_up(context: &Context, owner: Owner, now: WallTime) -> Result<Arc<Caller>, String> {
    let token = match owner.token {
        Some(id) => {
            let token = context.directory.tokens().into_iter().find(|token| token.id == id);
            token.ok_or("the token by which it was submitted has ended")?
        }
        None => stand_in(owner.user),
    };
    if let Err(refusal) = token.check(now) {
        return Err(format!("the token by which it was submitted is of no more use: {}", refusal.message));
    }
    let caller = Caller::new(context.directory.who(token));
    if owner.user.is_some() && caller.user.is_none() {
        return Err("the user who submitted it was removed".to_owned());
    }
    match context.directory.locks().on_caller(caller.token.id, owner.user, now) {
        Some(lock) => Err(format!("a lock holds on its owner: {}", lock.refusal().message)),
        None => Ok(Arc::new(caller)),
    }
}

/// For a person whose session may have ended: what the person may, without a bound of its own.
fn stand_in(user: Option<UserId>) -> Arc<Token> {
    let name = Name::parse("pool").unwrap_or_else(|_| unreachable!("it is a name"));
    Arc::new(Token {
        id: TokenId::new(Default::default()),
        name,
        role: Role::Admin,
        secret_hash: [0; 32],
        created_at: WallTime(0),
        expires_at: None,
        revoked_at: None,
        kind: TokenKind::Session,
        user,
        rights: None,
        nodes: None,
        tools: None,
    })
}
