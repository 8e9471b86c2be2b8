//! Parts of the pool that stand still: a node, the nodes with a label, the tasks of a kind. Nothing new is
//! handed out there. A part that is drained gives back what is worked on there once its time is over; it
//! is no fault of the tasks, and counts as no try.

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::event::{Event, EventKind};
use cortex_core::limits::{PAUSES_MAX, TASK_TEXT_BYTES_MAX};
use cortex_core::pool::pause::{Part, Pause};
use cortex_core::pool::{Holder, Lost, Task, desk};
use cortex_core::rights::Right;
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use cortex_store::{Tx, WriteError};

use super::Pool;
use crate::service::{Caller, anew, targets};

impl Pool {
    /// Lets a part stand still. `drain_ms`: what is worked on there is given back after that time; without
    /// it, that ends in its own time. Pausing it again replaces what was said before. Needs `pool:admin`.
    ///
    /// # Errors
    /// `forbidden`, `node_not_found`, `too_large`, `quota`.
    pub async fn pause(
        &self,
        caller: &Caller,
        part: Part,
        message: Option<String>,
        drain_ms: Option<u64>,
    ) -> Result<Pause, Refusal> {
        self.may_pause(caller, &part)?;
        if message.as_ref().is_some_and(|text| text.len() > TASK_TEXT_BYTES_MAX) {
            let message = format!("The message has more than {TASK_TEXT_BYTES_MAX} bytes.");
            return Err(Refusal::new(Code::TooLarge, message));
        }
        let now = self.context.clock.wall();
        let drained_at = drain_ms.map(|ms| now.plus_ms(ms));
        let pause = Pause { part, by: caller.actor(), since: now, message, drained_at };
        let (caller, put) = (caller.clone(), pause.clone());
        let work = move |tx: &mut dyn Tx| {
            let caller = anew(tx, &caller, now)?;
            administrates(&caller)?;
            let held = tx.pauses()?;
            if held.len() >= PAUSES_MAX && held.iter().all(|other| other.part != put.part) {
                let message = format!("At most {PAUSES_MAX} parts of the pool may stand still at once.");
                return Err(Refusal::new(Code::Quota, message)
                    .hint("Let some go on with `cortex task resume`.")
                    .into());
            }
            let what = if put.drained_at.is_some() { "drained" } else { "paused" };
            record(tx, &caller, "pool.pause", &put.part, what, now)?;
            Ok(tx.put_pause(&put)?)
        };
        let (board, held) = (self.board.clone(), pause.clone());
        self.context.commit(work, move |()| board.put_pause(held)).await?;
        Ok(pause)
    }

    /// Lets a part go on. One that does not stand still stays as it is. Needs `pool:admin`.
    ///
    /// # Errors
    /// `forbidden`, `node_not_found`.
    pub async fn resume(&self, caller: &Caller, part: Part) -> Result<bool, Refusal> {
        self.may_pause(caller, &part)?;
        let now = self.context.clock.wall();
        let (caller, removed) = (caller.clone(), part.clone());
        let work = move |tx: &mut dyn Tx| {
            let caller = anew(tx, &caller, now)?;
            administrates(&caller)?;
            if !tx.remove_pause(&removed)? {
                return Ok(false);
            }
            record(tx, &caller, "pool.resume", &removed, "resumed", now)?;
            Ok(true)
        };
        let board = self.board.clone();
        self.context.commit(work, move |_| board.remove_pause(&part)).await
    }

    /// A part as people write it: a node by its name or id.
    ///
    /// # Errors
    /// `invalid_argument`, `node_not_found`.
    pub fn part(&self, caller: &Caller, text: &str) -> Result<Part, Refusal> {
        match text.split_once(':') {
            Some(("node", named)) => {
                targets::find(&self.context.directory, caller, named).map(|node| Part::Node(node.id))
            }
            _ => Part::parse(text),
        }
    }

    /// All parts that stand still and that the caller may know of.
    pub fn pauses(&self, caller: &Caller) -> Vec<Pause> {
        let sees = |pause: &Pause| match &pause.part {
            Part::Node(node) => targets::has(&self.context.directory, caller, Right::NodesRead, *node),
            Part::Label(..) | Part::Kind(_) => true,
        };
        self.board.pauses().into_iter().filter(sees).collect()
    }

    fn may_pause(&self, caller: &Caller, part: &Part) -> Result<(), Refusal> {
        administrates(caller)?;
        if let Part::Node(node) = part {
            targets::find(&self.context.directory, caller, &node.to_string())?;
        }
        Ok(())
    }

    /// Gives back what is worked on where the time for that is over.
    pub(super) async fn drain_due(&self) -> Result<(), Refusal> {
        let now = self.context.clock.wall();
        for part in self.board.to_drain(now) {
            let directory = self.context.directory.clone();
            let (held, board) = (part.clone(), self.board.clone());
            let is_held = move |task: &Task| match task.lease.map(|lease| lease.holder) {
                Some(Holder::Node { node, .. }) => {
                    let labels = directory.node(node).map(|node| node.labels.clone()).unwrap_or_default();
                    held.holds_node(node, &labels) || held.holds_lane(&task.lane())
                }
                Some(Holder::Worker { .. }) => held.holds_lane(&task.lane()),
                None => false,
            };
            let work = move |tx: &mut dyn Tx| {
                let mut given_back = Vec::new();
                for task in tx.leased_tasks()?.into_iter().filter(|task| is_held(task)) {
                    desk::lose(&mut board.over(tx), task.id, task.attempt, Lost::Drained, now)?;
                    given_back.extend(task.lease.map(|lease| lease.holder));
                }
                Ok(given_back)
            };
            for holder in self.context.commit(work, |_| ()).await? {
                if let Holder::Node { node, run } = holder {
                    self.mesh.give_up(
                        node,
                        run,
                        "Its part of the pool was drained; the task was given to others.",
                    );
                }
            }
            self.board.drained(&part);
        }
        Ok(())
    }
}

fn administrates(caller: &Caller) -> Result<(), Refusal> {
    if caller.everywhere(Right::PoolAdmin) {
        return Ok(());
    }
    let message = format!("`{}` may not pause the pool: it needs pool:admin on all nodes.", caller.actor());
    Err(Refusal::new(Code::Forbidden, message).detail("right", Right::PoolAdmin.as_str()))
}

fn record(
    tx: &mut dyn Tx,
    caller: &Caller,
    action: &str,
    part: &Part,
    what: &str,
    now: WallTime,
) -> Result<(), WriteError> {
    let node = match part {
        Part::Node(node) => Some(*node),
        Part::Label(..) | Part::Kind(_) => None,
    };
    tx.append_audit(&AuditRow {
        node,
        token: Some(caller.token.id),
        detail: Some(part.to_string()),
        ..AuditRow::new(now, caller.actor(), action, Outcome::Allowed)
    })?;
    let mut event = Event::new(EventKind::PoolPaused, now).subject(part.to_string()).detail(what);
    event.node = node;
    tx.append_event(&event.actor(caller.actor()))?;
    Ok(())
}
