//! Runs as NDJSON: one [`RunEvent`] a line, of one run or of many interleaved. A reader that stalls
//! stalls this stream alone; the runs go on, and their output is kept.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use cortex_core::Refusal;
use cortex_core::consent::{Consent, Standing};
use cortex_core::id::{ConsentId, RunId};
use cortex_core::run::Run;
use cortex_core::stream::Stream;
use cortex_wire::error::Problem;
use cortex_wire::http::RunEvent;
use futures::{Stream as Lines, StreamExt as _, stream};
use http::{HeaderMap, header};

use crate::http::text::{Cutter, Piece};
use crate::http::view;
use crate::service::Caller;
use crate::service::consents::{Consents, ended};
use crate::service::runs::{Follower, Runs, Update};

/// The content type of one JSON object a line.
pub(super) const NDJSON: &str = "application/x-ndjson";

/// Whether the client asks for lines.
pub(super) fn wants_lines(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted
        .flat_map(|value| value.split(','))
        .any(|kind| kind.split(';').next().unwrap_or("").trim() == NDJSON)
}

/// An answer of lines, each sent at once.
pub(super) fn answer<S>(lines: S) -> Response
where
    S: Lines<Item = RunEvent> + Send + 'static,
{
    let bytes = lines.map(|event| {
        let line = serde_json::to_string(&event).unwrap_or_default() + "\n";
        Ok::<_, Infallible>(Bytes::from(line))
    });
    ([(header::CONTENT_TYPE, NDJSON), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")], Body::from_stream(bytes))
        .into_response()
}

/// A node's refusal as its only line.
pub(super) fn refused(node: &str, refusal: &Refusal, request_id: &str) -> RunEvent {
    RunEvent::Refused { node: node.to_owned(), error: Problem::new(refusal, request_id) }
}

/// What to follow of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Only this stream.
    pub(super) stream: Option<Stream>,
    /// Only from this offset of that stream on.
    pub(super) offset: u64,
    /// Begin there in the common order.
    pub(super) position: u64,
}

/// The lines of one run until it has ended. What cannot be followed is told by one line.
pub(super) fn follow(
    runs: Runs,
    caller: Caller,
    run: RunId,
    node: String,
    wanted: Wanted,
    request_id: String,
) -> impl Lines<Item = RunEvent> + Send {
    let begin = async move {
        match runs.follow(&caller, run).await {
            Ok(follower) => {
                Teller::new(run, node, follower.from(wanted.position), wanted).lines().left_stream()
            }
            Err(refusal) => stream::iter([refused(&node, &refusal, &request_id)]).right_stream(),
        }
    };
    stream::once(begin).flatten()
}

/// The lines of a question until it is answered, then those of its run.
pub(super) fn wait(
    runs: Runs,
    consents: Consents,
    caller: Caller,
    consent: ConsentId,
    node: String,
    request_id: String,
) -> impl Lines<Item = RunEvent> + Send {
    let begin = async move {
        match consents.settled(consent).await {
            Ok(consent) if consent.standing == Standing::Approved => {
                let run_id = consent.run.to_string();
                let head = stream::iter([RunEvent::Accepted { run_id, node: node.clone() }]);
                let body = follow(runs, caller, consent.run, node, Wanted::default(), request_id);
                head.chain(body).left_stream()
            }
            Ok(consent) => stream::iter([refused(&node, &ended(&consent), &request_id)]).right_stream(),
            Err(refusal) => stream::iter([refused(&node, &refusal, &request_id)]).right_stream(),
        }
    };
    stream::once(begin).flatten()
}

/// The first line of a command for which a person is asked.
pub(super) fn asked(consent: &Consent, node: &str) -> RunEvent {
    RunEvent::Asked {
        consent_id: consent.id.to_string(),
        run_id: consent.run.to_string(),
        node: node.to_owned(),
        rule: consent.rule.clone(),
        expires_at: view::time(consent.expires_at),
    }
}

/// The first line of an accepted run.
pub(super) fn accepted(run: &Run, node: &str) -> RunEvent {
    RunEvent::Accepted { run_id: run.id.to_string(), node: node.to_owned() }
}

/// Tells one run as lines.
struct Teller {
    run: RunId,
    node: String,
    follower: Option<Follower>,
    wanted: Wanted,
    cutter: Cutter,
    ready: VecDeque<RunEvent>,
}

impl Teller {
    fn new(run: RunId, node: String, follower: Follower, wanted: Wanted) -> Self {
        let (cutter, ready) = (Cutter::default(), VecDeque::new());
        Self { run, node, follower: Some(follower), wanted, cutter, ready }
    }

    fn lines(self) -> impl Lines<Item = RunEvent> + Send {
        stream::unfold(self, |mut teller| async move {
            let line = teller.next().await?;
            Some((line, teller))
        })
    }

    async fn next(&mut self) -> Option<RunEvent> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            match self.follower.as_mut()?.next().await {
                Some(Ok(update)) => self.take(update),
                // Without an exit line, and half a character not told: whoever reads takes the
                // run up again where these lines end.
                Some(Err(_)) => return None,
                None => {
                    self.follower = None;
                    self.flush();
                }
            }
        }
    }

    fn take(&mut self, update: Update) {
        let (run_id, node) = (self.run.to_string(), self.node.clone());
        match update {
            Update::Output { stream, offset, data } => self.output(stream, offset, &data),
            Update::Lost(to) => {
                self.flush();
                self.ready.push_back(RunEvent::Lost { run_id, node, stdout: to.stdout, stderr: to.stderr });
            }
            Update::State(state) => {
                self.ready.push_back(RunEvent::State { run_id, node, state: state.as_str().to_owned() });
            }
            Update::Ended(run) => {
                self.flush();
                self.follower = None;
                self.ready.push_back(exit(&run, node));
            }
        }
    }

    fn output(&mut self, stream: Stream, offset: u64, data: &Bytes) {
        let Some((offset, data)) = self.wanted.part(stream, offset, data) else { return };
        let pieces = self.cutter.push(stream, offset, &data);
        self.push(pieces);
    }

    fn flush(&mut self) {
        let pieces = self.cutter.finish();
        self.push(pieces);
    }

    fn push(&mut self, pieces: Vec<Piece>) {
        let lines = pieces.into_iter().map(|piece| RunEvent::Output {
            run_id: self.run.to_string(),
            node: self.node.clone(),
            stream: piece.stream.as_str().to_owned(),
            offset: piece.offset,
            data: piece.data,
            data_base64: piece.data_base64,
        });
        self.ready.extend(lines);
    }
}

impl Wanted {
    /// The part of these bytes that is asked for.
    pub(super) fn part(&self, stream: Stream, offset: u64, data: &Bytes) -> Option<(u64, Bytes)> {
        let Some(only) = self.stream else { return Some((offset, data.clone())) };
        let skip = usize::try_from(self.offset.saturating_sub(offset)).unwrap_or(usize::MAX);
        (only == stream && skip < data.len()).then(|| (offset + skip as u64, data.slice(skip..)))
    }
}

fn exit(run: &Run, node: String) -> RunEvent {
    RunEvent::Exit {
        run_id: run.id.to_string(),
        node,
        state: run.state.as_str().to_owned(),
        code: run.code,
        signal: run.signal,
        duration_ms: run.duration_ms,
        diagnostic: run.diagnostic.clone(),
    }
}
