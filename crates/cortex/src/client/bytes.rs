//! Answers that are bytes: with their etag and their place in the whole, piece by piece.

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::{ANSWER_MAX, broken, not_our_answer};
use crate::error::Result;

/// The bytes of an answer.
pub(crate) struct Content {
    /// Names the content of the whole, when the hub knows it.
    pub(crate) etag: Option<String>,
    /// Which part of the whole it is; `None` for all of it.
    pub(crate) part: Option<Part>,
    /// Where it comes from, as the header says it.
    pub(crate) fresh: Option<String>,
    body: Incoming,
    /// Bytes that are still to come, of a part.
    left: Option<u64>,
}

/// A part of a whole. It is not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Its first byte.
    pub(crate) first: u64,
    /// The byte after its last.
    pub(crate) end: u64,
    /// Bytes of the whole.
    pub(crate) size: u64,
}

impl Part {
    /// `bytes 5-9/20`.
    fn parse(text: &str) -> Option<Self> {
        let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last, size) = (first.parse().ok()?, last.parse().ok()?, size.parse().ok()?);
        (first <= last && last < size).then(|| Self { first, end: last + 1, size })
    }
}

impl Content {
    pub(super) fn new(response: Response<Incoming>) -> Result<Self> {
        let (head, body) = response.into_parts();
        let text = |name| text(&head.headers, name);
        let part = if head.status == StatusCode::PARTIAL_CONTENT {
            let part = text(header::CONTENT_RANGE).and_then(Part::parse);
            Some(part.ok_or_else(|| not_our_answer("it does not say which part of the file it is"))?)
        } else {
            None
        };
        let etag = text(header::ETAG).map(|etag| etag.trim_matches('"').to_owned());
        let fresh = text(header::HeaderName::from_static("cortex-fresh")).map(str::to_owned);
        Ok(Self { etag, part, fresh, body, left: part.map(|part| part.end - part.first) })
    }

    /// The next bytes; `None` after the last. An answer that breaks off is an error, never an end.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>> {
        loop {
            let Ok(frame) = timeout(ANSWER_MAX, self.body.frame()).await else {
                return Err(broken("the answer stopped half way"));
            };
            match frame {
                None if self.left.unwrap_or(0) > 0 => return Err(broken("the answer ended half way")),
                None => return Ok(None),
                Some(Err(error)) => return Err(broken(&error.to_string())),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Ok(Some(data));
                }
            }
        }
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_says_where_it_lies_or_is_none() {
        let part = |first, end, size| Some(Part { first, end, size });
        assert_eq!(Part::parse("bytes 0-0/1"), part(0, 1, 1));
        assert_eq!(Part::parse("bytes 5-9/20"), part(5, 10, 20));
        for text in
            ["", "bytes 0-1", "bytes 5-4/20", "bytes 0-20/20", "bytes */20", "bytes 0-1/*", "lines 0-1/3"]
        {
            assert_eq!(Part::parse(text), None, "{text}");
        }
    }
}
