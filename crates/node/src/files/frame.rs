//! What a node and its clerks tell each other: frames over two pipes, `len u32 | kind u8 | body`, the
//! length being that of the body, little-endian. Each side bounds what it reads before it takes memory:
//! a clerk works among files that others chose, and what it answers is foreign input to its node.

use std::io::{self, IoSlice, Read, Write};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes of one body: a message of the link, and what describes it.
pub(crate) const BODY_BYTES_MAX: usize = 320 * 1024;
/// Length and kind in front of a body.
const HEAD_BYTES: usize = 5;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// What it is.
    pub(crate) kind: Kind,
    /// By its kind.
    pub(crate) body: Bytes,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To the clerk: an operation, which begins. To the node: its answer, which ends it.
    Operation,
    /// To the clerk: look for what an operation left that was cut off, and tell what is at its path.
    Recovery,
    /// To the node: all is ready, and the next step shows it to others. With the etag of the content that
    /// a file gets, when one does.
    Prepared,
    /// To the clerk: take that step.
    Commit,
    /// To the clerk: leave all as it was. Also in place of [`Kind::Go`].
    Abort,
    /// To the clerk: a transfer, which begins. To the node: it is over; with what is told of it when that
    /// was not said on its stream.
    Transfer,
    /// To the node: the stream to the hub is wanted. To the clerk: it is there.
    Open,
    /// Either way: one frame between clerk and hub, which the node does not look into
    /// ([`cortex_core::transfer::Carry`]).
    Stream,
    /// Either way: nothing more comes on the stream.
    StreamEnd,
    /// To the node: may the next changes be seen by others?
    Gate,
    /// To the clerk: they may.
    Go,
    /// To the clerk: a folder to watch, and nothing but folders to watch from here on. To the node: what is
    /// seen of one.
    Watch,
    /// To the clerk: watch this one no more.
    Unwatch,
}

impl Kind {
    const ALL: [Self; 13] = [
        Self::Operation,
        Self::Recovery,
        Self::Prepared,
        Self::Commit,
        Self::Abort,
        Self::Transfer,
        Self::Open,
        Self::Stream,
        Self::StreamEnd,
        Self::Gate,
        Self::Go,
        Self::Watch,
        Self::Unwatch,
    ];

    const fn to_byte(self) -> u8 {
        match self {
            Self::Operation => b'O',
            Self::Recovery => b'R',
            Self::Prepared => b'P',
            Self::Commit => b'C',
            Self::Abort => b'A',
            Self::Transfer => b'T',
            Self::Open => b'W',
            Self::Stream => b'S',
            Self::StreamEnd => b'E',
            Self::Gate => b'G',
            Self::Go => b'g',
            Self::Watch => b'V',
            Self::Unwatch => b'v',
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.to_byte() == byte)
    }
}

impl Frame {
    pub(crate) fn new(kind: Kind, body: impl Into<Bytes>) -> Self {
        Self { kind, body: body.into() }
    }

    /// Length and kind.
    ///
    /// # Errors
    /// `InvalidInput` for a body that no reader takes.
    fn head(&self) -> io::Result<[u8; HEAD_BYTES]> {
        let len = u32::try_from(self.body.len()).ok().filter(|len| *len as usize <= BODY_BYTES_MAX);
        let [a, b, c, d] = len.ok_or(io::ErrorKind::InvalidInput)?.to_le_bytes();
        Ok([a, b, c, d, self.kind.to_byte()])
    }

    pub(crate) fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        let head = self.head()?;
        let mut both = Buf::chain(&head[..], &self.body[..]);
        while both.has_remaining() {
            let mut slices = [IoSlice::new(&[]), IoSlice::new(&[])];
            let count = both.chunks_vectored(&mut slices);
            match out.write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => both.advance(written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        out.flush()
    }

    /// The same without blocking. Half a frame may be written when this is dropped before its end.
    pub(crate) async fn send_to(&self, out: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let head = self.head()?;
        out.write_all_buf(&mut Buf::chain(&head[..], &self.body[..])).await
    }

    /// The next frame; `None` at the end between two.
    ///
    /// # Errors
    /// `InvalidData` for what is no frame, `UnexpectedEof` for one that was cut off, else the system's.
    pub(crate) fn read_from(source: &mut impl Read) -> io::Result<Option<Self>> {
        let mut head = [0; HEAD_BYTES];
        let mut filled = 0;
        while filled < HEAD_BYTES {
            match source.read(&mut head[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let (kind, len) = judge(head)?;
        let mut body = Vec::with_capacity(len);
        source.take(len as u64).read_to_end(&mut body)?;
        if body.len() < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(Self { kind, body: body.into() }))
    }

    /// The same without blocking. What was read is lost when this is dropped before its end: then the
    /// clerk cannot be used further.
    pub(crate) async fn receive_from(source: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let mut head = [0; HEAD_BYTES];
        if source.read(&mut head[..1]).await? == 0 {
            return Ok(None);
        }
        source.read_exact(&mut head[1..]).await?;
        let (kind, len) = judge(head)?;
        let mut body = Vec::with_capacity(len);
        source.take(len as u64).read_to_end(&mut body).await?;
        if body.len() < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(Self { kind, body: body.into() }))
    }
}

fn judge([a, b, c, d, kind]: [u8; HEAD_BYTES]) -> io::Result<(Kind, usize)> {
    let len = u32::from_le_bytes([a, b, c, d]) as usize;
    let kind = Kind::from_byte(kind).filter(|_| len <= BODY_BYTES_MAX);
    kind.map(|kind| (kind, len)).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<Frame>, ErrorKind> {
        let mut source = bytes;
        Frame::read_from(&mut source).map_err(|error| error.kind())
    }

    async fn receive(mut bytes: &[u8]) -> Result<Option<Frame>, ErrorKind> {
        Frame::receive_from(&mut bytes).await.map_err(|error| error.kind())
    }

    #[tokio::test]
    async fn every_frame_is_read_as_it_was_written_and_a_cut_one_is_not() {
        for kind in Kind::ALL {
            for body in [&b""[..], b"x", &[7; 3_000]] {
                let frame = Frame::new(kind, Bytes::copy_from_slice(body));
                let mut bytes = Vec::new();
                frame.write_to(&mut bytes).expect("it fits");
                let mut sent = Vec::new();
                frame.send_to(&mut sent).await.expect("it fits");
                assert_eq!(sent, bytes);
                assert_eq!(read(&bytes), Ok(Some(frame.clone())));
                assert_eq!(receive(&bytes).await, Ok(Some(frame)));
                for cut in 1..bytes.len().min(64) {
                    assert_eq!(read(&bytes[..cut]), Err(ErrorKind::UnexpectedEof), "cut at {cut}");
                    assert_eq!(receive(&bytes[..cut]).await, Err(ErrorKind::UnexpectedEof), "cut at {cut}");
                }
            }
        }
        assert_eq!((read(b""), receive(b"").await), (Ok(None), Ok(None)));
    }

    #[tokio::test]
    async fn no_length_is_believed_and_no_kind_is_guessed() {
        let too_long = Frame::new(Kind::Operation, vec![0; BODY_BYTES_MAX + 1]);
        let mut out = Vec::new();
        assert_eq!(too_long.write_to(&mut out).map_err(|error| error.kind()), Err(ErrorKind::InvalidInput));
        for head in [*b"\xff\xff\xff\xffO", *b"\x01\x00\x05\x00O", *b"\x00\x00\x00\x00x"] {
            assert_eq!(read(&head), Err(ErrorKind::InvalidData));
            assert_eq!(receive(&head).await, Err(ErrorKind::InvalidData));
        }
    }
}
