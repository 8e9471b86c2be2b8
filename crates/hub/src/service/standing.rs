//! Whether a caller still may do what it began: for what stays open longer than a request. A token
//! that ends, a user that goes, a role that is taken back and a lock end it at once.

use std::time::Duration;

use cortex_core::id::NodeId;
use cortex_core::rights::Right;
use cortex_core::{Code, Refusal};

use crate::service::{Caller, Context, targets};

/// A caller's right, to be asked for again.
#[derive(Clone)]
pub struct Standing {
    context: Context,
    caller: Caller,
    right: Right,
    node: Option<NodeId>,
}

impl Standing {
    /// That `caller` has this right on this node; without one, that it has it somewhere.
    pub fn new(context: &Context, caller: &Caller, right: Right, node: Option<NodeId>) -> Self {
        Self { context: context.clone(), caller: caller.clone(), right, node }
    }

    /// Waits until the caller may not go on, and says why.
    pub async fn ended(self) -> Refusal {
        let mut changes = self.context.directory.principals();
        loop {
            changes.borrow_and_update();
            if let Err(refusal) = self.check() {
                return refusal;
            }
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        // The directory outlives whoever has a share of it.
                        return std::future::pending().await;
                    }
                }
                () = self.expiry() => {}
            }
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        let directory = &self.context.directory;
        let gone = || Refusal::new(Code::Unauthenticated, "The token has ended.");
        let token = directory.token(&self.caller.token.secret_hash).ok_or_else(gone)?;
        token.check(self.context.clock.wall())?;
        let again = Caller::new(directory.who(token));
        self.context.refuse_locked(&again)?;
        match self.node {
            Some(node) if targets::has(directory, &again, self.right, node) => Ok(()),
            Some(_) => Err(Refusal::new(Code::Forbidden, "The right to go on with this was taken back.")),
            None => again.anywhere(self.right),
        }
    }

    /// The end that the token has by itself.
    async fn expiry(&self) {
        let Some(end) = self.caller.token.expires_at else { return std::future::pending().await };
        let ms = u64::try_from(end.0.saturating_sub(self.context.clock.wall().0)).unwrap_or(0);
        // At least a moment, should both clocks not agree.
        tokio::time::sleep(Duration::from_millis(ms.max(10))).await;
    }
}
