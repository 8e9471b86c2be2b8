//! What hub and node say to each other about operations on files, beside their answers.

use std::fmt;

use super::entity::FileEnd;
use super::op::FileOp;
use crate::id::{Attempt, ConsentId, LockEpoch, OpId, Revision, TaskId, WorkspaceId};

/// An operation, as the hub gives it to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileAsk {
    /// The operation, and the command id: one that changes files happens at most once.
    pub id: OpId,
    /// What.
    pub op: FileOp,
    /// Who asked, for the node's own log.
    pub caller: String,
    /// The policy revision by which the hub allowed it.
    pub policy_revision: Revision,
    /// W3C traceparent.
    pub traceparent: Option<String>,
    /// The question by which a person allowed it.
    pub consent: Option<ConsentId>,
    /// The attempt of a task for which it is done.
    pub attempt: Option<(TaskId, Attempt)>,
    /// How long it may take, milliseconds from its arrival; at most [`crate::limits::FILE_OP_MS_MAX`].
    pub deadline_ms: u64,
    /// The lock of a workspace under which it is done.
    pub lock: Option<(WorkspaceId, LockEpoch)>,
    /// Leave for the stream on which its content, or its answer, travels.
    pub ticket: Option<Ticket>,
}

/// Leave to open one stream for content, once. Whoever holds it may: it is shown nowhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket([u8; 16]);

impl Ticket {
    /// Wraps sixteen random bytes.
    pub const fn new(random: [u8; 16]) -> Self {
        Self(random)
    }

    /// The sixteen bytes, as the wire has them.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Reads the sixteen bytes back; `None` when there are not exactly sixteen.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(…)")
    }
}

/// One operation that changes files which a node has taken on and the hub has not settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    /// Which.
    pub op: OpId,
    /// Its end; `None` when it is under way.
    pub end: Option<FileEnd>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_survives_its_bytes_and_is_not_shown() {
        let ticket = Ticket::new([7; 16]);
        assert_eq!(Ticket::from_slice(ticket.as_bytes()), Some(ticket));
        assert_eq!((Ticket::from_slice(&[7; 15]), Ticket::from_slice(&[7; 17])), (None, None));
        assert_eq!(format!("{ticket:?}"), "Ticket(…)");
    }
}
