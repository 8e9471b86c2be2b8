//! What people do with a task that was submitted: cancel, retry, change its priority.

use cortex_core::Refusal;
use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::id::TaskId;
use cortex_core::limits::KILL_GRACE_MS;
use cortex_core::pool::desk::{self, not_found};
use cortex_core::pool::{Holder, Priority, Task};
use cortex_core::rights::Right;
use cortex_core::time::WallTime;
use cortex_store::{PoolRead, Tx, WriteError};

use super::{Pool, is_own, may_have, sees};
use crate::board::Noted;
use crate::service::{Caller, anew};

impl Pool {
    /// Asks for a task's end. One that somebody works on ends when its worker has.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `conflict` when it has ended.
    pub async fn cancel(&self, caller: &Caller, id: TaskId) -> Result<Task, Refusal> {
        let by = caller.actor();
        let task = self
            .steer(caller, id, "task.cancel", None, move |table, now| desk::cancel(table, id, by, now))
            .await?;
        fail::fail_point!("hub::after_task_cancel");
        if let Some(Holder::Node { run, .. }) = task.lease.map(|lease| lease.holder)
            && let Some(live) = self.mesh.live(run)
        {
            self.mesh.cancel(&live, run, KILL_GRACE_MS);
        }
        Ok(task)
    }

    /// Has a task that came to nothing tried again from the start.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `conflict` when it is done or has not ended.
    pub async fn retry(&self, caller: &Caller, id: TaskId) -> Result<Task, Refusal> {
        let by = caller.actor();
        self.steer(caller, id, "task.retry", None, move |table, now| desk::retry(table, id, by, now)).await
    }

    /// Changes a task's priority.
    ///
    /// # Errors
    /// `not_found`, `forbidden`, `conflict` when it has ended.
    pub async fn bump(&self, caller: &Caller, id: TaskId, priority: Priority) -> Result<Task, Refusal> {
        may_have(caller, priority)?;
        let (by, detail) = (caller.actor(), format!("priority {priority}"));
        let bump = move |table: &mut Noted<'_>, now| desk::bump(table, id, by, priority, now);
        self.steer(caller, id, "task.bump", Some(detail), bump).await
    }

    /// One change of one task, with its audit row before it.
    async fn steer(
        &self,
        caller: &Caller,
        id: TaskId,
        action: &'static str,
        detail: Option<String>,
        change: impl FnOnce(&mut Noted<'_>, WallTime) -> Result<Task, WriteError> + Send + 'static,
    ) -> Result<Task, Refusal> {
        caller.anywhere(Right::TasksSubmit)?;
        let (now, board, caller) = (self.context.clock.wall(), self.board.clone(), caller.clone());
        let work = move |tx: &mut dyn Tx| {
            let caller = anew(tx, &caller, now)?;
            caller.anywhere(Right::TasksSubmit)?;
            let task = PoolRead::task(tx, id)?.filter(|task| sees(&caller, task));
            let task = task.ok_or_else(|| not_found(id))?;
            may_steer(&caller, &task)?;
            let words = detail.map_or_else(String::new, |detail| format!(", {detail}"));
            tx.append_audit(&AuditRow {
                detail: Some(format!("task {id}{words}")),
                token: Some(caller.token.id),
                ..AuditRow::new(now, caller.actor(), action, Outcome::Allowed)
            })?;
            change(&mut board.over(tx), now)
        };
        self.context.commit(work, |_| ()).await
    }
}

fn may_steer(caller: &Caller, task: &Task) -> Result<(), Refusal> {
    if is_own(caller, task) || caller.everywhere(Right::TasksControl) {
        return Ok(());
    }
    let message = format!("`{}` may look at task {} and not do this.", caller.actor(), task.id);
    let refusal = Refusal::new(cortex_core::Code::Forbidden, message);
    Err(refusal.detail("right", Right::TasksControl.as_str()))
}
