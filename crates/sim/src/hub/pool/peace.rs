//! What of the pool has not come to rest when all had time to.

use cortex_core::id::{NodeId, TaskId};
use cortex_core::lock::Locks;
use cortex_core::pool::explain::{Facts, NodeFacts, Reason, explain};
use cortex_core::pool::{Kind, Task, TaskState};
use cortex_core::time::WallTime;
use cortex_store::{Read, TaskFilter};

use super::Place;
use crate::hub::Hub;

impl Hub {
    /// Sentences about what has not come to rest, when all had time to: a task may wait only for what
    /// `explain` names, and that is not somebody who is busy.
    pub(crate) fn restless_tasks(&self, kinds: &[Kind], now: WallTime) -> Vec<String> {
        let mut restless = Vec::new();
        if self.pool.board.entries() > 0 {
            restless.push(format!(
                "I8: the pool still has {} leases and slots in use",
                self.pool.board.entries()
            ));
        }
        let locks = self.locks();
        let read = self.store.read_now(|view| {
            let all = view.tasks(&TaskFilter::default(), usize::MAX)?;
            let open = all.into_iter().filter(|task| !task.state.is_final());
            open.map(|task| Ok((self.facts(view, &task, (kinds, &locks), now)?, task)))
                .collect::<Result<Vec<_>, _>>()
        });
        for (facts, task) in read.unwrap_or_default() {
            let reasons = explain(&task, &facts);
            if !reasons.iter().any(|reason| is_good(reason, now)) {
                let state = task.state.as_str();
                let lane = task.lane();
                restless.push(format!("I8: task {} is still {state}: {reasons:?} in {lane:?}", task.id));
            }
        }
        restless
    }

    fn facts(
        &self,
        view: &dyn Read,
        task: &Task,
        (kinds, locks): (&[Kind], &Locks),
        now: WallTime,
    ) -> Result<Facts, cortex_store::StoreError> {
        let is_shut_out = |id: NodeId| Ok(view.node(id)?.is_none_or(|node| node.quarantined));
        let shut_out: Vec<bool> =
            self.ids.iter().map(|id| is_shut_out(*id)).collect::<Result<_, cortex_store::StoreError>>()?;
        let node = |(index, place): (usize, &Place)| NodeFacts {
            name: format!("node-{index}"),
            labels: place.labels.clone(),
            is_online: self.registry.get(self.ids[index]).is_some() && !shut_out[index],
            owner_may: true,
            slots: place.slots,
            busy: u32::try_from(self.pool.board.busy(self.ids[index])).unwrap_or(u32::MAX),
            paused_by: None,
            denied_by: task.excluded.contains(&self.ids[index]).then(|| "policy".to_owned()),
        };
        let dependency = |id: &TaskId| Ok(view.task(*id)?.map(|task| (*id, task.state)));
        let dependencies: Vec<_> =
            task.spec.after.iter().map(dependency).collect::<Result<Vec<_>, cortex_store::StoreError>>()?;
        let not_done = dependencies.into_iter().flatten().filter(|(_, state)| *state != TaskState::Done);
        let stopped = task.owner.token.filter(|token| locks.on_caller(*token, None, now).is_some());
        Ok(Facts {
            now,
            nodes: self.places.iter().enumerate().map(node).collect(),
            dependencies: not_done.collect(),
            working: task.spec.concurrency.as_ref().map_or(Ok(0), |key| view.working(&key.key))?,
            owner_stopped: stopped.map(|_| "locked".to_owned()),
            workers: u32::from(kinds.contains(&task.spec.work.kind())),
            ..Facts::default()
        })
    }
}

/// Whether a task may still wait for that after everything had its time.
fn is_good(reason: &Reason, now: WallTime) -> bool {
    match reason {
        Reason::ScheduledFor(at) | Reason::AfterFailure { at, .. } => *at > now,
        Reason::Dependency(_, state) => *state != TaskState::Done,
        Reason::OwnerStopped(_)
        | Reason::NoNodeWith { .. }
        | Reason::Offline(_)
        | Reason::Denied(_)
        | Reason::NoSlots(_)
        | Reason::NoWorker(_) => true,
        Reason::NotWaiting(_)
        | Reason::KeyFull { .. }
        | Reason::Paused(_)
        | Reason::OwnerMayNot(_)
        | Reason::NodePaused(_)
        | Reason::Busy(_)
        | Reason::Next => false,
    }
}
