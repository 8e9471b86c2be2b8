//! One run as the hub holds it, from its acceptance until its end is durable.

use crate::message::Start;
use crate::run::Command;
use crate::stream::{Positions, Receiver};
use crate::time::Timestamp;

#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) start: Start,
    pub(super) started: bool,
    pub(super) receiver: Receiver,
    pub(super) cancel: Option<u64>,
    /// The decision of its end was handed out; the commit is awaited.
    pub(super) ending: Option<Ending>,
    /// How much standard input its process has taken, as far as told.
    pub(super) input_taken: u64,
    /// Its end is committed.
    pub(super) committed: bool,
    /// The node is to be told to forget it, not that it was settled.
    pub(super) lost: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Ending {
    /// How far its output had arrived: the log must be durable up to here.
    pub(super) arrived: u64,
    /// To be handed out again should the store not take it.
    pub(super) command: Command,
    /// When that is, after a store that did not take it.
    pub(super) retry_at: Option<Timestamp>,
}

impl Open {
    pub(super) const fn new(start: Start, kept: Positions) -> Self {
        Self {
            start,
            started: false,
            receiver: Receiver::new(kept),
            cancel: None,
            ending: None,
            input_taken: 0,
            committed: false,
            lost: false,
        }
    }
}
