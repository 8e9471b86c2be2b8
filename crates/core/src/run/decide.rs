//! The decision: what may follow what. A final state is final.

use super::{EndCause, Ended, Run, RunState};
use crate::error::{Code, Refusal};
use crate::event::{Event, EventKind};
use crate::sandbox::Level;
use crate::stream::Positions;
use crate::time::WallTime;

/// What may happen to a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The node says its process runs.
    Start(Level),
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

impl Command {
    /// How it ended, when it is the end that a node reports.
    pub const fn ended(&self) -> Option<&Ended> {
        match self {
            Self::End(ended) => Some(ended),
            Self::Start(_) | Self::Disconnect | Self::Reattach | Self::Cancel { .. } | Self::Lose { .. } => {
                None
            }
        }
    }
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
    let event = match command {
        Command::Start(level) => start(&mut next, level, now),
        Command::Disconnect => disconnect(&mut next, now),
        Command::Reattach => reattach(&mut next, now),
        Command::Cancel { by } => cancel(&mut next, by, now),
        Command::End(ended) => Some(end(&mut next, ended, now)),
        Command::Lose { diagnostic, output } => Some(lose(&mut next, diagnostic, output, now)),
    };
    Ok((next, event.into_iter().collect()))
}

fn start(run: &mut Run, level: Level, now: WallTime) -> Option<Event> {
    run.state = RunState::Running;
    run.sandbox = Some(level.as_str().to_owned());
    if run.started_at.is_some() {
        return None;
    }
    run.started_at = Some(now);
    Some(event(run, EventKind::RunStarted, now))
}

fn disconnect(run: &mut Run, now: WallTime) -> Option<Event> {
    if run.state == RunState::Disconnected {
        return None;
    }
    run.state = RunState::Disconnected;
    Some(event(run, EventKind::RunDisconnected, now))
}

fn reattach(run: &mut Run, now: WallTime) -> Option<Event> {
    if run.state != RunState::Disconnected {
        return None;
    }
    run.state = if run.started_at.is_some() { RunState::Running } else { RunState::Queued };
    Some(event(run, EventKind::RunReattached, now))
}

fn cancel(run: &mut Run, by: String, now: WallTime) -> Option<Event> {
    if run.cancelled_by.is_some() {
        return None;
    }
    run.cancelled_by = Some(by.clone());
    Some(event(run, EventKind::RunCancelRequested, now).actor(by))
}

fn end(run: &mut Run, ended: Ended, now: WallTime) -> Event {
    run.state = ended.cause.state();
    run.code = ended.code;
    run.signal = ended.signal;
    run.duration_ms = Some(ended.duration_ms);
    run.output = ended.output;
    run.diagnostic = ended.diagnostic;
    if ended.cause != EndCause::Failed && ended.cause != EndCause::Denied {
        // A duration is the node's word: it cannot have started before it was accepted.
        let began = WallTime(now.0.saturating_sub_unsigned(ended.duration_ms));
        run.started_at = run.started_at.or(Some(began.max(run.accepted_at)));
    }
    settle(run, now)
}

fn lose(run: &mut Run, diagnostic: String, output: Positions, now: WallTime) -> Event {
    run.state = RunState::Lost;
    run.output = output;
    run.diagnostic = Some(diagnostic);
    settle(run, now)
}

fn settle(run: &mut Run, now: WallTime) -> Event {
    run.ended_at = Some(now);
    event(run, EventKind::RunEnded, now).detail(run.state.as_str())
}

const fn event(run: &Run, kind: EventKind, now: WallTime) -> Event {
    Event::new(kind, now).node(run.node).run(run.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{NodeId, Revision, RunId};
    use crate::run::RunSpec;

    fn run(state: RunState) -> Run {
        let (id, node) = (RunId::mint(1, &[1; 10]), NodeId::mint(1, &[2; 10]));
        let caller = "token:a".to_owned();
        let accepted = Run::accepted(id, node, RunSpec::default(), caller, Revision(1), WallTime(100));
        Run { state, ..accepted }
    }

    fn end(cause: EndCause) -> Command {
        let output = Positions { stdout: 3, stderr: 1 };
        Command::End(Ended { cause, code: Some(2), signal: None, duration_ms: 50, output, diagnostic: None })
    }

    fn commands() -> Vec<Command> {
        let mut all = vec![
            Command::Start(Level::Kernel),
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
        for command in [Command::Start(Level::Full), Command::Disconnect, Command::Reattach] {
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
}
