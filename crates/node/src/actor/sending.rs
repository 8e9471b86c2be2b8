//! What goes out next: control, then output, then ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cortex_core::id::RunId;
use cortex_core::message::{Envelope, Frame, ToHub};
use cortex_wire::convert;

use super::Actor;
use super::wires::Wires;
use crate::node::Attached;
use crate::run::spool::{Read, Spool};
use crate::run::worker::Event;

/// Wait before kept output that could not be read is tried again.
const RETRY: Duration = Duration::from_secs(1);

impl<F: Fn(Attached) + Send> Actor<F> {
    /// Makes the next message ready, when there is one and nothing must be on disk before it.
    pub(super) fn stage(&mut self, wires: &Wires) {
        if self.staged.is_some() || !self.runs.is_linked() || wires.is_remembering() {
            return;
        }
        let news = |files: &mut super::files::Files| files.machine.poll_watch_news();
        let message = self
            .outbox
            .pop()
            .or_else(|| news(&mut self.files))
            .or_else(|| self.next_output())
            .or_else(|| self.runs.poll_end());
        if let Some(message) = message {
            let epoch = self.runs.numbers().1;
            self.staged = Some(convert::to_hub_into_proto(Envelope { epoch, message }));
        }
    }

    /// Output of the run whose turn it is, passing over those whose bytes are on disk.
    fn next_output(&mut self) -> Option<ToHub> {
        let mut passed = BTreeSet::new();
        loop {
            let (run, position, len_max) = self.runs.poll_output()?;
            if !passed.insert(run) {
                return None;
            }
            if self.loading.contains(&run) {
                continue;
            }
            let held = self.held.get(&run)?;
            match held.spool.read(position, len_max) {
                Read::Here(stream, offset, data) => {
                    self.runs.sent(run, data.len() as u64);
                    return Some(ToHub::Output(Frame { run, stream, position, offset, data }));
                }
                Read::OnDisk => self.load(run, Arc::clone(&held.spool), position),
                Read::Nothing => tracing::error!(%run, position, "kept output is missing"),
            }
        }
    }

    fn load(&mut self, run: RunId, spool: Arc<Spool>, position: u64) {
        self.loading.insert(run);
        let events = self.events.clone();
        tokio::spawn(async move {
            let error = spool.load(position).await.err();
            if error.is_some() {
                tokio::time::sleep(RETRY).await;
            }
            // The receiver is gone only when the node process ends.
            let _told = events.send(Event::Loaded { run, error }).await;
        });
    }
}
