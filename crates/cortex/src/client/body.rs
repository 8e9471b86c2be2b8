//! Bodies of requests: bytes that are there, or a source that is read while it is sent. Of a source no
//! more than a few pieces are held, however long it is.

use std::io::{self, Read};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::mpsc;

use crate::error::Failure;

/// Bytes that are read at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces that wait to be sent.
const PIECES_WAITING: usize = 2;

/// A body.
pub(crate) enum Body {
    /// It is here.
    Whole(Full<Bytes>),
    /// It is read while it is sent.
    Source(Source),
}

/// What is read while it is sent. One that fails, or ends before its length, breaks the request off, so
/// that the hub never takes a part for the whole.
pub(crate) struct Source {
    pieces: Pieces,
    /// Bytes that are still to come, when its length is known.
    left: Option<u64>,
    watch: Arc<Watch>,
}

/// What a source still has.
enum Pieces {
    /// Read by a thread.
    Read(mpsc::Receiver<io::Result<Bytes>>),
    /// All of it, from its front.
    Here(Vec<Bytes>),
}

/// How far a source has come.
#[derive(Default)]
pub(super) struct Watch {
    moved: AtomicU64,
    waits: AtomicBool,
    failed: OnceLock<String>,
}

impl Watch {
    /// Pieces that were sent.
    pub(super) fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Whether the next piece is waited for.
    pub(super) fn waits(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    /// Why the source could not be read.
    pub(super) fn failed(&self) -> Option<Failure> {
        let why = self.failed.get()?;
        Some(Failure::new(
            cortex_core::Code::InvalidArgument,
            format!("The content cannot be read here: {why}."),
            "Nothing was written. Give a file that can be read whole, or its content on standard input.",
        ))
    }
}

impl Source {
    /// Reads `source` in a thread of its own: a read from a pipe cannot be called off. Of a `length` that is
    /// known no byte more is sent.
    pub(crate) fn new(source: impl Read + Send + 'static, length: Option<u64>) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES_WAITING);
        let source = source.take(length.unwrap_or(u64::MAX));
        std::thread::spawn(move || read_all(source, &sender));
        Self { pieces: Pieces::Read(pieces), left: length, watch: Arc::default() }
    }

    /// Bytes that are here, one after the other. They go piece by piece, so that it is seen whether they are taken:
    /// on a slow line that takes longer than any answer may.
    pub(crate) fn here(bytes: Vec<Bytes>) -> Self {
        let left = bytes.iter().map(|bytes| bytes.len() as u64).sum();
        Self { pieces: Pieces::Here(bytes), left: Some(left), watch: Arc::default() }
    }

    fn fails(&self, error: io::Error) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.watch.failed.get_or_init(|| error.to_string());
        Poll::Ready(Some(Err(error)))
    }
}

impl Pieces {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        match self {
            Self::Read(pieces) => pieces.poll_recv(context),
            Self::Here(bytes) => {
                bytes.retain(|bytes| !bytes.is_empty());
                let piece = bytes.first_mut().map(|first| first.split_to(first.len().min(PIECE_BYTES)));
                Poll::Ready(piece.map(Ok))
            }
        }
    }
}

/// Sends every piece, and an error as the last one. Ends when nobody listens.
fn read_all(mut source: impl Read, pieces: &mpsc::Sender<io::Result<Bytes>>) {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let piece = match source.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => Ok(Bytes::copy_from_slice(&buffer[..read])),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let is_last = piece.is_err();
        if pieces.blocking_send(piece).is_err() || is_last {
            return;
        }
    }
}

impl Body {
    /// Bytes that are here.
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Full::new(bytes.into()))
    }

    /// How far it has come, when that takes time of its own.
    pub(super) fn watch(&self) -> Option<Arc<Watch>> {
        match self {
            Self::Whole(_) => None,
            Self::Source(source) => Some(Arc::clone(&source.watch)),
        }
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::whole(Bytes::new())
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let source = match self.get_mut() {
            Self::Whole(whole) => {
                return Pin::new(whole).poll_frame(context).map_err(|never| match never {});
            }
            Self::Source(source) => source,
        };
        source.watch.waits.store(true, Ordering::Relaxed);
        let piece = ready!(source.pieces.poll_next(context));
        source.watch.waits.store(false, Ordering::Relaxed);
        source.watch.moved.fetch_add(1, Ordering::Relaxed);
        match piece {
            Some(Ok(bytes)) => {
                source.left = source.left.map(|left| left.saturating_sub(bytes.len() as u64));
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Some(Err(error)) => source.fails(error),
            None if source.left.is_some_and(|left| left > 0) => {
                source.fails(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter meanwhile"))
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Source(source) => source.left == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Source(source) => source.left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    /// Gives what it holds, and then fails.
    struct Torn(&'static [u8]);

    impl Read for Torn {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() { Err(io::Error::other("the disk is gone")) } else { self.0.read(buffer) }
        }
    }

    async fn sent(source: Source) -> io::Result<Bytes> {
        Body::Source(source).collect().await.map(http_body_util::Collected::to_bytes)
    }

    #[tokio::test]
    async fn a_source_is_sent_whole_and_one_with_a_length_no_further() {
        let long = vec![7; 3 * PIECE_BYTES + 1];
        assert_eq!(sent(Source::new(io::Cursor::new(long.clone()), None)).await.expect("sent"), long);
        let grown = Source::new(io::Cursor::new(long.clone()), Some(PIECE_BYTES as u64 + 1));
        assert_eq!(Body::Source(grown).size_hint().exact(), Some(PIECE_BYTES as u64 + 1));
        let grown = Source::new(io::Cursor::new(long.clone()), Some(PIECE_BYTES as u64 + 1));
        assert_eq!(sent(grown).await.expect("sent"), long[..=PIECE_BYTES]);
        assert_eq!(sent(Source::new(io::empty(), Some(0))).await.expect("sent"), "");
        let here = || Source::here(vec![Bytes::from_static(b"1"), Bytes::new(), long.clone().into()]);
        assert_eq!(Body::Source(here()).size_hint().exact(), Some(3 * PIECE_BYTES as u64 + 2));
        assert_eq!(sent(here()).await.expect("sent"), [b"1", &long[..]].concat());
        assert_eq!(sent(Source::here(Vec::new())).await.expect("sent"), "");
        assert_eq!(sent(Source::new(io::empty(), None)).await.expect("sent"), "");
    }

    #[tokio::test]
    async fn a_source_that_fails_or_is_shorter_than_its_length_is_never_taken_for_whole() {
        for (source, why) in [
            (Source::new(Torn(b"half"), None), "the disk is gone"),
            (Source::new(Torn(b"half"), Some(8)), "the disk is gone"),
            (Source::new(&b"half"[..], Some(8)), "shorter"),
        ] {
            let watch = Arc::clone(&source.watch);
            sent(source).await.expect_err("torn");
            let failure = watch.failed().expect("it says why");
            assert!(format!("{failure:?}").contains(why), "{failure:?}");
        }
    }
}
