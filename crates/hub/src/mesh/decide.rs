//! Brings decisions to the store: one ordered queue per node, so that a start comes before its
//! end, and a task that lives while something waits. What fails is tried again in its order;
//! frames and heartbeats go on meanwhile.

use std::sync::Arc;
use std::time::Duration;

use cortex_core::hub_runs::Decision;
use cortex_core::run::{self, Run};
use cortex_store::{Tx, WriteError};

use super::slot::{Slot, SlotState};
use super::{Inner, lock};
use crate::board::Board;
use crate::service::outcome::write_surely;
use crate::service::pool::{came_late, settle};

/// How long a decision that nobody waits for lets others join it: the start of a short command
/// and its end share one commit.
const COALESCE: Duration = Duration::from_millis(10);

impl Inner {
    pub(super) fn start_deciding(&self, slot: &Arc<Slot>, state: &mut SlotState) {
        if state.decisions.is_empty() {
            return;
        }
        if state.deciding {
            if state.decisions.is_urgent() {
                slot.urgent.notify_one();
            }
            return;
        }
        let Some(me) = self.me.upgrade() else { return };
        state.deciding = true;
        let slot = Arc::clone(slot);
        self.tasks.spawn(async move { me.decide_until_quiet(&slot).await });
    }

    async fn decide_until_quiet(&self, slot: &Arc<Slot>) {
        while let Some(urgent) = self.waiting(slot) {
            if !urgent {
                let _came = tokio::time::timeout(COALESCE, slot.urgent.notified()).await;
            }
            let batch: Arc<[Decision]> = slot.lock().decisions.take().into();
            self.wait_for_logs(&batch).await;
            fail::fail_point!("hub::before_settle");
            let Some(runs) = self.commit(&batch).await else { return };
            fail::fail_point!("hub::after_settle");
            self.tell(slot, &batch, runs);
        }
    }

    /// Whether one of the waiting decisions is urgent; `None` when nothing waits, and then the
    /// task is over.
    fn waiting(&self, slot: &Arc<Slot>) -> Option<bool> {
        let mut state = slot.lock();
        if state.decisions.is_empty() {
            state.deciding = false;
            self.act(slot, &mut state);
            return None;
        }
        Some(state.decisions.is_urgent())
    }

    /// A run's end is committed only after its output is in its file: a kill in between must not
    /// leave an ended run whose output nobody asks the node for.
    async fn wait_for_logs(&self, batch: &[Decision]) {
        for decision in batch {
            if let Decision::Run(run, _) = decision
                && decision.is_urgent()
            {
                let live = lock(&self.runs).get(run).cloned();
                if let Some(live) = live {
                    live.log.written().await;
                }
            }
        }
    }

    /// Commits the batch once, however long it takes. `None` when the hub stops first.
    async fn commit(&self, batch: &Arc<[Decision]>) -> Option<Vec<Arc<Run>>> {
        write_surely(&self.context.store, &self.stop, "what a node reported", || {
            let (work, now) = (Arc::clone(batch), self.context.clock.wall());
            let board = self.context.board.clone();
            move |tx: &mut dyn Tx| {
                work.iter()
                    .filter_map(|decision| apply(tx, &board, decision, now).transpose())
                    .collect::<Result<Vec<_>, _>>()
            }
        })
        .await
    }

    fn tell(&self, slot: &Arc<Slot>, batch: &[Decision], runs: Vec<Arc<Run>>) {
        let mut state = slot.lock();
        for run in runs {
            if let Some(live) = state.live.get(&run.id) {
                live.progress.send_modify(|progress| progress.run = run);
            }
        }
        for decision in batch {
            if let Some(run) = decision.ends() {
                state.runs.settled(run);
            }
        }
        self.act(slot, &mut state);
    }
}

/// Applies one decision. A refusal (the run was final already) changes nothing and is no error.
fn apply(
    tx: &mut dyn Tx,
    board: &Board,
    decision: &Decision,
    now: cortex_core::time::WallTime,
) -> Result<Option<Arc<Run>>, WriteError> {
    let (id, command) = match decision {
        Decision::Event(event) => {
            tx.append_event(event)?;
            return Ok(None);
        }
        Decision::Run(id, command) => (*id, command.clone()),
    };
    let Some(before) = tx.run(id)? else { return Ok(None) };
    let end = command.ended().cloned();
    let Ok((after, events)) = run::decide(&before, command, now) else {
        if let Some(ended) = end {
            came_late(board, tx, &before, &ended, now)?;
        }
        return Ok(Some(Arc::new(before)));
    };
    if after != before {
        tx.put_run(&after)?;
    }
    for event in &events {
        tx.append_event(event)?;
    }
    settle(board, tx, &after, now)?;
    Ok(Some(Arc::new(after)))
}
