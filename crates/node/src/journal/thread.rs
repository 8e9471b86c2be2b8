//! The journal's thread: takes all that waits, writes it, syncs once, acknowledges.

use std::io;

use cortex_core::id::{OpId, RunId};
use cortex_core::journal::Record;
use tokio::sync::mpsc;

use super::file::JournalFile;

/// Records that wait for the thread. Full: the actor keeps them and tries again when there is
/// room; no process starts meanwhile.
const QUEUE_MAX: usize = 1_024;

/// What waits for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Id {
    /// A run.
    Run(RunId),
    /// An operation on files.
    Op(OpId),
}

/// What became of a record for which something waits.
#[derive(Debug)]
pub(crate) struct Ack {
    /// What waits.
    pub(crate) id: Id,
    /// Why it is not on disk.
    pub(crate) error: Option<String>,
}

/// The way to the thread. Dropping it ends the thread once everything is written.
#[derive(Debug)]
pub(crate) struct Journal {
    /// Records go in here.
    pub(crate) records: mpsc::Sender<Record>,
    /// Acknowledgements come out here; each record that something was taken on has one.
    pub(crate) acks: mpsc::Receiver<Ack>,
    thread: std::thread::JoinHandle<()>,
}

impl Journal {
    /// Starts the thread.
    pub(crate) fn start(file: JournalFile) -> io::Result<Self> {
        let (records, queue) = mpsc::channel(QUEUE_MAX);
        let (acks_in, acks) = mpsc::channel(QUEUE_MAX);
        let thread = std::thread::Builder::new()
            .name("cortex-journal".to_owned())
            .spawn(move || serve(file, queue, &acks_in))?;
        Ok(Self { records, acks, thread })
    }

    /// Waits until everything is written, and ends the thread. Blocking.
    pub(crate) fn finish(self) {
        drop(self.records);
        drop(self.acks);
        if self.thread.join().is_err() {
            tracing::error!("the journal's thread panicked");
        }
    }
}

fn serve(mut file: JournalFile, mut queue: mpsc::Receiver<Record>, acks: &mpsc::Sender<Ack>) {
    let mut broken: Option<String> = None;
    let mut group = Vec::new();
    while queue.blocking_recv_many(&mut group, QUEUE_MAX) > 0 {
        fail::fail_point!("node::before_journal");
        if broken.is_none()
            && let Err(error) = write(&mut file, &group)
        {
            // What a failed sync left on disk is not known, so nothing is built on it.
            tracing::error!(%error, "the journal cannot be written; no command is accepted until a restart");
            broken = Some(error.to_string());
        }
        fail::fail_point!("node::after_journal");
        for record in group.drain(..) {
            if let Some(id) = waiting(&record) {
                // Nobody waits any more when the node is ending.
                let _told = acks.blocking_send(Ack { id, error: broken.clone() });
            }
        }
    }
    if broken.is_none()
        && let Err(error) = file.sync()
    {
        tracing::error!(%error, "the journal's last records may not be on disk");
    }
}

/// What waits until this record is on disk.
const fn waiting(record: &Record) -> Option<Id> {
    match record {
        Record::Accepted(run) => Some(Id::Run(*run)),
        Record::FileAccepted(accepted) => Some(Id::Op(accepted.op)),
        Record::Ended(..)
        | Record::Settled(_)
        | Record::FileIntended(..)
        | Record::FileEnded(..)
        | Record::FileSettled(_)
        | Record::Attempt(..) => None,
    }
}

fn write(file: &mut JournalFile, group: &[Record]) -> io::Result<()> {
    file.append(group)?;
    if group.iter().any(|record| waiting(record).is_some()) {
        file.sync()?;
    }
    file.rewrite_if_large()
}
