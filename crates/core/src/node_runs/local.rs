//! One run as the node holds it, from the moment it is taken on until the hub has settled it.

use bytes::Bytes;

use crate::message::Start;
use crate::run::{EndCause, Ended};
use crate::sandbox::{Level, Walls};
use crate::stream::{Positions, Sender};
use crate::time::Timestamp;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waits for its journal row.
    Journaling(Start),
    /// Its process is being started.
    Starting,
    /// Its process runs.
    Running,
    /// It ended; the hub has not settled it.
    Ended(Ended),
}

#[derive(Clone, Debug)]
pub(super) struct Local {
    pub(super) phase: Phase,
    pub(super) written: Positions,
    pub(super) output: Sender,
    /// The walls that it gets, until they are handed to the driver.
    pub(super) walls: Option<Box<Walls>>,
    /// The level of the sandbox around it.
    pub(super) level: Level,
    pub(super) started_told: bool,
    pub(super) end_told: bool,
    /// Whether the hub has said on this link where its output goes on: an end told before that
    /// would overtake what was sent on the old link and never arrived.
    pub(super) resumed: bool,
    /// When its time is over, whatever it is waiting for then.
    pub(super) deadline: Option<Timestamp>,
    /// When it is killed, once its end is wished. A start that hangs (a file system that does not
    /// answer) must end by the same wish as its process.
    pub(super) kill_at: Option<Timestamp>,
    pub(super) cause: Option<EndCause>,
    pub(super) input_upto: u64,
    pub(super) input_taken: u64,
    /// Input that came before the process was there.
    pub(super) input_early: Vec<(Bytes, bool)>,
    /// A lock ended it: its end does not wait for its output to be sent.
    pub(super) cut: bool,
    /// The hub gave the run up while its process lived: nothing of it is reported.
    pub(super) forgotten: bool,
    /// The hub sent it again after that: its end is reported, without output.
    pub(super) recalled: bool,
}

impl Local {
    pub(super) fn new(phase: Phase) -> Self {
        Self {
            phase,
            written: Positions::default(),
            output: Sender::default(),
            walls: None,
            level: Level::None,
            started_told: false,
            end_told: false,
            resumed: true,
            deadline: None,
            kill_at: None,
            cause: None,
            input_upto: 0,
            input_taken: 0,
            input_early: Vec::new(),
            cut: false,
            forgotten: false,
            recalled: false,
        }
    }

    pub(super) const fn is_live(&self) -> bool {
        match self.phase {
            Phase::Journaling(_) | Phase::Starting | Phase::Running => true,
            Phase::Ended(_) => false,
        }
    }
}

/// A run that ended in an earlier life of the node process: its output is gone.
pub(super) fn ended_before(ended: Ended) -> Local {
    Local::new(Phase::Ended(ended))
}
