//! Which part of a file is read, and the answer of bytes. A range that the standard lets a server leave out
//! (several at once, or one from the end) is left out.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use cortex_core::files::answer::FileAnswer;
use cortex_core::files::op::ReadRange;
use cortex_core::limits::BODY_IDLE_MS_MAX;
use cortex_core::words::count;
use cortex_core::{Code, Refusal};
use futures::Stream;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::LookArgs;
use crate::http::file_view;
use crate::http::problem::{Failure, invalid};
use crate::service::files::{Download, FileReply};

/// What is read.
pub(super) struct Asked {
    pub(super) range: ReadRange,
    /// Whether a part was asked for.
    pub(super) is_part: bool,
}

/// The part that is asked for, by the query or, of bytes, by the header.
pub(super) fn of(args: &LookArgs, headers: &HeaderMap, as_bytes: bool) -> Result<Asked, Failure> {
    let by_lines = args.start_line.is_some() || args.lines.is_some();
    let by_bytes = args.offset.is_some() || args.bytes.is_some();
    if by_lines && by_bytes {
        return Err(invalid("`start_line`, `lines` and `offset`, `bytes` exclude each other."));
    }
    let range = if by_lines {
        let from = args.start_line.unwrap_or(1);
        ReadRange::Lines { from, count: args.lines.unwrap_or(u64::MAX - from) }
    } else if by_bytes {
        let from = args.offset.unwrap_or(0);
        ReadRange::Bytes { from, len: args.bytes.unwrap_or(u64::MAX - from) }
    } else {
        // Who asks for a part of content that may be another by now gets all of it.
        let named =
            headers.get(header::RANGE).filter(|_| as_bytes && !headers.contains_key(header::IF_RANGE));
        let text = named.and_then(|value| value.to_str().ok());
        text.and_then(range).map_or(ReadRange::All, |(from, len)| ReadRange::Bytes { from, len })
    };
    Ok(Asked { is_part: range != ReadRange::All, range })
}

/// First byte and length of `bytes=5-9` or `bytes=5-`.
fn range(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    if !is_number(first) || !(last.is_empty() || is_number(last)) {
        return None;
    }
    let first: u64 = first.parse().ok()?;
    let last = if last.is_empty() { u64::MAX - 1 } else { last.parse::<u64>().ok()?.min(u64::MAX - 1) };
    let len = last.checked_sub(first)? + 1;
    Some((first, len))
}

/// The bytes of a part, or of all: those that the answer holds, or those that `body` is to hold.
pub(super) fn answer(
    reply: FileReply,
    asked: &Asked,
    body: impl FnOnce() -> Option<Body>,
) -> Result<Response, Failure> {
    let (from, len, size, body) = match reply.answer {
        FileAnswer::Content { data, from, size, complete, .. } => {
            if !complete && !asked.is_part {
                let message = format!(
                    "The file has {}, more than `max_bytes` lets through.",
                    count(size, "byte", "bytes")
                );
                let refusal =
                    Refusal::new(Code::TooLarge, message).hint("Leave `max_bytes` out, or ask for a range.");
                return Err(refusal.detail("size", size.to_string()).into());
            }
            (from, data.len() as u64, size, Body::from(data))
        }
        FileAnswer::Streaming { size, .. } => {
            let (from, end) = match asked.range {
                ReadRange::Bytes { from, len } => (from.min(size), from.saturating_add(len).min(size)),
                ReadRange::All | ReadRange::Lines { .. } => (0, size),
            };
            (from, end - from, size, body().ok_or_else(file_view::another)?)
        }
        FileAnswer::Listing { .. }
        | FileAnswer::Meta(_)
        | FileAnswer::Matches { .. }
        | FileAnswer::Written { .. }
        | FileAnswer::Done { .. } => return Err(file_view::another().into()),
    };
    if asked.is_part && len == 0 {
        let refusal = Refusal::new(
            Code::InvalidArgument,
            format!("Nothing of the file is in this range: it has {}.", count(size, "byte", "bytes")),
        )
        .hint("Ask for a range that begins before its end.")
        .detail("size", size.to_string());
        return Err(Failure::with_status(refusal, StatusCode::RANGE_NOT_SATISFIABLE));
    }
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if asked.is_part {
        let last = from.saturating_add(len).saturating_sub(1);
        if let Ok(value) = HeaderValue::from_str(&format!("bytes {from}-{last}/{size}")) {
            headers.insert(header::CONTENT_RANGE, value);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// A body of what comes, as fast as its reader takes it. One that takes nothing for too long has ended.
pub(super) fn pieces(mut download: Download) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (give, taken) = mpsc::channel(1);
    drop(tokio::spawn(async move {
        loop {
            let next = tokio::select! {
                next = download.next() => next,
                () = give.closed() => return,
            };
            let (piece, is_last) = match next {
                Ok(Some(piece)) => (Ok(piece), false),
                Ok(None) => return,
                Err(refusal) => {
                    tracing::debug!(code = %refusal.code, "content broke off: {refusal}");
                    (Err(io::Error::other(refusal)), true)
                }
            };
            let given = tokio::time::timeout(Duration::from_millis(BODY_IDLE_MS_MAX), give.send(piece)).await;
            match given {
                Ok(Ok(())) if !is_last => {}
                Ok(_) => return,
                Err(_idle) => {
                    tracing::debug!("a reader takes nothing of its content");
                    return;
                }
            }
        }
    }));
    ReceiverStream::new(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_read_as_the_standard_has_it_and_what_is_none_is_left_out() {
        for (text, expected) in [
            ("bytes=0-0", Some((0, 1))),
            ("bytes=5-9", Some((5, 5))),
            ("bytes=5-", Some((5, u64::MAX - 5))),
            ("bytes=0-18446744073709551615", Some((0, u64::MAX))),
            ("bytes=18446744073709551615-", None),
            ("bytes=9-5", None),
            ("bytes=-5", None),
            ("bytes=0-1,3-4", None),
            ("bytes=+1-2", None),
            ("bytes=1-99999999999999999999", None),
            ("lines=1-2", None),
            ("bytes", None),
        ] {
            assert_eq!(range(text), expected, "{text}");
        }
    }
}
