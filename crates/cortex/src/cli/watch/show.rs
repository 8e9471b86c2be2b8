//! How run events look: bytes as they are for one node, lines with the node's name for several,
//! NDJSON for programs.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cortex_core::name::printable;
use cortex_core::stream::Stream;
use cortex_wire::error::Problem;
use cortex_wire::http::RunEvent;

use crate::error::Result;
use crate::output::Output;

/// A longer piece without a line end is shown as a line of its own.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// How to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Bytes as they are.
    Plain,
    /// Each line behind the node's name.
    Prefixed,
    /// NDJSON.
    Json,
}

/// Shows events.
pub(crate) struct Show {
    output: Output,
    manner: Manner,
    /// Only this stream.
    only: Option<Stream>,
    /// Begun lines by node and stream.
    lines: BTreeMap<(String, Stream), Vec<u8>>,
    /// Nodes in the order in which they were heard, for their colours.
    nodes: Vec<String>,
}

impl Show {
    /// For one or several nodes.
    pub(crate) const fn new(output: Output, several: bool, only: Option<Stream>) -> Self {
        let manner = match (output.json, several) {
            (true, _) => Manner::Json,
            (false, true) => Manner::Prefixed,
            (false, false) => Manner::Plain,
        };
        Self { output, manner, only, lines: BTreeMap::new(), nodes: Vec::new() }
    }

    pub(super) fn accepted(&mut self, _run_id: &str, node: &str) -> Result {
        self.nodes.push(node.to_owned());
        Ok(())
    }

    /// Says who is waited for, and how that one answers.
    pub(super) fn asked(&self, event: &RunEvent) -> Result {
        if self.manner == Manner::Json {
            return self.output.json(event);
        }
        let RunEvent::Asked { consent_id, node, rule, expires_at, .. } = event else { return Ok(()) };
        let rule = printable(rule, 200);
        self.output
            .say(&format!("{node}: a person is asked first (rule {rule}); waiting until {expires_at} …"));
        self.output.say(&format!("  somebody else answers with: cortex consent approve {consent_id}"));
        Ok(())
    }

    pub(super) fn output(
        &mut self,
        run_id: &str,
        node: &str,
        stream: Stream,
        offset: u64,
        bytes: &[u8],
    ) -> Result {
        if self.only.is_some_and(|only| only != stream) {
            return Ok(());
        }
        match self.manner {
            Manner::Plain => self.put(stream, bytes),
            Manner::Prefixed => self.prefixed(node, stream, bytes),
            Manner::Json => self.output.json(&output_event(run_id, node, stream, offset, bytes)),
        }
    }

    pub(super) fn lost(&mut self, run_id: &str, node: &str, stdout: u64, stderr: u64) -> Result {
        if self.manner == Manner::Json {
            let (run_id, node) = (run_id.to_owned(), node.to_owned());
            return self.output.json(&RunEvent::Lost { run_id, node, stdout, stderr });
        }
        self.output.say(&format!("{node}: output is missing here; it was lost on the way."));
        Ok(())
    }

    pub(super) fn state(&mut self, node: &str, state: &str) {
        if state == "disconnected" && self.manner != Manner::Json {
            self.output.say(&format!("{node} is away; the run waits for it."));
        }
    }

    pub(super) fn exit(&mut self, event: &RunEvent) -> Result {
        if self.manner == Manner::Json {
            return self.output.json(event);
        }
        let RunEvent::Exit { node, diagnostic, state, .. } = event else { return Ok(()) };
        self.finish_lines(node)?;
        let words = state.replace('_', " ");
        match diagnostic {
            Some(diagnostic) => self.output.say(&format!("{node}: {words}: {diagnostic}")),
            // What several nodes did stands in their summary; one that just exited says it by its code.
            None if self.manner == Manner::Plain && state != "exited" => {
                self.output.say(&format!("{node}: {words}."));
            }
            None => {}
        }
        Ok(())
    }

    pub(super) fn refused(&mut self, node: &str, error: &Problem) -> Result {
        match self.manner {
            // The only node's refusal is the refusal of the command; it is shown at its end.
            Manner::Plain => Ok(()),
            Manner::Prefixed => {
                self.output.say(&format!("{node}: {} {}", error.message, error.hint));
                Ok(())
            }
            Manner::Json => {
                self.output.json(&RunEvent::Refused { node: node.to_owned(), error: error.clone() })
            }
        }
    }

    fn put(&self, stream: Stream, bytes: &[u8]) -> Result {
        match stream {
            Stream::Stdout => self.output.bytes(bytes),
            Stream::Stderr => self.output.bytes_err(bytes),
        }
    }

    fn prefixed(&mut self, node: &str, stream: Stream, bytes: &[u8]) -> Result {
        let prefix = self.prefix(node);
        let begun = self.lines.entry((node.to_owned(), stream)).or_default();
        begun.extend_from_slice(bytes);
        let end = match begun.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if begun.len() > LINE_BYTES_MAX => begun.len(),
            None => return Ok(()),
        };
        let whole: Vec<u8> = begun.drain(..end).collect();
        let mut shown = Vec::with_capacity(whole.len() + 64);
        for line in whole.split_inclusive(|byte| *byte == b'\n') {
            shown.extend_from_slice(prefix.as_bytes());
            shown.extend_from_slice(line);
        }
        if shown.last() != Some(&b'\n') {
            shown.push(b'\n');
        }
        self.put(stream, &shown)
    }

    fn prefix(&mut self, node: &str) -> String {
        let index = self.nodes.iter().position(|known| known == node).unwrap_or(0);
        self.output.tint(index, &format!("{node} │ "))
    }

    /// Last lines without an end.
    fn finish_lines(&mut self, node: &str) -> Result {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = self.lines.remove(&(node.to_owned(), stream)).unwrap_or_default();
            if !rest.is_empty() {
                let prefix = self.prefix(node);
                self.put(stream, &[prefix.as_bytes(), &rest, b"\n"].concat())?;
            }
        }
        Ok(())
    }
}

fn output_event(run_id: &str, node: &str, stream: Stream, offset: u64, bytes: &[u8]) -> RunEvent {
    let text = std::str::from_utf8(bytes).ok().map(str::to_owned);
    RunEvent::Output {
        run_id: run_id.to_owned(),
        node: node.to_owned(),
        stream: stream.as_str().to_owned(),
        offset,
        data_base64: text.is_none().then(|| STANDARD.encode(bytes)),
        data: text,
    }
}
