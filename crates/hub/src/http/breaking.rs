//! Answers that must not end as if they were whole.

use std::io;

use axum::body::Bytes;
use futures::{Stream, StreamExt as _, stream};

/// The bytes; what is over before their end breaks them off, since an answer that ends whole is taken
/// for all there is. Nothing follows an error.
pub(super) fn broken_off_by(
    over: impl Future<Output = ()> + Send + 'static,
    bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::unfold(Some((Box::pin(bytes), Box::pin(over))), |reading| async move {
        let (mut bytes, mut over) = reading?;
        let next = tokio::select! {
            next = bytes.next() => next?,
            () = over.as_mut() => Err(io::Error::other("the answer was broken off")),
        };
        let go_on = next.is_ok().then_some((bytes, over));
        Some((next, go_on))
    })
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn an_answer_that_a_stopping_hub_breaks_off_does_not_end_whole() {
        let shutdown = CancellationToken::new();
        let first = stream::iter([Ok(Bytes::from_static(b"a part"))]);
        let bytes = broken_off_by(shutdown.clone().cancelled_owned(), first.chain(stream::pending()));
        tokio::pin!(bytes);
        assert!(bytes.next().await.is_some_and(|part| part.is_ok()));
        shutdown.cancel();
        assert!(bytes.next().await.is_some_and(|part| part.is_err()), "not the end, but an error");
        assert!(bytes.next().await.is_none());
    }

    #[tokio::test]
    async fn an_answer_that_has_ended_stays_whole_when_the_hub_stops() {
        let shutdown = CancellationToken::new();
        let whole = stream::iter([Ok(Bytes::from_static(b"all"))]);
        let bytes: Vec<_> = broken_off_by(shutdown.clone().cancelled_owned(), whole).collect().await;
        shutdown.cancel();
        assert!(matches!(&bytes[..], [Ok(all)] if all == "all"));
    }
}
