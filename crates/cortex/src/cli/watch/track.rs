//! What is known of each run: how far its output was shown, and how it ended. Repeats are cut
//! off here, whatever the hub sends again.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cortex_core::stream::{Positions, Stream};
use cortex_core::{Code, Refusal};
use cortex_wire::error::{Problem, surface};
use cortex_wire::http::RunEvent;

use super::Show;
use crate::error::Result;

/// How one node's part ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The node.
    pub(crate) node: String,
    /// Exit status of this part: 0 is good.
    pub(crate) status: u8,
    /// One word or two: `exit 101`, `denied`.
    pub(crate) text: String,
    /// The refusal, when it was one.
    pub(crate) problem: Option<Problem>,
}

/// One run that is followed.
#[derive(Clone, Debug)]
struct Track {
    node: String,
    shown: Positions,
    over: bool,
}

/// All runs of one command.
pub(crate) struct Watch {
    runs: BTreeMap<String, Track>,
    /// Nodes where a person is asked first: by the run, the node and the question.
    waiting: BTreeMap<String, (String, String)>,
    outcomes: Vec<Outcome>,
    show: Show,
    single: bool,
}

impl Watch {
    /// Follows nothing yet.
    pub(crate) const fn new(show: Show, single: bool) -> Self {
        Self { runs: BTreeMap::new(), waiting: BTreeMap::new(), outcomes: Vec::new(), show, single }
    }

    /// Follows a run that is known already.
    pub(crate) fn add(&mut self, run_id: &str, node: &str) {
        let track = Track { node: node.to_owned(), shown: Positions::default(), over: false };
        self.runs.entry(run_id.to_owned()).or_insert(track);
    }

    /// Takes one event in, and shows what is new in it.
    pub(crate) fn take(&mut self, event: RunEvent) -> Result {
        match event {
            RunEvent::Accepted { run_id, node } => {
                self.waiting.remove(&run_id);
                self.add(&run_id, &node);
                self.show.accepted(&run_id, &node)
            }
            RunEvent::Asked { ref consent_id, ref run_id, ref node, .. } => {
                let question = (node.clone(), consent_id.clone());
                match self.waiting.insert(run_id.clone(), question) {
                    None => self.show.asked(&event),
                    Some(_) => Ok(()),
                }
            }
            RunEvent::Output { run_id, node, stream, offset, data, data_base64 } => {
                let bytes = bytes_of(data, data_base64)?;
                let stream = Stream::parse(&stream).unwrap_or(Stream::Stdout);
                self.output(&run_id, &node, stream, offset, &bytes)
            }
            RunEvent::Lost { run_id, node, stdout, stderr } => {
                self.add(&run_id, &node);
                if let Some(track) = self.runs.get_mut(&run_id) {
                    track.shown.stdout = track.shown.stdout.max(stdout);
                    track.shown.stderr = track.shown.stderr.max(stderr);
                }
                self.show.lost(&run_id, &node, stdout, stderr)
            }
            RunEvent::State { run_id, node, state } => {
                self.add(&run_id, &node);
                self.show.state(&node, &state);
                Ok(())
            }
            RunEvent::Exit { ref run_id, ref node, ref state, code, signal, .. } => {
                self.add(run_id, node);
                let outcome = outcome(node, state, code, signal);
                if self.runs.get_mut(run_id).is_some_and(|track| !std::mem::replace(&mut track.over, true)) {
                    self.outcomes.push(outcome);
                    return self.show.exit(&event);
                }
                Ok(())
            }
            RunEvent::Refused { node, error } => {
                self.waiting.retain(|_, (waits, _)| *waits != node);
                self.show.refused(&node, &error)?;
                self.refused(&node, error);
                Ok(())
            }
        }
    }

    /// Books a refusal.
    pub(crate) fn refused(&mut self, node: &str, error: Problem) {
        let status = transport_or(error.code());
        let text = error.code.clone();
        self.outcomes.push(Outcome { node: node.to_owned(), status, text, problem: Some(error) });
    }

    /// Where a person is waited for: the node and the question.
    pub(crate) fn waiting(&self) -> Vec<(String, String)> {
        self.waiting.values().cloned().collect()
    }

    /// Waits for nobody any more: what was asked is booked as a refusal. The refusal of the only node
    /// is that of the command.
    pub(crate) fn give_up(&mut self) -> Result {
        for (node, consent_id) in std::mem::take(&mut self.waiting).into_values() {
            let message = format!("Nobody has answered yet; question {consent_id} waits on.");
            let refusal = Refusal::new(Code::ConsentRequired, message)
                .hint(format!(
                    "Look at it with `cortex consent show {consent_id}`; the command starts with the answer."
                ))
                .detail("consent_id", consent_id);
            let problem = Problem::new(&refusal, "");
            if self.single {
                return Err(problem.into());
            }
            self.show.refused(&node, &problem)?;
            self.refused(&node, problem);
        }
        Ok(())
    }

    /// Runs that have not ended: id, node, and how far each was shown.
    pub(crate) fn open(&self) -> Vec<(String, String, Positions)> {
        let open = self.runs.iter().filter(|(_, track)| !track.over);
        open.map(|(id, track)| (id.clone(), track.node.clone(), track.shown)).collect()
    }

    /// Whether there is only one node to hear of.
    pub(crate) fn is_single(&self) -> bool {
        self.single
    }

    /// Whether nothing was accepted or refused so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.outcomes.is_empty()
    }

    /// Whether anything was heard of this node.
    pub(crate) fn knows(&self, node: &str) -> bool {
        self.runs.values().any(|track| track.node == node) || self.outcomes.iter().any(|o| o.node == node)
    }

    /// How many runs or refusals there are.
    pub(crate) fn count(&self) -> usize {
        self.runs.len() + self.outcomes.iter().filter(|outcome| outcome.problem.is_some()).count()
    }

    /// How each ended, in the order in which they did.
    pub(crate) fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// Shows what is new of a piece of output.
    pub(crate) fn output(
        &mut self,
        run_id: &str,
        node: &str,
        stream: Stream,
        offset: u64,
        bytes: &[u8],
    ) -> Result {
        self.add(run_id, node);
        let Some(track) = self.runs.get_mut(run_id) else { return Ok(()) };
        let shown = track.shown.of(stream);
        let Ok(skip) = usize::try_from(shown.saturating_sub(offset)) else { return Ok(()) };
        if skip >= bytes.len() {
            return Ok(());
        }
        let fresh = &bytes[skip..];
        let at = offset.max(shown);
        let missing = at - shown;
        track.shown.advance(stream, missing + fresh.len() as u64);
        if missing > 0 {
            let shown = track.shown;
            self.show.lost(run_id, node, shown.stdout, shown.stderr)?;
        }
        self.show.output(run_id, node, stream, at, fresh)
    }

    /// The stream has ended there: what was not shown of it is missing.
    pub(crate) fn missing(&mut self, run_id: &str, node: &str, stream: Stream, end: u64) -> Result {
        let Some(track) = self.runs.get_mut(run_id) else { return Ok(()) };
        let left = end.saturating_sub(track.shown.of(stream));
        if left == 0 {
            return Ok(());
        }
        track.shown.advance(stream, left);
        let shown = track.shown;
        self.show.lost(run_id, node, shown.stdout, shown.stderr)
    }
}

/// Exit status and words for a final state. Signals count from 128, as shells have it.
pub(super) fn outcome(node: &str, state: &str, code: Option<i32>, signal: Option<i32>) -> Outcome {
    let ended = match (code, signal) {
        (_, Some(signal)) => u8::try_from(signal).ok().and_then(|s| s.checked_add(128)).unwrap_or(1),
        (Some(code), None) => u8::try_from(code & 0xff).unwrap_or(1),
        (None, None) => 1,
    };
    let (status, text) = match state {
        "exited" => (ended, signal.map_or(format!("exit {ended}"), |signal| format!("signal {signal}"))),
        "timed_out" => (surface(Code::Timeout).exit, "timed out".to_owned()),
        "denied" => (surface(Code::PolicyDenied).exit, "denied".to_owned()),
        "lost" => (TRANSPORT, "lost".to_owned()),
        // A cancelled run that ended well by itself in its grace still did not do what was asked.
        other => (ended.max(1), other.replace('_', " ")),
    };
    Outcome { node: node.to_owned(), status, text, problem: None }
}

/// Exit status for a final state.
pub(crate) fn status_of(state: &str, code: Option<i32>, signal: Option<i32>) -> u8 {
    outcome("", state, code, signal).status
}

/// Exit status of `exec` when the way to the node or hub is the trouble.
pub(crate) const TRANSPORT: u8 = 255;

/// Exit status of `exec` for a refusal.
pub(crate) const fn transport_or(code: Code) -> u8 {
    if matches!(code, Code::HubUnreachable | Code::UnknownOutcome) { TRANSPORT } else { surface(code).exit }
}

/// The bytes of a piece, in whichever form they came.
pub(super) fn bytes_of(data: Option<String>, data_base64: Option<String>) -> Result<Cow<'static, [u8]>> {
    match (data, data_base64) {
        (Some(text), _) => Ok(Cow::Owned(text.into_bytes())),
        (None, Some(text)) => STANDARD.decode(text).map(Cow::Owned).map_err(|error| {
            Refusal::new(Code::VersionUnsupported, format!("The hub's output cannot be read: {error}."))
                .into()
        }),
        (None, None) => Ok(Cow::Borrowed(&[])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_is_the_remote_one_and_says_what_happened_otherwise() {
        for (state, code, signal, status) in [
            ("exited", Some(0), None, 0),
            ("exited", Some(101), None, 101),
            ("exited", None, Some(9), 137),
            ("failed", None, None, 1),
            ("cancelled", None, Some(15), 143),
            ("cancelled", Some(0), None, 1),
            ("timed_out", None, Some(15), 124),
            ("denied", None, None, 5),
            ("lost", None, None, 255),
        ] {
            assert_eq!(outcome("a", state, code, signal).status, status, "{state} {code:?} {signal:?}");
        }
    }

    #[test]
    fn the_transport_is_told_apart_from_a_refusal() {
        assert_eq!(transport_or(Code::HubUnreachable), 255);
        assert_eq!(transport_or(Code::NodeOffline), 7);
    }
}
