//! The end of a node process: live runs are asked, then killed; their ends are journaled and told.

use cortex_core::Refusal;
use cortex_core::run::{EndCause, Ended};
use cortex_core::time::Timestamp;

use super::Actor;
use crate::node::Attached;
use crate::run::protocol::Order;

/// Time between TERM and KILL.
const GRACE_MS: u64 = 2_000;
/// Time for telling the hub once nothing runs any more.
const TELL_MS: u64 = 2_000;
/// A tree that KILL does not end (a process stuck in the kernel) is left to its guard after this.
const GIVE_UP_MS: u64 = 10_000;

/// How far stopping has come.
#[derive(Debug)]
pub(super) struct Stopping {
    outcome: Result<(), Refusal>,
    kill_at: Option<Timestamp>,
    give_up_at: Timestamp,
    tell_until: Option<Timestamp>,
}

impl Stopping {
    /// The next moment at which something is due.
    pub(super) fn due(&self) -> Timestamp {
        self.kill_at.or(self.tell_until).unwrap_or(self.give_up_at).min(self.give_up_at)
    }
}

impl<F: Fn(Attached) + Send> Actor<F> {
    /// Begins to stop; the first reason stands.
    pub(super) fn begin_stop(&mut self, outcome: Result<(), Refusal>, now: Timestamp) {
        if self.stopping.is_some() {
            return;
        }
        tracing::info!(live = self.alive.len(), "stopping");
        self.dial_at = None;
        for run in &self.alive {
            self.order(*run, Order::Term);
        }
        self.stopping = Some(Stopping {
            outcome,
            kill_at: Some(now.plus_ms(GRACE_MS)),
            give_up_at: now.plus_ms(GIVE_UP_MS),
            tell_until: None,
        });
    }

    /// Kills what did not go in its time.
    pub(super) fn go_on_stopping(&mut self, now: Timestamp) {
        let Some(stopping) = &mut self.stopping else { return };
        if stopping.kill_at.is_some_and(|at| at <= now) {
            stopping.kill_at = None;
            for run in &self.alive {
                self.order(*run, Order::Kill);
            }
        }
    }

    /// What [`super::live`] returns, once nothing is left to do.
    pub(super) fn outcome(&mut self) -> Option<Result<(), Refusal>> {
        let now = self.clock.now();
        let gave_up = self.stopping.as_ref()?.give_up_at <= now;
        if !gave_up && (!self.alive.is_empty() || !self.backlog.is_empty()) {
            return None;
        }
        let told = !self.runs.is_linked() || self.runs.held() == 0;
        let stopping = self.stopping.as_mut()?;
        let tell_until = *stopping.tell_until.get_or_insert(now.plus_ms(TELL_MS));
        stopping.kill_at = None;
        if told || gave_up || tell_until <= now {
            return Some(std::mem::replace(&mut stopping.outcome, Ok(())));
        }
        None
    }

    /// A run that a stopping node ended was not the command's own doing.
    pub(super) fn as_stopped(&self, ended: Ended) -> Ended {
        if self.stopping.is_none() || ended.cause != EndCause::Exited || ended.signal.is_none() {
            return ended;
        }
        let diagnostic = "The node process was stopped on its machine, and the command was ended with it.";
        Ended { cause: EndCause::Cancelled, diagnostic: Some(diagnostic.to_owned()), ..ended }
    }
}
