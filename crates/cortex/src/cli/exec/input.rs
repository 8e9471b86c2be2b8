//! Standard input for one run: sent in pieces with their offsets, so that a piece that is sent
//! again counts once. The next piece is read when the node has taken the last.

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use cortex_wire::http::InputTaken;
use http::Method;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::client::{Call, Client, encode};
use crate::error::Result;

/// One piece; a frame on the way to the node holds it.
const PIECE_BYTES: usize = 48 * 1024;
/// Wait before a piece is sent again.
const AGAIN: Duration = Duration::from_millis(200);

/// Sends all of `source` in the background. It ends with the source, with the run, or when aborted.
pub(in crate::cli) fn send(
    client: Client,
    run_id: String,
    source: impl Read + Send + 'static,
) -> JoinHandle<()> {
    // A thread of its own: a read from a terminal cannot be called off.
    let (pieces, read) = mpsc::channel(1);
    std::thread::spawn(move || read_all(source, &pieces));
    tokio::spawn(async move {
        if let Err(failure) = send_all(client, &run_id, read).await {
            // The usual reason is a run that ended without reading: its exit says the rest.
            tracing::debug!(?failure, "standard input ended early");
        }
    })
}

/// The last piece is an empty one. A source that cannot be read any more is at its end.
fn read_all(mut source: impl Read, pieces: &mpsc::Sender<Bytes>) {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let read = source.read(&mut buffer).unwrap_or(0);
        if pieces.blocking_send(Bytes::copy_from_slice(&buffer[..read])).is_err() || read == 0 {
            return;
        }
    }
}

async fn send_all(mut client: Client, run_id: &str, mut pieces: mpsc::Receiver<Bytes>) -> Result {
    let mut offset = 0;
    while let Some(piece) = pieces.recv().await {
        let (end, eof) = (offset + piece.len() as u64, piece.is_empty());
        deliver(&mut client, run_id, offset, piece, eof).await?;
        offset = end;
    }
    Ok(())
}

async fn deliver(client: &mut Client, run_id: &str, start: u64, piece: Bytes, eof: bool) -> Result {
    let end = start + piece.len() as u64;
    let mut offset = start;
    loop {
        let path = format!("/runs/{}/stdin?offset={offset}&eof={eof}", encode(run_id));
        let skip = usize::try_from(offset - start).unwrap_or(piece.len());
        let call = Call::bytes(piece.slice(skip..));
        match client.call::<InputTaken>(Method::POST, &path, call).await {
            Ok(taken) if taken.upto >= end => return Ok(()),
            Ok(taken) => offset = taken.upto.clamp(start, end),
            Err(failure) if failure.is_transport() => {}
            Err(failure) => return Err(failure),
        }
        sleep(AGAIN).await;
    }
}
