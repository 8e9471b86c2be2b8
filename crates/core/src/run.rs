//! A run: one command on one node, kept (DESIGN §7). The decision over the stored entity.
//!
//! ```text
//! queued → running ⇄ disconnected → exited | failed | cancelled | timed_out | lost
//!        ↘ (the policy said no) denied
//! ```
//! A final state is final: a late report changes nothing.

use crate::error::{Code, Refusal};
use crate::event::{Event, EventKind};
use crate::id::{NodeId, Revision, RunId};
use crate::limits;
use crate::stream::Positions;
use crate::time::WallTime;

/// What to run, as the caller gave it and as it was checked by [`RunSpec::check`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunSpec {
    /// Program and arguments. No shell sees them.
    pub argv: Vec<String>,
    /// Working directory on the node; its home directory when not given.
    pub cwd: Option<String>,
    /// Variables to set beside the node's minimal environment.
    pub env: Vec<(String, String)>,
    /// Time after which the run is ended, milliseconds.
    pub timeout_ms: Option<u64>,
    /// Whether standard input will be sent; otherwise it is empty.
    pub stdin: bool,
}

impl RunSpec {
    /// Checks lengths, counts and bytes that no program could be given.
    pub fn check(&self) -> Result<(), Refusal> {
        let invalid = |message: &str| Err(Refusal::new(Code::InvalidArgument, message));
        let too_large = |what: &str, max: usize| {
            Err(Refusal::new(Code::TooLarge, format!("{what}; the bound is {max}.")))
        };
        let Some(program) = self.argv.first() else {
            return invalid("The command is empty: argv needs at least the program.");
        };
        if program.is_empty() {
            return invalid("The program's name is empty.");
        }
        if self.argv.len() > limits::ARGV_MAX {
            return too_large("The command has too many arguments", limits::ARGV_MAX);
        }
        if self.argv.iter().map(|arg| arg.len() + 1).sum::<usize>() > limits::ARGV_BYTES_MAX {
            return too_large("The command's arguments are too long together", limits::ARGV_BYTES_MAX);
        }
        if self.env.len() > limits::ENV_MAX {
            return too_large("Too many environment variables", limits::ENV_MAX);
        }
        if self.env.iter().map(|(k, v)| k.len() + v.len() + 2).sum::<usize>() > limits::ENV_BYTES_MAX {
            return too_large("The environment variables are too long together", limits::ENV_BYTES_MAX);
        }
        if self.cwd.as_ref().is_some_and(|cwd| cwd.len() > limits::PATH_BYTES_MAX) {
            return too_large("The working directory's path is too long", limits::PATH_BYTES_MAX);
        }
        if self.cwd.as_ref().is_some_and(|cwd| !cwd.starts_with('/')) {
            return invalid("The working directory must be an absolute path.");
        }
        let texts = self.argv.iter().chain(self.cwd.iter()).chain(self.env.iter().flat_map(|(k, v)| [k, v]));
        if texts.into_iter().any(|text| text.contains('\0')) {
            return invalid(
                "An argument, variable or path contains a NUL byte, which no program can be given.",
            );
        }
        if self.env.iter().any(|(name, _)| name.is_empty() || name.contains('=')) {
            return invalid("An environment variable's name is empty or contains `=`.");
        }
        if self.timeout_ms.is_some_and(|ms| ms == 0 || ms > limits::RUN_TIMEOUT_MS_MAX) {
            return invalid("The timeout must be above 0 and at most 30 days.");
        }
        Ok(())
    }
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RunState {
    /// Accepted, durable, on its way to the node.
    Queued,
    /// Its process runs.
    Running,
    /// Its node is away and has some time to come back.
    Disconnected,
    /// Its process ended by itself, with whatever code.
    Exited,
    /// Its process could not be started.
    Failed,
    /// It was ended because somebody asked.
    Cancelled,
    /// It was ended at its deadline.
    TimedOut,
    /// Its end was not seen: the node did not come back, or came back without it.
    Lost,
    /// The node's own check of the policy refused it.
    Denied,
}

impl RunState {
    /// All states.
    pub const ALL: &'static [Self] = &[
        Self::Queued,
        Self::Running,
        Self::Disconnected,
        Self::Exited,
        Self::Failed,
        Self::Cancelled,
        Self::TimedOut,
        Self::Lost,
        Self::Denied,
    ];

    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Disconnected => "disconnected",
            Self::Exited => "exited",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Lost => "lost",
            Self::Denied => "denied",
        }
    }

    /// Reads the text form back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.as_str() == text)
    }

    /// Whether nothing can follow.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Running | Self::Disconnected => false,
            Self::Exited | Self::Failed | Self::Cancelled | Self::TimedOut | Self::Lost | Self::Denied => {
                true
            }
        }
    }
}

/// Why a run ended, as its node saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EndCause {
    /// The process ended by itself.
    Exited,
    /// The process could not be started.
    Failed,
    /// Ended on request.
    Cancelled,
    /// Ended at the deadline.
    TimedOut,
    /// The node's policy refused it.
    Denied,
    /// The node process restarted while it ran: what became of it is not known.
    UnknownOutcome,
}

impl EndCause {
    /// All causes.
    pub const ALL: &'static [Self] =
        &[Self::Exited, Self::Failed, Self::Cancelled, Self::TimedOut, Self::Denied, Self::UnknownOutcome];

    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Denied => "denied",
            Self::UnknownOutcome => "unknown_outcome",
        }
    }

    /// Reads the text form back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|cause| cause.as_str() == text)
    }

    /// The state in which this leaves the run.
    pub const fn state(self) -> RunState {
        match self {
            Self::Exited => RunState::Exited,
            Self::Failed => RunState::Failed,
            Self::Cancelled => RunState::Cancelled,
            Self::TimedOut => RunState::TimedOut,
            Self::Denied => RunState::Denied,
            Self::UnknownOutcome => RunState::Lost,
        }
    }
}

/// The end of a run as its node reports it, kept in the node's journal until the hub settled it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Why.
    pub cause: EndCause,
    /// The exit code, when the process exited.
    pub code: Option<i32>,
    /// The signal, when one ended it.
    pub signal: Option<i32>,
    /// From start to end, milliseconds, on the node's monotonic clock.
    pub duration_ms: u64,
    /// Where its output ends.
    pub output: Positions,
    /// A sentence for people when the cause needs one.
    pub diagnostic: Option<String>,
}

/// One run as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its id, and the command id on the node.
    pub id: RunId,
    /// Where.
    pub node: NodeId,
    /// What.
    pub spec: RunSpec,
    /// Where it stands.
    pub state: RunState,
    /// Who asked: `token:<name>`.
    pub caller: String,
    /// The policy revision by which it was allowed.
    pub policy_revision: Revision,
    /// The caller's key; the same key on the same node is the same run.
    pub idempotency_key: Option<String>,
    /// W3C traceparent of the request.
    pub traceparent: Option<String>,
    /// When it was accepted.
    pub accepted_at: WallTime,
    /// When its process started, on the hub's clock.
    pub started_at: Option<WallTime>,
    /// When it was settled, on the hub's clock.
    pub ended_at: Option<WallTime>,
    /// Exit code.
    pub code: Option<i32>,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// From start to end on the node's clock, milliseconds.
    pub duration_ms: Option<u64>,
    /// Where its output ends, once that is known.
    pub output: Positions,
    /// Who asked for its end.
    pub cancelled_by: Option<String>,
    /// A sentence for people when the state needs one.
    pub diagnostic: Option<String>,
}

/// What may happen to a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The node says its process runs.
    Start,
    /// The node's link ended.
    Disconnect,
    /// The node came back with it.
    Reattach,
    /// Somebody asks for its end.
    Cancel {
        /// Who.
        by: String,
    },
    /// The node reported its end.
    End(Ended),
    /// The hub gives it up.
    Lose {
        /// Why, for people.
        diagnostic: String,
        /// Output that had arrived.
        output: Positions,
    },
}

/// Applies `command`. The same command twice is refused or changes nothing, never applied twice.
pub fn decide(run: &Run, command: Command, now: WallTime) -> Result<(Run, Vec<Event>), Refusal> {
    if run.state.is_final() {
        return Err(Refusal::new(
            Code::Conflict,
            format!("Run {} has ended: it is {}.", run.id, run.state.as_str()),
        )
        .hint("Read its result with `cortex run get`."));
    }
    let mut next = run.clone();
    let event = |kind| Event::new(kind, now).node(run.node).run(run.id);
    let mut events = Vec::new();
    match command {
        Command::Start => {
            next.state = RunState::Running;
            if next.started_at.is_none() {
                next.started_at = Some(now);
                events.push(event(EventKind::RunStarted));
            }
        }
        Command::Disconnect => {
            if run.state != RunState::Disconnected {
                next.state = RunState::Disconnected;
                events.push(event(EventKind::RunDisconnected));
            }
        }
        Command::Reattach => {
            if run.state == RunState::Disconnected {
                next.state = if run.started_at.is_some() { RunState::Running } else { RunState::Queued };
                events.push(event(EventKind::RunReattached));
            }
        }
        Command::Cancel { by } => {
            if next.cancelled_by.is_none() {
                events.push(event(EventKind::RunCancelRequested).actor(by.clone()));
                next.cancelled_by = Some(by);
            }
        }
        Command::End(ended) => {
            next.state = ended.cause.state();
            next.code = ended.code;
            next.signal = ended.signal;
            next.duration_ms = Some(ended.duration_ms);
            next.output = ended.output;
            next.diagnostic = ended.diagnostic;
            if ended.cause != EndCause::Failed && ended.cause != EndCause::Denied {
                // A duration is the node's word: it cannot have started before it was accepted.
                let began = WallTime(now.0.saturating_sub_unsigned(ended.duration_ms));
                next.started_at = next.started_at.or(Some(began.max(run.accepted_at)));
            }
            next.ended_at = Some(now);
            events.push(event(EventKind::RunEnded).detail(next.state.as_str()));
        }
        Command::Lose { diagnostic, output } => {
            next.state = RunState::Lost;
            next.output = output;
            next.diagnostic = Some(diagnostic);
            next.ended_at = Some(now);
            events.push(event(EventKind::RunEnded).detail(RunState::Lost.as_str()));
        }
    }
    Ok((next, events))
}
