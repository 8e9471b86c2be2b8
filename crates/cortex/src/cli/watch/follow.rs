//! Follows runs by their kept output, from where each was shown last, and takes a broken stream
//! up again for as long as the configuration allows.

use cortex_core::stream::Positions;
use cortex_wire::http::RunEvent;
use http::Method;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

use super::Watch;
use super::patience::Patience;
use crate::client::{Call, Client, NDJSON, encode};
use crate::error::{Failure, Result};

/// Events of all followed runs on their way to the screen; full means that the screen is slow,
/// and every stream waits.
const EVENTS_MAX: usize = 64;

/// Shows all open runs of `watch` to their ends.
pub(crate) async fn follow_all(client: &Client, watch: &mut Watch) -> Result {
    let (events, mut heard) = mpsc::channel(EVENTS_MAX);
    let mut followers = JoinSet::new();
    for (run_id, _, shown) in watch.open() {
        let (client, events) = (client.another(), events.clone());
        followers.spawn(Follower { client, run_id, shown, events }.run());
    }
    drop(events);
    while let Some(event) = heard.recv().await {
        watch.take(event)?;
    }
    while let Some(ended) = followers.join_next().await {
        ended.map_err(ended_badly)??;
    }
    Ok(())
}

struct Follower {
    client: Client,
    run_id: String,
    shown: Positions,
    events: mpsc::Sender<RunEvent>,
}

impl Follower {
    async fn run(mut self) -> Result {
        let mut patience = Patience::new(self.client.target().reconnect_max);
        loop {
            let before = self.shown;
            let trouble = match self.once().await {
                Ok(true) => return Ok(()),
                Ok(false) => broken(),
                Err(failure) if failure.is_transport() => failure,
                Err(failure) => return Err(failure),
            };
            if !patience.wait(self.shown != before).await {
                return Err(way_back(trouble, &self.run_id));
            }
        }
    }

    /// Reads one stream. `true` when the run is over, or nobody listens any more.
    async fn once(&mut self) -> Result<bool> {
        let id = encode(&self.run_id);
        let path = format!("/runs/{id}/output?from={}&follow=true", self.shown.total());
        let mut lines = self.client.lines(Method::GET, &path, Call::default().accept(NDJSON)).await?;
        while let Some(event) = lines.json::<RunEvent>().await? {
            self.note(&event);
            let over = matches!(event, RunEvent::Exit { .. });
            if self.events.send(event).await.is_err() || over {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn note(&mut self, event: &RunEvent) {
        match event {
            RunEvent::Output { stream, offset, data, data_base64, .. } => {
                let bytes = data
                    .as_ref()
                    .map_or_else(|| data_base64.as_deref().map_or(0, base64_bytes), |text| text.len() as u64);
                let end = offset.saturating_add(bytes);
                let place = if stream == "stderr" { &mut self.shown.stderr } else { &mut self.shown.stdout };
                *place = end.max(*place);
            }
            RunEvent::Lost { stdout, stderr, .. } => {
                self.shown.stdout = self.shown.stdout.max(*stdout);
                self.shown.stderr = self.shown.stderr.max(*stderr);
            }
            RunEvent::Accepted { .. }
            | RunEvent::Asked { .. }
            | RunEvent::State { .. }
            | RunEvent::Exit { .. }
            | RunEvent::Refused { .. } => {}
        }
    }
}

/// Bytes behind padded base64.
fn base64_bytes(text: &str) -> u64 {
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding) as u64
}

/// A stream that ended before its run did.
pub(super) fn broken() -> Failure {
    cortex_core::Refusal::new(cortex_core::Code::HubUnreachable, "The hub ended the stream early.").into()
}

/// A follower that did not end by itself.
pub(super) fn ended_badly(error: JoinError) -> Failure {
    cortex_core::Refusal::new(cortex_core::Code::Internal, error.to_string()).into()
}

/// The trouble with what to do about it.
pub(super) fn way_back(trouble: Failure, run_id: &str) -> Failure {
    trouble.way("look again", format!("cortex run logs -f {run_id}"))
}

#[cfg(test)]
mod tests {
    use base64::Engine;

    use super::*;

    #[test]
    fn the_bytes_behind_base64_are_counted_without_decoding() {
        for length in 0..9 {
            let text = base64::engine::general_purpose::STANDARD.encode(vec![7; length]);
            assert_eq!(base64_bytes(&text), length as u64);
        }
    }
}
