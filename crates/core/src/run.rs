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

#[cfg(test)]
mod tests {
    use super::*;

    fn run(state: RunState) -> Run {
        Run {
            id: RunId::mint(1, &[1; 10]),
            node: NodeId::mint(1, &[2; 10]),
            spec: RunSpec::default(),
            state,
            caller: "token:a".into(),
            policy_revision: Revision(1),
            idempotency_key: None,
            traceparent: None,
            accepted_at: WallTime(100),
            started_at: None,
            ended_at: None,
            code: None,
            signal: None,
            duration_ms: None,
            output: Positions::default(),
            cancelled_by: None,
            diagnostic: None,
        }
    }

    fn end(cause: EndCause) -> Command {
        let output = Positions { stdout: 3, stderr: 1 };
        Command::End(Ended { cause, code: Some(2), signal: None, duration_ms: 50, output, diagnostic: None })
    }

    fn commands() -> Vec<Command> {
        let mut all = vec![
            Command::Start,
            Command::Disconnect,
            Command::Reattach,
            Command::Cancel { by: "token:b".into() },
            Command::Lose { diagnostic: "gone".into(), output: Positions::default() },
        ];
        all.extend(EndCause::ALL.iter().map(|cause| end(*cause)));
        all
    }

    #[test]
    fn every_command_in_every_state() {
        use RunState::{Cancelled, Denied, Disconnected, Exited, Failed, Lost, Queued, Running, TimedOut};
        let after = |state, command| match state {
            Queued | Running | Disconnected => {
                decide(&run(state), command, WallTime(200)).ok().map(|(r, _)| r.state)
            }
            Exited | Failed | Cancelled | TimedOut | Lost | Denied => None,
        };
        for (from, start, away, back) in [
            (Queued, Running, Disconnected, Queued),
            (Running, Running, Disconnected, Running),
            (Disconnected, Running, Disconnected, Queued),
        ] {
            let ends = [Exited, Failed, Cancelled, TimedOut, Denied, Lost];
            let expected: Vec<RunState> = [start, away, back, from, Lost].into_iter().chain(ends).collect();
            for (command, expected) in commands().into_iter().zip(expected) {
                assert_eq!(after(from, command.clone()), Some(expected), "{from:?} {command:?}");
            }
        }
    }

    #[test]
    fn a_final_state_is_final() {
        for state in RunState::ALL.iter().filter(|state| state.is_final()) {
            for command in commands() {
                let refusal = decide(&run(*state), command, WallTime(200)).expect_err("final");
                assert_eq!(refusal.code, Code::Conflict, "{state:?}");
            }
        }
    }

    #[test]
    fn the_same_command_twice_tells_its_event_once() {
        for command in commands().into_iter().take(4) {
            let from = if command == Command::Reattach { RunState::Disconnected } else { RunState::Queued };
            let (once, first) = decide(&run(from), command.clone(), WallTime(200)).expect("open");
            let (twice, second) = decide(&once, command.clone(), WallTime(300)).expect("open");
            assert_eq!((first.len(), second.len()), (1, 0), "{command:?}");
            assert_eq!(once, twice);
        }
    }

    #[test]
    fn a_run_that_started_comes_back_as_running() {
        let mut here = run(RunState::Queued);
        for command in [Command::Start, Command::Disconnect, Command::Reattach] {
            here = decide(&here, command, WallTime(200)).expect("open").0;
        }
        assert_eq!((here.state, here.started_at), (RunState::Running, Some(WallTime(200))));
    }

    #[test]
    fn an_end_keeps_the_nodes_figures_and_one_event() {
        let (ended, events) =
            decide(&run(RunState::Running), end(EndCause::Exited), WallTime(200)).expect("open");
        assert_eq!((ended.code, ended.duration_ms, ended.ended_at), (Some(2), Some(50), Some(WallTime(200))));
        assert_eq!(ended.started_at, Some(WallTime(150)));
        assert_eq!((events.len(), events[0].kind), (1, EventKind::RunEnded));
        let never = decide(&run(RunState::Queued), end(EndCause::Denied), WallTime(200)).expect("open").0;
        assert_eq!(never.started_at, None);
    }

    #[test]
    fn a_duration_cannot_move_the_start_before_the_acceptance() {
        let Command::End(ended) = end(EndCause::Exited) else { return };
        let endless = Command::End(Ended { duration_ms: u64::MAX, ..ended });
        let done = decide(&run(RunState::Queued), endless, WallTime(200)).expect("open").0;
        assert_eq!(done.started_at, Some(WallTime(100)));
    }

    #[test]
    fn states_and_causes_are_read_back_from_their_text() {
        assert!(RunState::ALL.iter().all(|state| RunState::parse(state.as_str()) == Some(*state)));
        assert!(EndCause::ALL.iter().all(|cause| EndCause::parse(cause.as_str()) == Some(*cause)));
        assert_eq!((RunState::parse("Exited"), EndCause::parse("")), (None, None));
        assert!(EndCause::ALL.iter().all(|cause| cause.state().is_final()));
    }

    fn spec(change: impl FnOnce(&mut RunSpec)) -> Result<(), Code> {
        let mut spec = RunSpec { argv: vec!["echo".into()], ..RunSpec::default() };
        change(&mut spec);
        spec.check().map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_command_at_its_bounds_is_taken_and_beyond_refused() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let bytes = |count: usize| "x".repeat(count);
        let (large, bad) = (Err(Code::TooLarge), Err(Code::InvalidArgument));
        assert_eq!(spec(|s| s.argv = vec!["a".into(); limits::ARGV_MAX]), Ok(()));
        assert_eq!(spec(|s| s.argv = vec!["a".into(); limits::ARGV_MAX + 1]), large);
        assert_eq!(spec(|s| s.argv = vec!["a".into(), bytes(limits::ARGV_BYTES_MAX - 3)]), Ok(()));
        assert_eq!(spec(|s| s.argv = vec!["a".into(), bytes(limits::ARGV_BYTES_MAX - 2)]), large);
        assert_eq!(spec(|s| s.env = vec![pair("a", ""); limits::ENV_MAX]), Ok(()));
        assert_eq!(spec(|s| s.env = vec![pair("a", ""); limits::ENV_MAX + 1]), large);
        assert_eq!(spec(|s| s.env = vec![pair("a", &bytes(limits::ENV_BYTES_MAX - 3))]), Ok(()));
        assert_eq!(spec(|s| s.env = vec![pair("a", &bytes(limits::ENV_BYTES_MAX - 2))]), large);
        assert_eq!(spec(|s| s.cwd = Some(format!("/{}", bytes(limits::PATH_BYTES_MAX - 1)))), Ok(()));
        assert_eq!(spec(|s| s.cwd = Some(format!("/{}", bytes(limits::PATH_BYTES_MAX)))), large);
        assert_eq!(spec(|s| s.timeout_ms = Some(limits::RUN_TIMEOUT_MS_MAX)), Ok(()));
        assert_eq!(spec(|s| s.timeout_ms = Some(limits::RUN_TIMEOUT_MS_MAX + 1)), bad);
        assert_eq!(spec(|s| s.timeout_ms = Some(0)), bad);
        assert_eq!(spec(|s| s.argv.clear()), bad);
        assert_eq!(spec(|s| s.argv = vec![String::new()]), bad);
        assert_eq!(spec(|s| s.argv.push("a\0b".into())), bad);
        assert_eq!(spec(|s| s.cwd = Some("tmp".into())), bad);
        assert_eq!(spec(|s| s.cwd = Some("/a\0".into())), bad);
        assert_eq!(spec(|s| s.env = vec![pair("", "x")]), bad);
        assert_eq!(spec(|s| s.env = vec![pair("A=B", "x")]), bad);
        assert_eq!(spec(|s| s.env = vec![pair("A", "x\0")]), bad);
    }
}
