//! The part of the port on files: operations that change them, from their acceptance until some time after
//! their end. Reads are not kept.
//!
//! Never here: decisions (`cortex_core::files::entity::decide`), and how long an end is kept.

use cortex_core::files::entity::FileTask;
use cortex_core::id::{NodeId, OpId};
use cortex_core::time::WallTime;

use crate::{StoreError, WriteError};

/// Reading operations on files. Each method costs one query.
pub trait FilesRead {
    /// An operation by id.
    fn file_op(&self, id: OpId) -> Result<Option<FileTask>, StoreError>;
    /// The operation with this key of this caller on this node.
    fn file_op_by_key(&self, caller: &str, node: NodeId, key: &str) -> Result<Option<FileTask>, StoreError>;
    /// Operations that have no end, by node, the oldest of each first: what a restarted hub takes up again.
    /// Of each node there are at most [`cortex_core::limits::FILE_OPS_OPEN_PER_NODE_MAX`].
    fn open_file_ops(&self) -> Result<Vec<FileTask>, StoreError>;
    /// Operations of this node that have no end, oldest first, at most `limit`.
    fn open_file_ops_of(&self, node: NodeId, limit: usize) -> Result<Vec<FileTask>, StoreError>;
    /// Ended operations and when they ended, those that ended first in front, at most `limit`.
    fn ended_file_ops(&self, limit: usize) -> Result<Vec<(OpId, WallTime)>, StoreError>;
    /// How many operations have ended and are kept.
    fn ended_file_op_count(&self) -> Result<u64, StoreError>;
}

/// Writing operations on files, within one transaction.
pub trait FilesTx: FilesRead {
    /// Inserts or replaces an operation. A second one of the same caller, node and key is refused
    /// `Conflict`.
    fn put_file_op(&mut self, task: &FileTask) -> Result<(), WriteError>;
    /// Removes those of these operations that have ended, and returns how many went. One that is open, or
    /// not there, is left out.
    fn remove_file_ops(&mut self, ops: &[OpId]) -> Result<usize, StoreError>;
}
