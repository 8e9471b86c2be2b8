//! Links that come and go, and what a restarted hub takes up again.

use std::collections::BTreeMap;

use super::open::{Open, Step};
use super::{Action, HubFiles, away};
use crate::error::{Code, Refusal};
use crate::files::ask::FileReport;
use crate::files::entity::{FileEnd, FileOutcome, unknown_outcome};
use crate::id::{Attempt, LinkId, OpId, TaskId};
use crate::limits;
use crate::message::ToNode;
use crate::time::Timestamp;

impl HubFiles {
    /// After a hub restart: a stored operation that has no end. It waits for its node, and nobody for it.
    pub fn restore(&mut self, op: OpId, attempt: Option<(TaskId, Attempt)>) {
        self.open.insert(op, Open::restored(attempt));
    }

    /// A link came up and Hello was answered with Welcome, with these reports. Whatever link was there is
    /// over. `is_same_store` is false when the store was restored from a backup since this node was here
    /// last ([`crate::message::Hello::generation`] is lower than its generation): the node may have let go
    /// what the store holds as open again, so that it is missing in the reports proves nothing.
    pub fn attached(&mut self, link: LinkId, reports: Vec<FileReport>, is_same_store: bool, now: Timestamp) {
        self.lose_reads();
        self.link = Some(link);
        self.grace_until = None;
        let mut reported: BTreeMap<OpId, Option<FileEnd>> =
            reports.into_iter().map(|report| (report.op, report.end)).collect();
        let open: Vec<OpId> = self.open.keys().copied().collect();
        for op in open {
            match reported.remove(&op) {
                Some(end) => self.take_up(op, end),
                None => self.not_reported(op, is_same_store, now),
            }
        }
        // What is over here, and the node did not hear it.
        for op in reported.into_keys() {
            self.actions.push_back(Action::Send(ToNode::FileSettled { op }));
        }
    }

    /// A link ended. Nothing happens when it is not the current one.
    pub fn detached(&mut self, link: LinkId, now: Timestamp) {
        if self.link != Some(link) {
            return;
        }
        self.link = None;
        self.lose_reads();
        let waits = self.open.values().any(|open| open.waits);
        self.grace_until = waits.then(|| now.plus_ms(limits::GRACE_MS));
    }

    /// The node is removed or shut out: its link counts no more, and nobody will hear what it did.
    pub fn abandon(&mut self, why: &str) {
        self.link = None;
        self.grace_until = None;
        self.lose_reads();
        let open: Vec<(OpId, bool)> = self.open.iter().map(|(op, open)| (*op, open.is_unsent())).collect();
        for (op, is_unsent) in open {
            let end = if is_unsent { away() } else { unknown_outcome(op, why) };
            self.ended(op, Err(end.clone()), Err(end));
        }
    }

    /// A read has no life beyond its link. The caller may ask again; nothing can happen twice by that.
    fn lose_reads(&mut self) {
        let reads = self.open.iter().filter(|(_, open)| open.reads);
        let reads: Vec<OpId> = reads.map(|(op, _)| *op).collect();
        reads.into_iter().for_each(|op| self.close(op, Err(away())));
    }

    /// The node has taken it on.
    fn take_up(&mut self, op: OpId, end: Option<FileEnd>) {
        if let Some(end) = end {
            let answer = end.clone().map(FileOutcome::answer);
            self.ended(op, end, answer);
            return;
        }
        let Some(open) = self.open.get(&op).filter(|open| matches!(open.step, Step::Sent)) else { return };
        let fence = open.attempt.zip(open.fence);
        let fence = fence.map(|((task, _), attempt)| ToNode::AttemptFence { task, attempt });
        let cancel = open.cancel.is_some().then_some(ToNode::FileCancel { op });
        self.actions.extend(fence.into_iter().chain(cancel).map(Action::Send));
    }

    /// The node has not taken it on, and what was sent on an older link does not come any more.
    fn not_reported(&mut self, op: OpId, is_same_store: bool, now: Timestamp) {
        let Some(open) = self.open.get_mut(&op) else { return };
        let left_ms = open.left_ms(now);
        match std::mem::replace(&mut open.step, Step::Sent) {
            Step::Unsent(mut ask) => {
                ask.deadline_ms = left_ms.min(ask.deadline_ms);
                self.actions.push_back(Action::Send(ToNode::FileAsk(ask)));
            }
            Step::Sent if is_same_store => {
                let message = "The node went away before this came to it; nothing was changed.";
                let refusal = Refusal::new(Code::NodeOffline, message).hint("Ask again; the node is back.");
                self.finish(op, Err(refusal));
            }
            Step::Sent => {
                let why = "the hub was set back to an older state, and the node does not know it any more";
                self.finish(op, Err(unknown_outcome(op, why)));
            }
            ending @ Step::Ending(_) => open.step = ending,
        }
    }
}
