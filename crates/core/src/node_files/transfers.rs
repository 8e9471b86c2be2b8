//! Transfers of trees. They are not journaled: one that is cut off is asked for again, and finds what it
//! has done. The link that asked ends them, and so does all that ends an operation.

use super::{Action, NodeFiles};
use crate::error::{Code, Refusal};
use crate::files::path::FilePath;
use crate::id::{Attempt, LockEpoch, TaskId, TransferId, WorkspaceId};
use crate::limits;
use crate::message::ToHub;
use crate::node_runs::Gate;
use crate::time::Timestamp;
use crate::transfer::{TransferAsk, TransferNews, TransferWork};

/// One transfer as the node holds it.
#[derive(Clone, Debug)]
pub(super) struct Moving {
    path: FilePath,
    writes: bool,
    attempt: Option<(TaskId, Attempt)>,
    lock: Option<(WorkspaceId, LockEpoch)>,
    deadline: Timestamp,
    /// Why its clerk is to be killed.
    ended: Option<Refusal>,
}

impl NodeFiles {
    pub(super) fn handle_transfer(&mut self, ask: TransferAsk, gate: &Gate<'_>, now: Timestamp) {
        let id = ask.id;
        // A repeat of one that is under way changes nothing.
        if self.moving.contains_key(&id) {
            return;
        }
        let writes = matches!(ask.work, TransferWork::Apply(_));
        let admitted = self.admit_transfer(&ask, writes).and_then(|()| {
            if let Some((task, attempt)) = ask.attempt {
                self.fence(task, attempt);
            }
            if let Some((workspace, lock)) = ask.lock {
                self.lock(workspace, lock);
            }
            gate.judge_transfer(&ask.work, &self.reserved)
        });
        let leave = match admitted {
            Ok(leave) => leave,
            Err(refusal) => return self.tell_transfer(id, refusal),
        };
        let moving = Moving {
            path: ask.work.path().clone(),
            writes,
            attempt: ask.attempt,
            lock: ask.lock,
            deadline: now.plus_ms(ask.deadline_ms.min(limits::TRANSFER_MS_MAX)),
            ended: None,
        };
        self.moving.insert(id, moving);
        self.actions.push_back(Action::Transfer { ask: Box::new(ask), leave: Box::new(leave) });
    }

    fn admit_transfer(&self, ask: &TransferAsk, writes: bool) -> Result<(), Refusal> {
        if self.moving.len() >= limits::TRANSFERS_OPEN_PER_NODE_MAX {
            let max = limits::TRANSFERS_OPEN_PER_NODE_MAX;
            return Err(Refusal::new(Code::Quota, format!("The node has {max} open transfers, its most.")));
        }
        self.check_fences(ask.attempt, ask.lock)?;
        let path = ask.work.path();
        let is_at = |one: &FilePath, other: &FilePath| one.below(other.as_str()).is_some();
        let touches = |other: &&Moving| {
            (writes || other.writes) && (is_at(path, &other.path) || is_at(&other.path, path))
        };
        match self.moving.values().find(touches) {
            None => Ok(()),
            Some(other) => {
                let path = crate::name::printable(other.path.as_str(), 300);
                let message = format!("Another transfer works on `{path}` of this node.");
                Err(Refusal::new(Code::Conflict, message)
                    .hint("Wait until it has ended, then ask again.")
                    .detail("kind", "busy")
                    .detail("path", path))
            }
        }
    }

    /// Whether its next changes may be seen: the last look at cancels and fences before that.
    ///
    /// # Errors
    /// `stale_attempt` and its like; `conflict` when it is not wanted any more.
    pub fn may_change(&self, id: TransferId) -> Result<(), Refusal> {
        let gone = || Refusal::new(Code::Conflict, "Nobody wants this transfer any more.");
        let moving = self.moving.get(&id).filter(|_| self.linked).ok_or_else(gone)?;
        moving.ended.clone().map_or(Ok(()), Err)?;
        self.check_fences(moving.attempt, moving.lock)
    }

    /// It is over, and its clerk does nothing more of it; with what is to be told of it when that was not
    /// said on its stream.
    pub fn transferred(&mut self, id: TransferId, news: Option<TransferNews>) {
        let Some(moving) = self.moving.remove(&id) else { return };
        match moving.ended {
            Some(refusal) => self.tell_transfer(id, refusal),
            None => news.into_iter().for_each(|news| self.send(ToHub::TransferNews(news))),
        }
    }

    pub(super) fn end_transfer(&mut self, id: TransferId, why: Refusal) {
        let Some(moving) = self.moving.get_mut(&id) else { return };
        if moving.ended.is_none() {
            moving.ended = Some(why);
            self.actions.push_back(Action::EndTransfer(id));
        }
    }

    /// Ends those of which fences say that they are over.
    pub(super) fn end_stale_transfers(&mut self) {
        self.end_each(|files, moving| files.check_fences(moving.attempt, moving.lock).err());
    }

    /// Ends those whose time is over.
    pub(super) fn end_late_transfers(&mut self, now: Timestamp) {
        let message = "The transfer did not end in its time; what was put stays.";
        let hint = "Ask for it again: what is there is not moved again.";
        self.end_each(|_, moving| {
            (moving.deadline <= now && moving.ended.is_none())
                .then(|| Refusal::new(Code::Timeout, message).hint(hint))
        });
    }

    /// Ends all of them: their link is gone.
    pub(super) fn end_all_transfers(&mut self) {
        self.end_each(|_, _| Some(Refusal::new(Code::HubUnreachable, "The link of the transfer ended.")));
    }

    fn end_each(&mut self, why: impl Fn(&Self, &Moving) -> Option<Refusal>) {
        let ended = self.moving.iter().filter_map(|(id, moving)| Some((*id, why(self, moving)?)));
        let ended: Vec<(TransferId, Refusal)> = ended.collect();
        for (id, refusal) in ended {
            self.end_transfer(id, refusal);
        }
    }

    /// When the next one's time is over.
    pub(super) fn transfers_due(&self) -> Option<Timestamp> {
        self.moving.values().filter(|moving| moving.ended.is_none()).map(|moving| moving.deadline).min()
    }

    fn tell_transfer(&mut self, id: TransferId, refusal: Refusal) {
        self.send(ToHub::TransferNews(TransferNews { id, end: Err(refusal) }));
    }
}
