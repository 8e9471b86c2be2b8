//! What hub and node say to each other on the control stream, after it was parsed at the door.
//! `cortex_wire::convert` makes these from protobuf and back.

use bytes::Bytes;

use crate::error::Refusal;
use crate::files::answer::FileAnswer;
use crate::files::ask::{FileAsk, FileReport};
use crate::id::{Attempt, ConsentId, Epoch, Generation, OpId, Revision, RunId, TaskId, TransferId, WatchId};
use crate::node::{AuditHead, Facts};
use crate::outbox::Lane;
use crate::policy::Policy;
use crate::run::{Ended, Run, RunSpec};
use crate::sandbox::Level;
use crate::stream::{Positions, Stream};
use crate::transfer::{TransferAsk, TransferNews};
use crate::watch::{WatchAsk, WatchNews};

/// From node to hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToHub {
    /// First on every link.
    Hello(Box<Hello>),
    /// A sign of life; answered.
    Heartbeat {
        /// Counts up; comes back in the answer.
        seq: u64,
    },
    /// The process of a run is there.
    Started {
        /// Which run.
        run: RunId,
        /// The level of the sandbox around it.
        level: Level,
    },
    /// Output.
    Output(Frame),
    /// The run ended, and all its output was sent before this.
    Ended {
        /// Which run.
        run: RunId,
        /// How.
        ended: Ended,
    },
    /// The node cannot give the output from there: it is gone. An explicit mark, never silence.
    OutputLost {
        /// Which run.
        run: RunId,
        /// The first position that can still be given.
        first_kept: Positions,
    },
    /// Standard input was taken over by the process up to here.
    InputTaken {
        /// Which run.
        run: RunId,
        /// Bytes in all.
        upto: u64,
    },
    /// A frame was refused; nothing was done. The code is `stale_epoch` or `invalid_argument`.
    Refused {
        /// The run that the frame named, when it named one.
        run: Option<RunId>,
        /// Why.
        refusal: Refusal,
    },
    /// Asks for a fresh certificate over the live link.
    Renew {
        /// A certificate request (DER) made with the node's own key.
        csr: Bytes,
    },
    /// Answers an operation on files, once, when it is over. The end of one that changes files was
    /// journaled before.
    FileAnswered {
        /// Which operation.
        op: OpId,
        /// What came of it.
        answer: Result<FileAnswer, Refusal>,
    },
    /// Says of a transfer that there is no stream for it.
    TransferNews(TransferNews),
    /// Tells of a folder that is watched.
    WatchNews(WatchNews),
}

/// Introduces a node on a new link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The protocol version that it speaks.
    pub protocol: u32,
    /// Random, chosen at the start of the node's process: tells a reconnect from a second process
    /// with the same identity (ABUSE 13).
    pub instance: u64,
    /// Counts the attempts of that process to attach, from 1: tells a Hello that was late from a newer
    /// one. 0 from a node that does not count them.
    pub dial: u64,
    /// The highest generation that it has seen.
    pub generation: Generation,
    /// The highest epoch that it has seen.
    pub epoch: Epoch,
    /// What it says of itself.
    pub facts: Facts,
    /// Its owner's ceiling on what the hub may ask, as text; `None` when there is none.
    pub ceiling: Option<String>,
    /// The newest head of the audit log that it was told of.
    pub audit_head: Option<AuditHead>,
    /// Runs that it holds: live ones, and ended ones that the hub has not settled.
    pub runs: Vec<RunReport>,
    /// Operations that change files which it has taken on and the hub has not settled, all of them, at
    /// most [`crate::limits::FILE_OPS_OPEN_PER_NODE_MAX`]: one that is missing here was never taken on.
    pub files: Vec<FileReport>,
}

/// One run that a node holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunReport {
    /// Which.
    pub run: RunId,
    /// The level of the sandbox around its process, once that was started.
    pub started: Option<Level>,
    /// How it ended, if it has.
    pub ended: Option<Ended>,
    /// First output position that is still kept.
    pub kept_from: u64,
    /// Output position after the last byte so far.
    pub end: u64,
}

/// A piece of output; all of it of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Which run.
    pub run: RunId,
    /// Which stream.
    pub stream: Stream,
    /// Position of its first byte in the common order of both streams.
    pub position: u64,
    /// Offset of its first byte in its own stream.
    pub offset: u64,
    /// The bytes; 1 to `FRAME_BYTES_MAX`.
    pub data: Bytes,
}

/// From hub to node. Every one travels with the epoch of its link ([`Envelope`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToNode {
    /// Answers Hello.
    Welcome(Welcome),
    /// Answers a heartbeat.
    HeartbeatAck {
        /// The heartbeat's number.
        seq: u64,
    },
    /// Run this, once per id, however often it comes.
    Start(Start),
    /// Standard input.
    Input {
        /// Which run.
        run: RunId,
        /// Offset of the first byte.
        offset: u64,
        /// The bytes.
        data: Bytes,
        /// Whether nothing follows.
        eof: bool,
    },
    /// End this run: TERM, the grace, KILL.
    Cancel {
        /// Which run.
        run: RunId,
        /// Time between TERM and KILL, milliseconds.
        grace_ms: u64,
    },
    /// End this run at once: KILL, and what of its output was not sent is given up, so that its end
    /// is told at once. A lock waits for nothing.
    Cut {
        /// Which run.
        run: RunId,
    },
    /// Go on with the output of this run from here: the hub has all before it.
    Resume {
        /// Which run.
        run: RunId,
        /// The first position that the hub lacks.
        from: u64,
        /// Up to which position the node may send.
        granted: u64,
    },
    /// More output may be sent, and what the hub keeps for good may be forgotten.
    Credit {
        /// Which run.
        run: RunId,
        /// Up to which position the node may send.
        granted: u64,
        /// All before this survives a loss of power at the hub.
        durable: u64,
    },
    /// The end of this run is durable at the hub: forget it, but for its id.
    Settled {
        /// Which run.
        run: RunId,
    },
    /// The hub does not know this run, or has given it up: end its process and forget it.
    Forget {
        /// Which run.
        run: RunId,
    },
    /// The policy from here on.
    Policy(SignedPolicy),
    /// The fresh certificate that was asked for.
    Certificate {
        /// The chain (DER), the node's own first.
        chain: Vec<Bytes>,
    },
    /// Do this, once per id when it changes files, however often it comes.
    FileAsk(Box<FileAsk>),
    /// Nobody waits for this operation any more, or a lock ends it: end it at once. One that changes files
    /// and is past the point of return is answered as what it is, done.
    FileCancel {
        /// Which operation.
        op: OpId,
    },
    /// The end of this operation is durable at the hub: forget it, but for its id.
    FileSettled {
        /// Which operation.
        op: OpId,
    },
    /// The task is in this attempt: refuse what lower ones ask for, and end what they still do.
    AttemptFence {
        /// Which task.
        task: TaskId,
        /// Its attempt.
        attempt: Attempt,
    },
    /// Do this, on a stream that the node opens with the ticket.
    TransferAsk(Box<TransferAsk>),
    /// Nobody wants this transfer any more: end it at once. What was put stays.
    TransferCancel {
        /// Which transfer.
        id: TransferId,
    },
    /// Tell when something in this folder changes, until the link ends.
    Watch(Box<WatchAsk>),
    /// It is to be told no more. One that is not watched stays so.
    Unwatch {
        /// Which watch.
        id: WatchId,
    },
    /// The hub ends this link.
    Goodbye {
        /// Why.
        refusal: Refusal,
        /// How long to wait before dialling again, milliseconds; `None`: do not come back.
        retry_after_ms: Option<u64>,
    },
}

impl ToNode {
    /// Which lane it takes. A command goes with the control messages, of which there are few per
    /// run: its cancel must not overtake it. Operations on files are many, and their cancels go with them;
    /// a fence may overtake what it refuses, and never comes after what follows it.
    pub const fn lane(&self) -> Lane {
        match self {
            Self::Input { .. }
            | Self::FileAsk(_)
            | Self::FileCancel { .. }
            | Self::TransferAsk(_)
            | Self::TransferCancel { .. } => Lane::Interactive,
            Self::Welcome(_)
            | Self::HeartbeatAck { .. }
            | Self::Start(_)
            | Self::Cancel { .. }
            | Self::Cut { .. }
            | Self::Resume { .. }
            | Self::Credit { .. }
            | Self::Settled { .. }
            | Self::Forget { .. }
            | Self::Policy(_)
            | Self::Certificate { .. }
            | Self::FileSettled { .. }
            | Self::AttemptFence { .. }
            | Self::Watch(_)
            | Self::Unwatch { .. }
            | Self::Goodbye { .. } => Lane::Control,
        }
    }

    /// The run that it is about, when it is about one.
    pub const fn run(&self) -> Option<RunId> {
        match self {
            Self::Start(start) => Some(start.run),
            Self::Input { run, .. }
            | Self::Cancel { run, .. }
            | Self::Cut { run }
            | Self::Resume { run, .. }
            | Self::Credit { run, .. }
            | Self::Settled { run }
            | Self::Forget { run } => Some(*run),
            Self::Welcome(_)
            | Self::HeartbeatAck { .. }
            | Self::Policy(_)
            | Self::Certificate { .. }
            | Self::FileAsk(_)
            | Self::FileCancel { .. }
            | Self::FileSettled { .. }
            | Self::AttemptFence { .. }
            | Self::TransferAsk(_)
            | Self::TransferCancel { .. }
            | Self::Watch(_)
            | Self::Unwatch { .. }
            | Self::Goodbye { .. } => None,
        }
    }
}

/// Opens the conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The store's generation.
    pub generation: Generation,
    /// The node's name in the hub's record.
    pub name: String,
    /// The policy that holds.
    pub policy: SignedPolicy,
    /// The head of the audit log, to be kept and shown at the next attach.
    pub audit_head: Option<AuditHead>,
}

/// A policy as it travels and is kept: the bytes that the hub's authority signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignedPolicy {
    /// What they say; only from somebody who has verified them. `None` allows nothing.
    pub policy: Option<Box<Policy>>,
    /// The bytes, verbatim (`cortex_wire::policy`).
    pub document: Bytes,
    /// The signature over them.
    pub signature: Bytes,
}

impl From<Policy> for SignedPolicy {
    /// A policy between machines that sign nothing: those of a simulation.
    fn from(policy: Policy) -> Self {
        Self { policy: Some(Box::new(policy)), ..Self::default() }
    }
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The run, and the command id.
    pub run: RunId,
    /// What.
    pub spec: RunSpec,
    /// Who asked, for the node's own log.
    pub caller: String,
    /// The policy revision by which the hub allowed it.
    pub policy_revision: Revision,
    /// W3C traceparent.
    pub traceparent: Option<String>,
    /// The question by which a person allowed it.
    pub consent: Option<ConsentId>,
    /// The task that it is an attempt of.
    pub task: Option<(TaskId, Attempt)>,
}

impl Start {
    /// The message that starts an accepted run.
    pub fn of(run: &Run) -> Self {
        Self {
            run: run.id,
            spec: run.spec.clone(),
            caller: run.caller.clone(),
            policy_revision: run.policy_revision,
            traceparent: run.traceparent.clone(),
            consent: run.consent,
            task: run.task,
        }
    }
}

/// A message with the epoch of the link that it was meant for (DESIGN §6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope<M> {
    /// The link's epoch. On Hello it is the highest that the node has seen.
    pub epoch: Epoch,
    /// The message.
    pub message: M,
}
