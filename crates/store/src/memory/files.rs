//! Operations that change files, and their indices.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use cortex_core::files::entity::FileTask;
use cortex_core::id::{NodeId, OpId};
use cortex_core::time::WallTime;

use super::read::Held;
use super::state::{RunKey, State};
use super::tx::Writing;
use crate::{FilesRead, FilesTx, StoreError, WriteError, conflict};

/// Below and above every id, for ranges over one node.
const FIRST: OpId = OpId::new(uuid::Uuid::nil());
const LAST: OpId = OpId::new(uuid::Uuid::max());

/// The operations. Changed by [`FileOps::set`] alone, which keeps the indices right; undoing a change is
/// setting the old value again.
#[derive(Default)]
pub(super) struct FileOps {
    all: BTreeMap<OpId, FileTask>,
    keys: BTreeMap<RunKey, OpId>,
    open: BTreeSet<(NodeId, OpId)>,
    ended: BTreeSet<(WallTime, OpId)>,
}

impl FileOps {
    /// Sets or removes, and hands back what was there.
    pub(super) fn set(&mut self, id: OpId, task: Option<FileTask>) -> Option<FileTask> {
        let old = self.all.remove(&id);
        if let Some(old) = &old {
            key(old).map(|key| self.keys.remove(&key));
            self.open.remove(&(old.node, id));
            old.ended_at.map(|at| self.ended.remove(&(at, id)));
        }
        if let Some(task) = task {
            key(&task).map(|key| self.keys.insert(key, id));
            match task.ended_at {
                Some(at) => self.ended.insert((at, id)),
                None => self.open.insert((task.node, id)),
            };
            self.all.insert(id, task);
        }
        old
    }

    fn of<'s>(&'s self, ids: impl Iterator<Item = &'s OpId>) -> Vec<FileTask> {
        ids.filter_map(|id| self.all.get(id)).cloned().collect()
    }
}

fn key(task: &FileTask) -> Option<RunKey> {
    task.key.as_ref().map(|key| (task.caller.clone(), task.node, key.clone()))
}

impl<S: Deref<Target = State>, U> FilesRead for Held<S, U> {
    fn file_op(&self, id: OpId) -> Result<Option<FileTask>, StoreError> {
        Ok(self.state.file_ops.all.get(&id).cloned())
    }

    fn file_op_by_key(&self, caller: &str, node: NodeId, key: &str) -> Result<Option<FileTask>, StoreError> {
        let ops = &self.state.file_ops;
        let id = ops.keys.get(&(caller.to_owned(), node, key.to_owned()));
        Ok(id.and_then(|id| ops.all.get(id)).cloned())
    }

    fn open_file_ops(&self) -> Result<Vec<FileTask>, StoreError> {
        let ops = &self.state.file_ops;
        Ok(ops.of(ops.open.iter().map(|(_, id)| id)))
    }

    fn open_file_ops_of(&self, node: NodeId, limit: usize) -> Result<Vec<FileTask>, StoreError> {
        let ops = &self.state.file_ops;
        Ok(ops.of(ops.open.range((node, FIRST)..=(node, LAST)).take(limit).map(|(_, id)| id)))
    }

    fn ended_file_ops(&self, limit: usize) -> Result<Vec<(OpId, WallTime)>, StoreError> {
        Ok(self.state.file_ops.ended.iter().take(limit).map(|(at, id)| (*id, *at)).collect())
    }

    fn ended_file_op_count(&self) -> Result<u64, StoreError> {
        Ok(self.state.file_ops.ended.len() as u64)
    }
}

impl FilesTx for Writing<'_> {
    fn put_file_op(&mut self, task: &FileTask) -> Result<(), WriteError> {
        let holder = key(task).and_then(|key| self.state.file_ops.keys.get(&key).copied());
        if holder.is_some_and(|id| id != task.id) {
            return Err(conflict::file_op_key(task));
        }
        self.set_file_op(task.id, Some(task.clone()));
        Ok(())
    }

    fn remove_file_ops(&mut self, ops: &[OpId]) -> Result<usize, StoreError> {
        let mut gone = 0;
        for id in ops {
            if self.state.file_ops.all.get(id).is_some_and(|task| task.ended_at.is_some()) {
                self.set_file_op(*id, None);
                gone += 1;
            }
        }
        Ok(gone)
    }
}
