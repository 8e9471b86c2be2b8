//! Streams of lines: NDJSON and server-sent events. A stream that breaks is told apart from one
//! that ended: the first is `hub_unreachable`, the second `None`.

use bytes::{Bytes, BytesMut};
use cortex_core::{Code, Refusal};
use cortex_wire::error::ErrorBody;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use crate::error::{Failure, Result};

/// Longest line that is read; above any frame of output in its widest form.
const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The lines of a body.
pub(crate) struct Lines {
    body: Incoming,
    buffer: BytesMut,
    /// Bytes of `buffer` known to hold no line end, so that none is looked at twice.
    searched: usize,
}

impl Lines {
    pub(super) fn new(body: Incoming) -> Self {
        Self { body, buffer: BytesMut::new(), searched: 0 }
    }

    /// The next line without its end. A last line without an end was cut off, and is dropped.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(line) = self.take_line() {
                return Ok(Some(line));
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(Refusal::new(Code::TooLarge, "The hub sent a line above 16 MiB.").into());
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(error)) => return Err(super::broken(&error.to_string())),
            }
        }
    }

    /// The next line as JSON; empty lines are a sign of life and skipped. A line that says why no
    /// more comes is that failure.
    pub(crate) async fn json<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        loop {
            let Some(line) = self.next().await? else { return Ok(None) };
            if line.is_empty() {
                continue;
            }
            return match serde_json::from_slice(&line) {
                Ok(value) => Ok(Some(value)),
                Err(error) => Err(match serde_json::from_slice::<ErrorBody>(&line) {
                    Ok(told) => told.error.into(),
                    Err(_) => super::not_our_answer(&error.to_string()),
                }),
            };
        }
    }

    /// The next bytes as they come, for a body that has no lines.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => return Err(super::broken(&error.to_string())),
            }
        }
    }

    fn take_line(&mut self) -> Option<Bytes> {
        let Some(found) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            return None;
        };
        let mut line = self.buffer.split_to(self.searched + found + 1);
        self.searched = 0;
        line.truncate(line.len() - 1);
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        Some(line.freeze())
    }
}

/// One server-sent event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerEvent {
    /// Its number, for `Last-Event-ID`.
    pub(crate) id: Option<String>,
    /// Its kind.
    pub(crate) kind: String,
    /// Its data.
    pub(crate) data: String,
}

/// Events of `GET /events`.
pub(crate) struct ServerEvents(Lines);

impl ServerEvents {
    pub(super) const fn new(lines: Lines) -> Self {
        Self(lines)
    }

    /// The next event with data; comments are a sign of life and skipped.
    pub(crate) async fn next(&mut self) -> Result<Option<ServerEvent>> {
        let mut event = ServerEvent::default();
        loop {
            let Some(line) = self.0.next().await? else { return Ok(None) };
            let text = std::str::from_utf8(&line).map_err(|error| Failure::from(bad(&error)))?;
            if text.is_empty() {
                if !event.data.is_empty() {
                    return Ok(Some(event));
                }
                continue;
            }
            let (field, value) = text.split_once(':').unwrap_or((text, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "id" => event.id = Some(value.to_owned()),
                "event" => value.clone_into(&mut event.kind),
                "data" => event.data.push_str(value),
                _ => {}
            }
        }
    }
}

fn bad(error: &std::str::Utf8Error) -> Refusal {
    Refusal::new(Code::VersionUnsupported, format!("The hub's events are not text: {error}."))
}
