//! One run as the hub holds it, from its acceptance until its end is durable.

use crate::message::{Start, ToNode};
use crate::stream::{Positions, Receiver};

#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) start: Start,
    pub(super) started: bool,
    pub(super) receiver: Receiver,
    pub(super) cancel: Option<u64>,
    /// Its end is to be waited for by nobody: a lock holds on it.
    pub(super) cut: bool,
    /// The decision of its end was handed out, and the commit is awaited: how far its output had
    /// arrived then. The log must be durable up to there.
    pub(super) ending: Option<u64>,
    /// How much standard input its process has taken, as far as told.
    pub(super) input_taken: u64,
    /// Its end is committed.
    pub(super) committed: bool,
    /// The node is to be told to forget it, not that it was settled.
    pub(super) lost: bool,
}

impl Open {
    /// What the node is to be told, when the end of the run is wished.
    pub(super) fn wish(&self) -> Option<ToNode> {
        let run = self.start.run;
        if self.cut {
            return Some(ToNode::Cut { run });
        }
        self.cancel.map(|grace_ms| ToNode::Cancel { run, grace_ms })
    }

    pub(super) const fn new(start: Start, kept: Positions) -> Self {
        Self {
            start,
            started: false,
            receiver: Receiver::new(kept),
            cancel: None,
            cut: false,
            ending: None,
            input_taken: 0,
            committed: false,
            lost: false,
        }
    }
}
