//! Streams that end when their caller may see no more of them: a lock, the end of its token, or of its
//! right. They say why.

use std::collections::VecDeque;
use std::pin::Pin;

use cortex_core::Refusal;
use futures::{Stream, StreamExt as _, stream};

use crate::service::standing::Standing;

/// The items, for as long as the caller stands; then `last` says what follows in their place, and
/// nothing more comes.
pub(super) fn until_shut_out<S, L>(
    standing: Standing,
    items: S,
    last: L,
) -> impl Stream<Item = S::Item> + Send + use<S, L>
where
    S: Stream + Send + 'static,
    S::Item: Send,
    L: FnOnce(Refusal) -> Vec<S::Item> + Send,
{
    until(items, standing.ended(), last)
}

/// A stream, what ends it, and what is said then.
type Open<S, F, L> = (Pin<Box<S>>, Pin<Box<F>>, L);

/// What is left of a stream.
struct Left<S: Stream, F, L> {
    /// Gone with the end.
    items: Option<Open<S, F, L>>,
    tail: VecDeque<S::Item>,
}

fn until<S, F, L>(items: S, shut: F, last: L) -> impl Stream<Item = S::Item> + Send
where
    S: Stream + Send,
    S::Item: Send,
    F: Future<Output = Refusal> + Send,
    L: FnOnce(Refusal) -> Vec<S::Item> + Send,
{
    let left = Left { items: Some((Box::pin(items), Box::pin(shut), last)), tail: VecDeque::new() };
    stream::unfold(left, |mut left| async move {
        let Some((mut items, mut shut, last)) = left.items.take() else {
            return left.tail.pop_front().map(|item| (item, left));
        };
        tokio::select! {
            biased;
            refusal = &mut shut => {
                left.tail = last(refusal).into();
                left.tail.pop_front().map(|item| (item, left))
            }
            next = items.next() => {
                left.items = Some((items, shut, last));
                next.map(|item| (item, left))
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use cortex_core::Code;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_stream_goes_on_until_its_caller_is_shut_out_and_then_says_why_and_ends() {
        let (shut, heard) = oneshot::channel::<()>();
        let gate = async move {
            let _shut = heard.await;
            Refusal::new(Code::Locked, "no")
        };
        let items = stream::iter(["a", "b"]).chain(stream::repeat("more"));
        let told = until(items, gate, |refusal| vec![refusal.code.as_str(), "end"]);
        tokio::pin!(told);
        assert_eq!(told.next().await, Some("a"));
        assert_eq!(told.next().await, Some("b"));
        assert_eq!(told.next().await, Some("more"));
        shut.send(()).expect("it listens");
        assert_eq!(told.collect::<Vec<_>>().await, ["locked", "end"]);
    }

    #[tokio::test]
    async fn a_stream_that_has_ended_says_nothing_more() {
        let told = until(stream::iter([1, 2]), std::future::pending(), |_| vec![3]);
        assert_eq!(told.collect::<Vec<_>>().await, [1, 2]);
    }
}
