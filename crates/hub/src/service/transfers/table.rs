//! All transfers of which something is told: those that are open, and what came of those that ended.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cortex_core::id::{TokenId, TransferId};
use cortex_core::limits::{
    TRANSFERS_KEPT_MAX, TRANSFERS_KEPT_MS, TRANSFERS_OPEN_MAX, TRANSFERS_OPEN_PER_TOKEN_MAX,
};
use cortex_core::{Code, Refusal};

use super::Order;
use super::open::Transfer;

/// Bytes of all that is kept of ended transfers, about.
const KEPT_BYTES_MAX: usize = 32 * 1024 * 1024;

/// All transfers of which something is told.
#[derive(Default)]
pub(super) struct Table {
    open: BTreeMap<TransferId, Arc<Transfer>>,
    ended: BTreeMap<TransferId, Arc<Transfer>>,
    /// Those that ended, oldest first, with their weight.
    order: VecDeque<(TransferId, Instant, usize)>,
    weight: usize,
    keys: HashMap<(TokenId, String), TransferId>,
    is_stopping: bool,
}

impl Table {
    /// Looks for what the same caller asked for with the same key.
    ///
    /// # Errors
    /// `conflict` when that was something else.
    pub(super) fn known(
        &self,
        token: TokenId,
        key: &str,
        order: &Order,
    ) -> Result<Option<Arc<Transfer>>, Refusal> {
        let found = self.keys.get(&(token, key.to_owned())).and_then(|id| self.get(*id));
        match found {
            Some(transfer) if transfer.order == *order => Ok(Some(transfer)),
            Some(_) => {
                let message = "The idempotency key was used for another transfer.";
                Err(Refusal::new(Code::Conflict, message).hint("Use a new key."))
            }
            None => Ok(None),
        }
    }

    /// Takes one in.
    ///
    /// # Errors
    /// `rate_limited` when its token has too many open, `quota` when the hub has, `hub_unreachable` when it
    /// stops.
    pub(super) fn open(&mut self, transfer: &Arc<Transfer>, key: Option<String>) -> Result<(), Refusal> {
        if self.is_stopping {
            return Err(Refusal::new(Code::HubUnreachable, "The hub stops.").hint("Ask again in a moment."));
        }
        let token = transfer.by.token;
        if self.open.values().filter(|open| open.by.token == token).count() >= TRANSFERS_OPEN_PER_TOKEN_MAX {
            let message =
                format!("This token has {TRANSFERS_OPEN_PER_TOKEN_MAX} transfers open, the most at once.");
            return Err(Refusal::new(Code::RateLimited, message)
                .hint("Wait for some of them to end, or cancel one, then ask again."));
        }
        if self.open.len() >= TRANSFERS_OPEN_MAX {
            let message = format!("The hub has {TRANSFERS_OPEN_MAX} transfers open, the most at once.");
            return Err(
                Refusal::new(Code::Quota, message).hint("Wait for some of them to end, then ask again.")
            );
        }
        self.open.insert(transfer.id, Arc::clone(transfer));
        if let Some(key) = key {
            self.keys.insert((token, key), transfer.id);
        }
        Ok(())
    }

    /// One ended: what came of it is told for a while.
    pub(super) fn end(&mut self, id: TransferId) {
        let Some(transfer) = self.open.remove(&id) else { return };
        let weight = transfer.weight();
        self.ended.insert(id, transfer);
        self.order.push_back((id, Instant::now(), weight));
        self.weight += weight;
        self.prune();
    }

    /// One was not begun.
    pub(super) fn forget(&mut self, id: TransferId) {
        self.open.remove(&id);
        self.keys.retain(|_, known| *known != id);
    }

    pub(super) fn get(&self, id: TransferId) -> Option<Arc<Transfer>> {
        self.open.get(&id).or_else(|| self.ended.get(&id)).cloned()
    }

    /// All, the newest first, from behind `before` on.
    pub(super) fn all(&self, before: Option<TransferId>) -> Vec<Arc<Transfer>> {
        let mut all: Vec<_> = self.open.values().chain(self.ended.values()).cloned().collect();
        all.sort_by_key(|transfer| std::cmp::Reverse(transfer.id));
        all.retain(|transfer| before.is_none_or(|before| transfer.id < before));
        all
    }

    /// No more come. Returns those that are open.
    pub(super) fn stop(&mut self) -> Vec<Arc<Transfer>> {
        self.is_stopping = true;
        self.open.values().cloned().collect()
    }

    pub(super) fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Forgets what is too old, or too much.
    pub(super) fn prune(&mut self) {
        let kept = Duration::from_millis(TRANSFERS_KEPT_MS);
        while let Some((id, since, weight)) = self.order.front().copied() {
            let is_too_much = self.order.len() > TRANSFERS_KEPT_MAX || self.weight > KEPT_BYTES_MAX;
            if !is_too_much && since.elapsed() < kept {
                break;
            }
            self.order.pop_front();
            self.weight -= weight;
            self.ended.remove(&id);
            self.keys.retain(|_, known| *known != id);
        }
    }
}
