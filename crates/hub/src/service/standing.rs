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
    place: Place,
}

/// Where a right is had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On some node.
    Somewhere,
    /// On this one.
    On(NodeId),
    /// On all nodes and on the hub itself.
    Everywhere,
}

impl Standing {
    /// That `caller` has this right there.
    pub fn new(context: &Context, caller: &Caller, right: Right, place: Place) -> Self {
        Self { context: context.clone(), caller: caller.clone(), right, place }
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
        let caller = self.context.still(&self.caller)?;
        let stands = match self.place {
            Place::Somewhere => return caller.anywhere(self.right),
            Place::On(node) => targets::has(&self.context.directory, &caller, self.right, node),
            Place::Everywhere => caller.everywhere(self.right),
        };
        if stands {
            return Ok(());
        }
        let refusal = Refusal::new(Code::Forbidden, "The right to go on with this was taken back.");
        Err(refusal.detail("right", self.right.as_str()))
    }

    /// The end that the token has by itself.
    async fn expiry(&self) {
        let Some(end) = self.caller.token.expires_at else { return std::future::pending().await };
        let ms = u64::try_from(end.0.saturating_sub(self.context.clock.wall().0)).unwrap_or(0);
        // At least a moment, should both clocks not agree.
        tokio::time::sleep(Duration::from_millis(ms.max(10))).await;
    }
}
