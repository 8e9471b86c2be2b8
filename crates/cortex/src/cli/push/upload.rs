//! The content of a push, from here to the hub: one asks what is wanted, two send it. A connection that
//! breaks is opened again; the hub is asked for what was lost on the way, and passes over what comes twice.

use std::convert::Infallible;

use bytes::Bytes;
use cortex_core::Code;
use cortex_core::files::content::ContentId;
use cortex_core::limits::WANTS_MAX;
use cortex_core::words::count;
use http::{HeaderMap, Method};
use tokio::time::{Duration, Instant, sleep};

use super::packer::Packer;
use crate::cli::transfer::follow::{self, WAIT_MS};
use crate::cli::watch::Patience;
use crate::client::{Call, Client, Source};
use crate::error::{Failure, Result};

/// The header that says how a transfer stands.
const STATE: &str = "cortex-transfer";
/// Pause before another question, when the hub said at once that nothing is wanted.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes of an id.
const ID_BYTES: usize = 32;

/// Serves a push with two packs on their way at most. It ends with the first failure only: when the push is
/// over, it waits for whoever follows the push to drop it.
pub(super) async fn upload(client: &Client, id: &str, packer: &Packer) -> Result<Infallible> {
    let (asker, first, second) = (client.another(), client.another(), client.another());
    tokio::select! {
        failed = ask(asker, id, packer) => failed,
        failed = send(first, id, packer) => failed,
        failed = send(second, id, packer) => failed,
    }
}

/// Asks again and again what is wanted.
async fn ask(mut client: Client, id: &str, packer: &Packer) -> Result<Infallible> {
    let mut patience = Patience::new(client.target().reconnect_max);
    let mut again = false;
    loop {
        let asked = Instant::now();
        let path = format!("{}/wants?again={again}&wait_ms={WAIT_MS}", follow::path(id));
        let (headers, body) = match client.answer(Method::GET, &path, Call::default().accept(OCTETS)).await {
            Ok(answer) => answer,
            // What the lost answer asked for is asked for again.
            Err(failure) if failure.is_transport() && patience.wait(false).await => {
                again = true;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        (patience, again) = (Patience::new(client.target().reconnect_max), false);
        over(&headers).await;
        let ids = ids(&body)?;
        if !ids.is_empty() {
            packer.want(ids).await?;
        } else if asked.elapsed() < PAUSE {
            sleep(PAUSE).await;
        }
    }
}

const OCTETS: &str = "application/octet-stream";

/// Sends one pack after the other.
async fn send(mut client: Client, id: &str, packer: &Packer) -> Result<Infallible> {
    let (packs, missing) = (format!("{}/packs", follow::path(id)), format!("{}/missing", follow::path(id)));
    loop {
        let parcel = packer.next().await?;
        for some in parcel.missing.chunks(WANTS_MAX) {
            let body: Bytes = some.iter().flat_map(|id| *id.as_bytes()).collect();
            let call = || Call::bytes(body.clone());
            over(&patiently(&mut client, Method::POST, &missing, call).await?).await;
        }
        if let Some(pack) = parcel.pack {
            let head = pack.head.to_bytes();
            let call = || Call::source(Source::here(vec![head.clone(), pack.tail.clone()]));
            over(&patiently(&mut client, Method::PUT, &packs, call).await?).await;
        }
    }
}

/// Sends it until it is taken, or the hub was away for too long.
async fn patiently(
    client: &mut Client,
    method: Method,
    path: &str,
    call: impl Fn() -> Call,
) -> Result<HeaderMap> {
    let answer =
        follow::again(client, async |client: &mut Client| client.answer(method.clone(), path, call()).await);
    Ok(answer.await?.0)
}

/// Waits for ever when the answer says that the push is over: whoever follows it hears how it ended.
async fn over(headers: &HeaderMap) {
    let state = headers.get(STATE).and_then(|state| state.to_str().ok());
    if state.is_some_and(|state| state != "open") {
        std::future::pending().await
    }
}

fn ids(body: &[u8]) -> Result<Vec<ContentId>> {
    let (ids, rest) = body.as_chunks::<ID_BYTES>();
    if !rest.is_empty() || ids.len() > WANTS_MAX {
        let bytes = count(body.len(), "byte", "bytes");
        let message = format!("The hub asks for content by {bytes}, which is no list of ids.");
        return Err(Failure::new(
            Code::VersionUnsupported,
            message,
            "Install the same version of `cortex` here and on the hub.",
        ));
    }
    Ok(ids.iter().map(|id| ContentId::new(*id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_whole_and_at_most_as_many_as_one_answer_has() {
        assert_eq!(ids(&[]).expect("none"), []);
        assert_eq!(ids(&[7; 64]).expect("two"), [ContentId::new([7; 32]); 2]);
        for bad in [vec![0; 33], vec![0; (WANTS_MAX + 1) * ID_BYTES]] {
            ids(&bad).expect_err("no list");
        }
    }
}
