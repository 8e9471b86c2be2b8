//! Tasks that are worked on, as they were written: their next change, which is often soon, needs no
//! look-up. Only a memory: what is not here is read.

use std::collections::BTreeMap;

use cortex_core::id::TaskId;
use cortex_core::pool::{Task, TaskState, Work};

use super::super::rows::tasks::Place;

/// Tasks that are kept at most; beyond, those with the lowest ids go.
const TASKS_MAX: usize = 1_024;
/// Bytes of what a task carries, beyond which it is not kept.
const TASK_BYTES_MAX: usize = 4 * 1_024;

/// See the module.
#[derive(Default)]
pub(super) struct Held(BTreeMap<TaskId, (Task, Place)>);

impl Held {
    pub(super) fn get(&self, id: TaskId) -> Option<&(Task, Place)> {
        self.0.get(&id)
    }

    /// A task was written.
    pub(super) fn written(&mut self, task: &Task, place: Place) {
        if task.state != TaskState::Leased || bytes(task) > TASK_BYTES_MAX {
            self.forget(task.id);
            return;
        }
        self.0.insert(task.id, (task.clone(), place));
        if self.0.len() > TASKS_MAX {
            self.0.pop_first();
        }
    }

    pub(super) fn forget(&mut self, id: TaskId) {
        self.0.remove(&id);
    }
}

/// Roughly what a task takes beyond its own size.
fn bytes(task: &Task) -> usize {
    let work = match &task.spec.work {
        Work::Command(run) => {
            let env = run.env.iter().map(|(name, value)| name.len() + value.len());
            run.argv.iter().map(String::len).sum::<usize>() + env.sum::<usize>()
        }
        Work::Payload { bytes, .. } => bytes.len(),
    };
    work + task.result.as_ref().map_or(0, |result| result.output.len())
}
