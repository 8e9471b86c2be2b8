//! The port's part on files over a connection.

use cortex_core::files::entity::FileTask;
use cortex_core::id::{NodeId, OpId};
use cortex_core::time::WallTime;

use super::super::rows::files;
use super::{Logs, View};
use crate::{FilesRead, FilesTx, StoreError, WriteError};

impl<L> FilesRead for View<'_, L> {
    fn file_op(&self, id: OpId) -> Result<Option<FileTask>, StoreError> {
        files::get(self.conn, id)
    }

    fn file_op_by_key(&self, caller: &str, node: NodeId, key: &str) -> Result<Option<FileTask>, StoreError> {
        files::by_key(self.conn, caller, node, key)
    }

    fn open_file_ops(&self) -> Result<Vec<FileTask>, StoreError> {
        files::open(self.conn)
    }

    fn open_file_ops_of(&self, node: NodeId, limit: usize) -> Result<Vec<FileTask>, StoreError> {
        files::open_of(self.conn, node, limit)
    }

    fn ended_file_ops(&self, limit: usize) -> Result<Vec<(OpId, WallTime)>, StoreError> {
        files::ended(self.conn, limit)
    }

    fn ended_file_op_count(&self) -> Result<u64, StoreError> {
        files::ended_count(self.conn)
    }
}

impl FilesTx for View<'_, Logs<'_>> {
    fn put_file_op(&mut self, task: &FileTask) -> Result<(), WriteError> {
        files::put(self.conn, task)
    }

    fn remove_file_ops(&mut self, ops: &[OpId]) -> Result<usize, StoreError> {
        files::remove(self.conn, ops)
    }
}
