//! Follows one run by its bytes, one connection per stream: what a long output takes is the way
//! of its bytes, and not of their description as JSON. Each stream is taken up again at its own
//! offset. The order between the two streams is not kept, so this is for outputs that go apart.

use bytes::Bytes;
use cortex_core::run::RunState;
use cortex_core::stream::Stream;
use cortex_wire::http::{RunEvent, RunView};
use http::Method;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Watch;
use super::follow::{broken, ended_badly, way_back};
use super::patience::Patience;
use crate::client::{Call, Client, NDJSON, encode};
use crate::error::Result;

/// Pieces of both streams on their way to the screen; full means that the screen is slow, and
/// both streams wait.
const PIECES_MAX: usize = 64;
/// Answers in a row that broke off before their first byte: then bytes were lost there, and lines
/// tell how many.
const TORN_MAX: u32 = 2;

/// Shows these streams of a run to its end.
pub(crate) async fn follow_bytes(
    client: &Client,
    watch: &mut Watch,
    run: &RunView,
    streams: &[Stream],
) -> Result {
    let (pieces, mut heard) = mpsc::channel::<Piece>(PIECES_MAX);
    let mut followers = JoinSet::new();
    for stream in streams {
        let (client, pieces, id) = (client.another(), pieces.clone(), run.id.clone());
        followers.spawn(Follower { client, id, stream: *stream, at: 0, torn: 0, pieces }.run());
    }
    drop(pieces);
    while let Some(piece) = heard.recv().await {
        watch.output(&run.id, &run.node, piece.stream, piece.offset, &piece.bytes)?;
    }
    let mut last = None;
    while let Some(ended) = followers.join_next().await {
        last = ended.map_err(ended_badly)??;
    }
    let Some(run) = last else { return Ok(()) };
    for stream in streams {
        watch.missing(&run.id, &run.node, *stream, bytes_of(&run, *stream))?;
    }
    watch.take(exit(run))
}

struct Piece {
    stream: Stream,
    offset: u64,
    bytes: Bytes,
}

struct Follower {
    client: Client,
    id: String,
    stream: Stream,
    /// How far this stream was read.
    at: u64,
    torn: u32,
    pieces: mpsc::Sender<Piece>,
}

impl Follower {
    /// The run as it ended; `None` when nobody listens any more.
    async fn run(mut self) -> Result<Option<RunView>> {
        let mut patience = Patience::new(self.client.target().reconnect_max);
        loop {
            let before = self.at;
            let trouble = match self.once().await {
                Ok(()) if self.pieces.is_closed() => return Ok(None),
                Ok(()) => match self.ended().await {
                    Ok(Some(run)) => return Ok(Some(run)),
                    Ok(None) => broken(),
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            if !trouble.is_transport() {
                return Err(trouble);
            }
            if !patience.wait(self.at > before).await {
                return Err(way_back(trouble, &self.id));
            }
        }
    }

    async fn once(&mut self) -> Result {
        if self.torn >= TORN_MAX { self.lines().await } else { self.bytes().await }
    }

    async fn bytes(&mut self) -> Result {
        let mut body = self.client.body(&self.path()).await?;
        let begun = self.at;
        loop {
            match body.piece().await {
                Ok(Some(bytes)) => {
                    if !self.give(self.at, bytes).await {
                        return Ok(());
                    }
                }
                Ok(None) => return Ok(()),
                Err(failure) => {
                    self.torn = if self.at == begun { self.torn + 1 } else { 0 };
                    return Err(failure);
                }
            }
        }
    }

    /// The same as lines, which go on behind what was lost.
    async fn lines(&mut self) -> Result {
        let call = Call::default().accept(NDJSON);
        let mut lines = self.client.lines(Method::GET, &self.path(), call).await?;
        while let Some(event) = lines.json::<RunEvent>().await? {
            match event {
                RunEvent::Output { offset, data, data_base64, .. } => {
                    let bytes = super::track::bytes_of(data, data_base64)?;
                    if !self.give(offset, Bytes::from(bytes.into_owned())).await {
                        return Ok(());
                    }
                }
                RunEvent::Lost { stdout, stderr, .. } => {
                    let to = if self.stream == Stream::Stderr { stderr } else { stdout };
                    self.at = self.at.max(to);
                }
                RunEvent::Refused { error, .. } => return Err(error.into()),
                RunEvent::Exit { .. } => return Ok(()),
                RunEvent::Accepted { .. } | RunEvent::Asked { .. } | RunEvent::State { .. } => {}
            }
        }
        Err(broken())
    }

    /// Hands a piece on; `false` when nobody listens any more.
    async fn give(&mut self, offset: u64, bytes: Bytes) -> bool {
        self.at = self.at.max(offset.saturating_add(bytes.len() as u64));
        self.pieces.send(Piece { stream: self.stream, offset, bytes }).await.is_ok()
    }

    /// The run, when it has ended and all of this stream was read: an answer may also end because
    /// its hub did.
    async fn ended(&mut self) -> Result<Option<RunView>> {
        let run: RunView = self.client.get(&format!("/runs/{}", encode(&self.id))).await?;
        let over = RunState::parse(&run.state).is_some_and(RunState::is_final);
        Ok((over && self.at >= bytes_of(&run, self.stream)).then_some(run))
    }

    fn path(&self) -> String {
        let (id, stream) = (encode(&self.id), self.stream.as_str());
        format!("/runs/{id}/output?stream={stream}&from={}&follow=true", self.at)
    }
}

const fn bytes_of(run: &RunView, stream: Stream) -> u64 {
    match stream {
        Stream::Stdout => run.stdout_bytes,
        Stream::Stderr => run.stderr_bytes,
    }
}

fn exit(run: RunView) -> RunEvent {
    RunEvent::Exit {
        run_id: run.id,
        node: run.node,
        state: run.state,
        code: run.code,
        signal: run.signal,
        duration_ms: run.duration_ms,
        diagnostic: run.diagnostic,
    }
}
