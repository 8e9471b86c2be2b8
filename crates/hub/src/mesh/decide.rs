//! Brings decisions to the store: one ordered queue per node, so that a start comes before its
//! end, and a task that lives while something waits. What fails is tried again in its order;
//! frames and heartbeats go on meanwhile.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cortex_core::hub_runs::Decision;
use cortex_core::id::{NodeId, RunId};
use cortex_core::run::{self, Command, Run};
use cortex_core::time::WallTime;
use cortex_store::{Tx, WriteError};

use super::slot::{Slot, SlotState};
use super::{Inner, Mesh, lock};
use crate::board::Board;
use crate::service::outcome::write_surely;
use crate::service::pool::{Pool, came_late, settle};

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
            let Some(runs) = self.commit(slot.node, &batch).await else { return };
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
    async fn commit(&self, node: NodeId, batch: &Arc<[Decision]>) -> Option<Vec<Arc<Run>>> {
        // What is to be stored in any case does not fail twice for a claim that comes with it.
        let ends = AtomicUsize::new(self.task_ends(batch));
        write_surely(&self.context.store, &self.stop, "what a node reported", || {
            let (work, now) = (Arc::clone(batch), self.context.clock.wall());
            let board = self.context.board.clone();
            let next = match ends.swap(0, Ordering::Relaxed) {
                0 => None,
                ends => self.pool().and_then(|pool| pool.next_for(node, ends)),
            };
            move |tx: &mut dyn Tx| {
                let (runs, ended) = apply_all(tx, &board, &work, now)?;
                if let Some(next) = next {
                    next.give(tx, ended)?;
                }
                Ok(runs)
            }
        })
        .await
    }

    /// Ends that the node reports of runs that are attempts of tasks.
    fn task_ends(&self, batch: &[Decision]) -> usize {
        let runs = lock(&self.runs);
        let is_tasks =
            |run: &RunId| runs.get(run).is_some_and(|live| live.progress.borrow().run.task.is_some());
        let is_end =
            |decision: &&Decision| matches!(decision, Decision::Run(run, Command::End(_)) if is_tasks(run));
        batch.iter().filter(is_end).count()
    }

    fn pool(&self) -> Option<Pool> {
        Some(Pool::new(self.context.clone(), Mesh { inner: self.me.upgrade()? }))
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

/// A run as a batch found it and has changed it so far.
struct Touched {
    run: Run,
    is_changed: bool,
}

/// Applies a batch in its order, and returns the runs that it was about as they are then, and how many tasks
/// it took from the node. Each run is read and written once: the start of a short command and its end come
/// together.
fn apply_all(
    tx: &mut dyn Tx,
    board: &Board,
    batch: &[Decision],
    now: WallTime,
) -> Result<(Vec<Arc<Run>>, usize), WriteError> {
    let mut ended = 0;
    let mut runs: BTreeMap<RunId, Touched> = BTreeMap::new();
    for decision in batch {
        match decision {
            Decision::Event(event) => {
                tx.append_event(event)?;
            }
            Decision::Run(id, command) => {
                let touched = match runs.entry(*id) {
                    Entry::Occupied(known) => known.into_mut(),
                    Entry::Vacant(new) => {
                        let Some(run) = tx.run(*id)? else { continue };
                        new.insert(Touched { run, is_changed: false })
                    }
                };
                ended += usize::from(apply(tx, board, touched, command.clone(), now)?);
            }
        }
    }
    let keep = |Touched { run, is_changed }| {
        if is_changed {
            tx.put_run(&run)?;
        }
        Ok(Arc::new(run))
    };
    Ok((runs.into_values().map(keep).collect::<Result<_, WriteError>>()?, ended))
}

/// Applies one decision, and says whether it ended a task's attempt. A refusal (the run was final already)
/// changes nothing and is no error.
fn apply(
    tx: &mut dyn Tx,
    board: &Board,
    touched: &mut Touched,
    command: Command,
    now: WallTime,
) -> Result<bool, WriteError> {
    let end = command.ended().cloned();
    let Ok((after, events)) = run::decide(&touched.run, command, now) else {
        if let Some(ended) = end {
            came_late(board, tx, &touched.run, &ended, now)?;
        }
        return Ok(false);
    };
    for event in &events {
        tx.append_event(event)?;
    }
    touched.is_changed |= after != touched.run;
    touched.run = after;
    settle(board, tx, &touched.run, now)
}
