//! What use cases ask of the mesh: room for a run, its start, its cancel, its input.

use std::sync::Arc;

use bytes::Bytes;
use cortex_core::hub_runs::Decision;
use cortex_core::id::{NodeId, RunId};
use cortex_core::limits::RUNS_OPEN_PER_NODE_MAX;
use cortex_core::message::Start;
use cortex_core::run::{Command, Run};
use cortex_core::{Code, Refusal};

use super::slot::{SlotState, Wish};
use super::{Inner, Live, Mesh, lock};

/// Room for one run on a node, until it is used or dropped.
pub(crate) struct Reserved {
    mesh: Arc<Inner>,
    node: NodeId,
}

impl Mesh {
    /// Keeps room for a run while it is accepted.
    ///
    /// # Errors
    /// `quota`.
    pub(crate) fn reserve(&self, node: NodeId) -> Result<Reserved, Refusal> {
        self.inner.with_slot(node, |slot, state| {
            let admitted = state.runs.admit().and_then(|()| {
                if state.runs.len() + state.reserved < RUNS_OPEN_PER_NODE_MAX {
                    return Ok(());
                }
                Err(Refusal::new(
                    Code::Quota,
                    format!(
                        "The node has {RUNS_OPEN_PER_NODE_MAX} open runs, which is the most it may have."
                    ),
                )
                .hint("Wait for one to end, or end one with `cortex run cancel`."))
            });
            match admitted {
                Ok(()) => {
                    state.reserved += 1;
                    Ok(Reserved { mesh: Arc::clone(&self.inner), node })
                }
                Err(refusal) => {
                    self.inner.act(slot, state);
                    Err(refusal)
                }
            }
        })
    }

    /// Makes a run visible to those who ask for it, before it is committed: its event may reach
    /// somebody before the commit is answered.
    pub(crate) fn prepare(&self, run: Run) {
        let log = self.inner.logs.create(run.id, self.inner.sink());
        self.inner.insert_live(run, log);
    }

    /// Takes back [`Self::prepare`].
    pub(crate) fn withdraw(&self, run: RunId) {
        lock(&self.inner.runs).remove(&run);
    }

    /// A prepared run was accepted durably: it goes to its node.
    pub(crate) fn submit(&self, run: &Run, room: Reserved) {
        fail::fail_point!("hub::before_send_start");
        let Some(live) = self.live(run.id) else { return };
        let now = self.inner.context.clock.now();
        let start = Start::of(run);
        self.inner.with_slot(run.node, |slot, state| {
            let wish = lock(&live.wish).take();
            state.live.insert(run.id, live);
            state.runs.submit(start, now);
            match wish {
                Some(Wish::Cancel(grace_ms)) => state.runs.cancel(run.id, grace_ms),
                Some(Wish::Cut) => state.runs.cut(run.id),
                None => {}
            }
            self.inner.act(slot, state);
        });
        drop(room);
    }

    /// Asks a node for the end of a run: at once, or as soon as the run is handed to it.
    pub(crate) fn cancel(&self, live: &Live, run: RunId, grace_ms: u64) {
        self.inner.with_slot(live.node, |slot, state| {
            end(live, state, run, grace_ms);
            self.inner.act(slot, state);
        });
    }

    /// Ends all open runs that `matches` holds for, without a grace, in the name of `by`: a
    /// tightened policy. Their nodes are asked at once, and those that are away when they come back.
    /// Returns how many there were. Does not block.
    pub(crate) fn end_runs(&self, matches: impl Fn(&Run) -> bool, by: &str) -> usize {
        let live: Vec<Arc<Live>> = lock(&self.inner.runs).values().cloned().collect();
        let mut count = 0;
        for live in live {
            let run = Arc::clone(&live.progress.borrow().run);
            if !matches(&run) {
                continue;
            }
            count += 1;
            self.inner.with_slot(live.node, |slot, state| {
                // Before the node is asked: who ended it is stored before its end, however fast that comes.
                let cancel = Command::Cancel { by: by.to_owned() };
                state.decisions.push(Decision::Run(run.id, cancel));
                end(&live, state, run.id, 0);
                self.inner.act(slot, state);
            });
        }
        count
    }

    /// Ends all open runs that `matches` holds for as a lock does: by KILL, and without waiting for
    /// output that has not arrived. Otherwise as [`Self::end_runs`].
    pub(crate) fn cut_runs(&self, matches: impl Fn(&Run) -> bool, by: &str) -> usize {
        let open: Vec<Arc<Live>> = lock(&self.inner.runs).values().cloned().collect();
        let run_of = |live: &Arc<Live>| Arc::clone(&live.progress.borrow().run);
        let held = open.into_iter().map(|live| (run_of(&live), live)).filter(|(run, _)| matches(run));
        held.map(|(run, live)| self.cut_run(&live, run.id, by)).count()
    }

    fn cut_run(&self, live: &Live, run: RunId, by: &str) {
        self.inner.with_slot(live.node, |slot, state| {
            if state.live.contains_key(&run) {
                state.runs.cut(run);
            } else {
                *lock(&live.wish) = Some(Wish::Cut);
            }
            state.decisions.push(Decision::Run(run, Command::Cancel { by: by.to_owned() }));
            self.inner.act(slot, state);
        });
    }

    /// Gives a run up: it is settled as lost, and its node is told to end it, now or when it is back.
    pub(crate) fn give_up(&self, node: NodeId, run: RunId, diagnostic: &str) {
        self.inner.drive(node, |runs| runs.give_up(run, diagnostic));
    }

    /// Sends standard input on.
    ///
    /// # Errors
    /// `not_found` for a run that has ended, `node_offline`, `quota` when too much is on its way.
    pub(crate) fn input(
        &self,
        live: &Live,
        run: RunId,
        offset: u64,
        data: Bytes,
        eof: bool,
    ) -> Result<(), Refusal> {
        self.inner.with_slot(live.node, |slot, state| {
            state.input_refused = false;
            let sent = state.runs.input(run, offset, data, eof);
            self.inner.act(slot, state);
            sent?;
            if state.input_refused {
                return Err(Refusal::new(Code::Quota, "Too much standard input waits for this node."));
            }
            Ok(())
        })
    }
}

/// The node is to end this run, or will be when it is handed to it.
fn end(live: &Live, state: &mut SlotState, run: RunId, grace_ms: u64) {
    if state.live.contains_key(&run) {
        state.runs.cancel(run, grace_ms);
        return;
    }
    let mut wish = lock(&live.wish);
    if *wish != Some(Wish::Cut) {
        *wish = Some(Wish::Cancel(grace_ms));
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.mesh.with_slot(self.node, |slot, state| {
            state.reserved = state.reserved.saturating_sub(1);
            self.mesh.act(slot, state);
        });
    }
}
