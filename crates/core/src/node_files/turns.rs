//! In which order operations begin: in that in which they came, as far as they touch one another.

use super::local::{Local, Phase};
use super::{Action, NodeFiles};
use crate::id::OpId;

impl NodeFiles {
    /// Gives it a place behind all that came before.
    pub(super) fn take_on(&mut self, local: Local) {
        let (op, turn) = (local.accepted.op, self.next_turn);
        self.next_turn += 1;
        self.turns.insert(turn, op);
        self.open.insert(op, Local { turn, ..local });
    }

    /// Begins what has to wait for nothing.
    pub(super) fn start_ready(&mut self) {
        let waits = |op: &OpId| matches!(self.phase(*op), Some(Phase::Waiting(..)));
        let waiting: Vec<OpId> = self.turns.values().copied().filter(waits).collect();
        for op in waiting {
            if self.is_blocked(op) {
                continue;
            }
            let Some(local) = self.open.get_mut(&op) else { continue };
            if let Phase::Waiting(ask, leave) = std::mem::replace(&mut local.phase, Phase::Preparing) {
                self.actions.push_back(Action::Perform { ask, leave });
            }
        }
    }

    /// Changes wait for those that came before them and touch their paths. Whatever a newer attempt asks
    /// for waits for what an older one cannot take back: it must see that, and come after it.
    fn is_blocked(&self, op: OpId) -> bool {
        let Some(local) = self.open.get(&op) else { return false };
        self.turns.range(..local.turn).filter_map(|(_, before)| self.open.get(before)).any(|before| {
            let is_older = match (before.attempt, local.attempt) {
                (Some((task, older)), Some((of, newer))) => task == of && older < newer,
                (Some(_) | None, None) | (None, Some(_)) => false,
            };
            (is_older && matches!(before.phase, Phase::Committing(_)))
                || (!local.reads && !before.reads && before.touches(local))
        })
    }
}
