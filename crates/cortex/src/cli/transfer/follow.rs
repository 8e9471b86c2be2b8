//! A transfer from its order to its end: begun once however often it is sent, then asked for its news. A
//! hub that is away for a while is waited for.

use cortex_core::Code;
use cortex_wire::http::{TransferOrder, TransferView};
use http::Method;
use tokio::time::{Duration, Instant, sleep};

use super::cancelled;
use crate::cli::exec::idempotency_key;
use crate::cli::fs::own_attempt;
use crate::cli::interrupt::Interrupt;
use crate::cli::watch::Patience;
use crate::client::{Call, Client, encode, was_sent};
use crate::error::{Failure, Result};
use crate::output::Output;

/// How long the hub may wait for news before it answers; within what it takes, and within the deadline of a
/// call.
pub(in crate::cli) const WAIT_MS: u64 = 25_000;
/// Pause before another question, when the last was answered without news at once.
const PAUSE: Duration = Duration::from_millis(100);

/// First and longest pause while the token has too many transfers open.
const FULL_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// Calls until it is answered, or the hub was away for too long. Only for what may be done twice.
pub(in crate::cli) async fn again<T>(
    client: &mut Client,
    mut call: impl AsyncFnMut(&mut Client) -> Result<T>,
) -> Result<T> {
    let mut patience = Patience::new(client.target().reconnect_max);
    loop {
        match call(client).await {
            Err(failure) if failure.is_transport() && patience.wait(false).await => {}
            ended => return ended,
        }
    }
}

/// Begins a transfer; a push may be under the `lock` of a workspace. A hub that cannot be reached at all is told
/// at once, unless it was there before: `is_anew`. While its token has too many open it waits for its turn, for as long
/// as they take. What was begun and interrupted at the same moment is cancelled.
pub(in crate::cli) async fn begin(
    client: &mut Client,
    order: &TransferOrder,
    lock: Option<u64>,
    is_anew: bool,
    (output, is_quiet, interrupt): (Output, bool, &mut Interrupt),
) -> Result<TransferView> {
    let mut pause = FULL_PAUSE.0;
    loop {
        let failure = match begin_now(client, order, lock, is_anew, (output, interrupt)).await {
            Err(Failure::Refused(refused)) if refused.problem.code() == Code::RateLimited => refused,
            begun => return begun,
        };
        if pause == FULL_PAUSE.0 && !is_quiet {
            output.say(&format!("{} Waiting for one of them to end.", failure.problem.message));
        }
        tokio::select! {
            () = sleep(pause) => {}
            status = interrupt.wait() => {
                output.say("Nothing was begun.");
                return Err(Failure::Exit(status));
            }
        }
        pause = (pause * 2).min(FULL_PAUSE.1);
    }
}

async fn begin_now(
    client: &mut Client,
    order: &TransferOrder,
    lock: Option<u64>,
    is_anew: bool,
    (output, interrupt): (Output, &mut Interrupt),
) -> Result<TransferView> {
    let (status, begun) = {
        let mut sending = std::pin::pin!(send(client, order, lock, is_anew));
        tokio::select! {
            begun = &mut sending => return begun,
            status = interrupt.wait() => {
                output.say("Leaving when the hub has answered; Ctrl-C again leaves at once.");
                let begun = tokio::select! {
                    begun = &mut sending => begun.ok(),
                    _ = interrupt.wait() => None,
                };
                (status, begun)
            }
        }
    };
    match begun {
        Some(view) => Err(give_up(output, client, &view.id, interrupt, status).await),
        None => Err(Failure::Exit(status)),
    }
}

/// Ends it at the first interrupt; the second one leaves at once.
pub(in crate::cli) async fn give_up(
    output: Output,
    client: &mut Client,
    id: &str,
    interrupt: &mut Interrupt,
    status: u8,
) -> Failure {
    output.say("Cancelling the transfer; Ctrl-C again leaves at once.");
    let later = format!("Cancel it with `cortex transfer cancel {id}`; it also ends by itself.");
    tokio::select! {
        ended = cancel(client, id) => match ended {
            Ok(view) => output.say(&cancelled(&view)),
            Err(failure) => {
                output.end(Err(failure));
                output.say(&later);
            }
        },
        _ = interrupt.wait() => output.say(&later),
    }
    Failure::Exit(status)
}

async fn send(
    client: &mut Client,
    order: &TransferOrder,
    lock: Option<u64>,
    is_anew: bool,
) -> Result<TransferView> {
    let (key, attempt) = (idempotency_key()?, own_attempt()?);
    let mut patience = Patience::new(client.target().reconnect_max);
    let mut was_there = is_anew;
    loop {
        let mut call = Call::json(order)?.header("idempotency-key", &key);
        if let Some(attempt) = &attempt {
            call = call.header("cortex-attempt", attempt);
        }
        if let Some(epoch) = lock {
            call = call.header("cortex-lock", epoch.to_string());
        }
        let failure = match client.call(Method::POST, "/transfers", call).await {
            Ok(view) => return Ok(view),
            Err(failure) => failure,
        };
        was_there |= was_sent(&failure);
        if !was_there || !failure.is_transport() || !patience.wait(false).await {
            return Err(failure);
        }
    }
}

/// Follows it to its end. `seen` hears of every change.
pub(in crate::cli) async fn follow(
    client: &mut Client,
    mut view: TransferView,
    mut seen: impl FnMut(&TransferView),
) -> Result<TransferView> {
    loop {
        seen(&view);
        if view.state != "open" {
            return Ok(view);
        }
        let asked = Instant::now();
        let path = format!("{}?after={}&wait_ms={WAIT_MS}", path(&view.id), view.seq);
        let news: TransferView = again(client, async |client: &mut Client| client.get(&path).await).await?;
        if news.seq == view.seq && asked.elapsed() < PAUSE {
            sleep(PAUSE).await;
        }
        view = news;
    }
}

/// Ends it before its end.
pub(in crate::cli) async fn cancel(client: &mut Client, id: &str) -> Result<TransferView> {
    let path = path(id);
    again(client, async |client: &mut Client| client.call(Method::DELETE, &path, Call::default()).await).await
}

/// The address of a transfer.
pub(in crate::cli) fn path(id: &str) -> String {
    format!("/transfers/{}", encode(id))
}
