//! Output and ends on their way to the hub: runs take turns, within their credit, and an end goes
//! after the last byte.

use super::local::{Local, Phase};
use super::{Action, NodeRuns};
use crate::id::RunId;
use crate::limits;
use crate::message::ToHub;
use crate::stream::{Positions, Stream};

impl NodeRuns {
    /// The process wrote `len` bytes, and the spool has them.
    pub fn wrote(&mut self, run: RunId, stream: Stream, len: u64) {
        if let Some(local) = self.runs.get_mut(&run) {
            local.written.advance(stream, len);
            local.output.wrote(len);
        }
    }

    /// Keeps less output of each run for the hub than the bound of the system.
    pub fn keep_at_most(&mut self, bytes: u64) {
        self.spool_bytes_max = bytes.min(limits::SPOOL_BYTES_MAX);
    }

    /// Whether the driver may read more of the process's output: the answer to a full spool is
    /// to let the process wait. What a process leaves behind that a lock ended is a pipe full.
    pub fn may_read(&self, run: RunId) -> bool {
        let has_room = |local: &Local| local.cut || local.output.kept() < self.spool_bytes_max;
        self.runs.get(&run).is_some_and(has_room)
    }

    /// Where the output of a run stands.
    pub fn written(&self, run: RunId) -> Option<Positions> {
        self.runs.get(&run).map(|local| local.written)
    }

    /// The next output to send: run, position, at most how many bytes. Runs take turns.
    /// The driver reads the spool there, sends a frame of one stream, calls [`Self::sent`].
    pub fn poll_output(&mut self) -> Option<(RunId, u64, u64)> {
        if !self.linked {
            return None;
        }
        let turn = self.last_sent;
        let after = self.runs.iter().filter(|(id, _)| turn.is_none_or(|turn| **id > turn));
        let upto = self.runs.iter().filter(|(id, _)| turn.is_some_and(|turn| **id <= turn));
        let (run, position, len) = after
            .chain(upto)
            .filter(|(_, local)| !local.forgotten && !local.cut)
            .find_map(|(id, local)| {
                local.output.sendable(limits::FRAME_BYTES_MAX as u64).map(|(at, len)| (*id, at, len))
            })?;
        self.last_sent = Some(run);
        Some((run, position, len))
    }

    /// `len` bytes of output went out.
    pub fn sent(&mut self, run: RunId, len: u64) {
        if let Some(local) = self.runs.get_mut(&run) {
            local.output.sent_bytes(len);
        }
    }

    /// The next end to tell: of a run whose output was sent to the last byte, or was cut.
    pub fn poll_end(&mut self) -> Option<ToHub> {
        if !self.linked {
            return None;
        }
        let (run, local) = self.runs.iter_mut().find(|(_, local)| {
            !local.end_told
                && local.resumed
                && !local.forgotten
                && !local.is_live()
                && (local.cut || local.output.sent() == local.output.end())
        })?;
        let Phase::Ended(ended) = &local.phase else { return None };
        local.end_told = true;
        Some(ToHub::Ended { run: *run, ended: ended.clone() })
    }

    pub(super) fn handle_resume(&mut self, run: RunId, from: u64, granted: u64) {
        let Some(local) = self.runs.get_mut(&run) else { return };
        local.end_told = false;
        local.resumed = true;
        if local.output.resume(from, granted).is_err() {
            // The hub lacks bytes that it had called durable. Where the streams stand is known
            // only at the end, so the mark covers all that was written until here.
            let first_kept = local.written;
            let end = local.output.end();
            let resumed = local.output.resume(end, granted.max(end));
            debug_assert!(resumed.is_ok(), "the end is always kept");
            self.send(ToHub::OutputLost { run, first_kept });
        }
    }

    pub(super) fn handle_credit(&mut self, run: RunId, granted: u64, durable: u64) {
        let Some(local) = self.runs.get_mut(&run) else { return };
        if let Some(begin) = local.output.credit(granted, durable) {
            self.actions.push_back(Action::Trim(run, begin));
        }
    }
}
