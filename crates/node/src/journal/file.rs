//! The journal's file: open, replay, append, sync, rewrite. Blocking; for the journal's thread
//! and the start of the node.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use cortex_core::files::content::ContentId;
use cortex_core::files::entity::FileEnd;
use cortex_core::files::fence::Attempts;
use cortex_core::id::{OpId, RunId};
use cortex_core::journal::{FileAccepted, Record};
use cortex_core::limits;
use cortex_core::run::Ended;

use super::record::{self, Read};

/// Growth beyond the last rewritten size after which the file is rewritten, bytes.
const GROWTH_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The open file and what it says.
#[derive(Debug)]
pub(crate) struct JournalFile {
    path: PathBuf,
    file: File,
    len: u64,
    rewrite_at: u64,
    growth_max: u64,
    runs: Kept<RunId, Option<Ended>>,
    ops: Kept<OpId, FileNote>,
    attempts: Attempts,
    /// Records of a later build, verbatim and in their order: this one only takes them along, so that they
    /// are there when the later one comes back. No more come while this build runs.
    unknown: Vec<u8>,
}

/// What the file says of one kind of command: those that are open, and the ids of those that were settled
/// last.
#[derive(Debug)]
struct Kept<K, V> {
    open: BTreeMap<K, V>,
    settled: VecDeque<K>,
    settled_max: usize,
}

/// What it says of an operation on files that is open.
#[derive(Debug)]
struct FileNote {
    accepted: FileAccepted,
    intended: Option<ContentId>,
    end: Option<FileEnd>,
}

impl<K: Copy + Ord, V> Kept<K, V> {
    const fn new(settled_max: usize) -> Self {
        Self { open: BTreeMap::new(), settled: VecDeque::new(), settled_max }
    }

    fn settle(&mut self, id: K) {
        self.open.remove(&id);
        self.settled.push_back(id);
        if self.settled.len() > self.settled_max {
            self.settled.pop_front();
        }
    }
}

impl FileNote {
    fn write(&self, out: &mut Vec<u8>) {
        let op = self.accepted.op;
        record::write(out, &Record::FileAccepted(self.accepted.clone()));
        if let Some(etag) = self.intended {
            record::write(out, &Record::FileIntended(op, etag));
        }
        if let Some(end) = &self.end {
            record::write(out, &Record::FileEnded(op, end.clone()));
        }
    }
}

impl JournalFile {
    /// Opens or makes the file, drops a torn tail, and returns what it says, oldest first.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Vec<Record>)> {
        let settled_max = (limits::JOURNAL_SETTLED_MAX, limits::JOURNAL_OPS_SETTLED_MAX);
        Self::open_with(path, GROWTH_BYTES_MAX, settled_max)
    }

    fn open_with(
        path: &Path,
        growth_max: u64,
        (runs_settled_max, ops_settled_max): (usize, usize),
    ) -> io::Result<(Self, Vec<Record>)> {
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (mut records, mut unknown, mut good) = (Vec::new(), Vec::new(), 0);
        loop {
            good += match record::read(&bytes[good..]) {
                Read::Record(record, len) => {
                    records.push(record);
                    len
                }
                Read::Unknown(whole) => {
                    unknown.extend(whole);
                    whole.len()
                }
                Read::Torn => break,
            };
        }
        if !unknown.is_empty() {
            tracing::warn!(
                bytes = unknown.len(),
                "the journal has records of a later version; they are kept and not read"
            );
        }
        if good < bytes.len() {
            tracing::info!(bytes = bytes.len() - good, "dropped the torn tail of the journal");
            file.set_len(good as u64)?;
        }
        file.sync_all()?;
        sync_parent(path)?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(good as u64))?;
        let len = good as u64;
        let mut journal = Self {
            path: path.to_owned(),
            file,
            len,
            rewrite_at: len + growth_max,
            growth_max,
            runs: Kept::new(runs_settled_max),
            ops: Kept::new(ops_settled_max),
            attempts: Attempts::default(),
            unknown,
        };
        for record in &records {
            journal.note(record);
        }
        Ok((journal, records))
    }

    /// Appends records; on disk only after [`Self::sync`].
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(records.len() * 64);
        records.iter().for_each(|record| record::write(&mut bytes, record));
        self.file.write_all(&bytes)?;
        self.len += bytes.len() as u64;
        records.iter().for_each(|record| self.note(record));
        Ok(())
    }

    /// Everything appended survives a loss of power after this.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Writes the file anew when it has grown far; the old one holds until the new one is whole.
    pub(super) fn rewrite_if_large(&mut self) -> io::Result<()> {
        if self.len < self.rewrite_at {
            return Ok(());
        }
        let mut bytes = self.unknown.clone();
        self.runs.settled.iter().for_each(|run| record::write(&mut bytes, &Record::Settled(*run)));
        for (run, ended) in &self.runs.open {
            record::write(&mut bytes, &Record::Accepted(*run));
            if let Some(ended) = ended {
                record::write(&mut bytes, &Record::Ended(*run, ended.clone()));
            }
        }
        self.attempts.iter().for_each(|(task, n)| record::write(&mut bytes, &Record::Attempt(task, n)));
        self.ops.settled.iter().for_each(|op| record::write(&mut bytes, &Record::FileSettled(*op)));
        self.ops.open.values().for_each(|note| note.write(&mut bytes));
        let fresh = self.path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)?;
        sync_parent(&self.path)?;
        self.file = file;
        self.len = bytes.len() as u64;
        self.rewrite_at = self.len + self.growth_max;
        Ok(())
    }

    fn note(&mut self, record: &Record) {
        match record {
            Record::Accepted(run) => {
                self.runs.open.insert(*run, None);
            }
            Record::Ended(run, ended) => {
                self.runs.open.insert(*run, Some(ended.clone()));
            }
            Record::Settled(run) => self.runs.settle(*run),
            Record::FileAccepted(accepted) => {
                let note = FileNote { accepted: accepted.clone(), intended: None, end: None };
                self.ops.open.insert(accepted.op, note);
                if let Some((task, attempt)) = accepted.attempt {
                    self.attempts.raise(task, attempt);
                }
            }
            Record::FileIntended(op, etag) => {
                if let Some(note) = self.ops.open.get_mut(op) {
                    note.intended = Some(*etag);
                }
            }
            Record::FileEnded(op, end) => {
                if let Some(note) = self.ops.open.get_mut(op) {
                    note.end = Some(end.clone());
                }
            }
            Record::FileSettled(op) => self.ops.settle(*op),
            Record::Attempt(task, attempt) => {
                self.attempts.raise(*task, *attempt);
            }
        }
    }
}

/// Makes the names in the file's folder durable.
fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::super::record::samples::{accepted, op, refused};
    use super::*;
    use cortex_core::files::entity::FileOutcome;
    use cortex_core::id::{Attempt, TaskId};
    use cortex_core::run::EndCause;
    use cortex_core::stream::Positions;

    fn run(n: u8) -> RunId {
        RunId::mint(u64::from(n), &[n; 10])
    }

    fn ended() -> Ended {
        Ended {
            cause: EndCause::TimedOut,
            code: None,
            signal: Some(15),
            duration_ms: 7,
            output: Positions { stdout: 1, stderr: 2 },
            diagnostic: Some("why".to_owned()),
        }
    }

    fn some_records() -> Vec<Record> {
        vec![
            Record::Accepted(run(1)),
            Record::Ended(run(1), ended()),
            Record::Accepted(run(2)),
            Record::Settled(run(1)),
            Record::FileAccepted(accepted(3)),
            Record::FileIntended(op(3), ContentId::of(b"x")),
            Record::FileEnded(op(3), Ok(FileOutcome::Done { removed: 1, made: 2 })),
            Record::FileSettled(op(3)),
            Record::Attempt(TaskId::mint(1, &[4; 10]), Attempt(5)),
        ]
    }

    #[test]
    fn a_torn_tail_is_dropped_at_every_byte_and_the_rest_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let mut whole = Vec::new();
        let mut ends = vec![0];
        for record in some_records() {
            record::write(&mut whole, &record);
            ends.push(whole.len());
        }
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).expect("write");
            let (mut journal, records) = JournalFile::open(&path).expect("open");
            let complete = ends.iter().filter(|end| **end <= cut).count() - 1;
            assert_eq!(records, some_records()[..complete], "cut at {cut}");
            journal.append(&[Record::Accepted(run(9))]).expect("append");
            drop(journal);
            let (_, again) = JournalFile::open(&path).expect("open");
            assert_eq!(again.last(), Some(&Record::Accepted(run(9))), "cut at {cut}");
            assert_eq!(again.len(), complete + 1, "cut at {cut}");
        }
    }

    #[test]
    fn records_of_a_later_build_are_passed_over_and_outlive_every_rewriting() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let mut later = Vec::new();
        record::frame(&mut later, b"Z with a body that only a later build reads");
        // A kind that is known, with a cause of end that is not.
        record::frame(&mut later, &[&b"E"[..], run(5).as_bytes(), b"\x04gone"].concat());
        let (mut before, mut after) = (Vec::new(), Vec::new());
        record::write(&mut before, &Record::Accepted(run(1)));
        record::write(&mut after, &Record::Accepted(run(2)));
        std::fs::write(&path, [&before[..], &later, &after].concat()).expect("write");

        let (mut journal, records) = JournalFile::open_with(&path, 1, (3, 3)).expect("open");
        assert_eq!(records, [Record::Accepted(run(1)), Record::Accepted(run(2))], "nothing is torn");
        journal.append(&[Record::Settled(run(1))]).expect("append");
        journal.rewrite_if_large().expect("rewrite");
        drop(journal);
        for _ in 0..2 {
            let bytes = std::fs::read(&path).expect("read");
            assert_eq!(bytes.windows(later.len()).filter(|part| *part == later).count(), 1);
            let (mut journal, records) = JournalFile::open_with(&path, 1, (3, 3)).expect("open");
            assert_eq!(records, [Record::Settled(run(1)), Record::Accepted(run(2))]);
            journal.rewrite_at = 0;
            journal.rewrite_if_large().expect("rewrite");
        }
    }

    #[test]
    fn any_flipped_byte_is_noticed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let mut whole = Vec::new();
        some_records().iter().for_each(|record| record::write(&mut whole, record));
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x41;
            std::fs::write(&path, &bytes).expect("write");
            let (_, records) = JournalFile::open(&path).expect("open");
            assert!(records.len() < some_records().len(), "flipped at {at}");
            assert!(some_records().starts_with(&records), "flipped at {at}");
        }
    }

    #[test]
    fn a_rewritten_journal_keeps_open_runs_and_the_newest_settled_ids() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let (mut journal, _) = JournalFile::open_with(&path, 2_000, (3, 3)).expect("open");
        journal.append(&[Record::Accepted(run(200)), Record::Accepted(run(201))]).expect("append");
        journal.append(&[Record::Ended(run(201), ended())]).expect("append");
        for n in 0..100 {
            journal.append(&[Record::Accepted(run(n)), Record::Settled(run(n))]).expect("append");
            journal.rewrite_if_large().expect("rewrite");
        }
        assert!(std::fs::metadata(&path).expect("there").len() < 3_000);
        journal.append(&[Record::Settled(run(150))]).expect("the new file is written on");
        let (_, records) = JournalFile::open(&path).expect("open");
        assert!(records.contains(&Record::Accepted(run(200))));
        assert!(records.contains(&Record::Ended(run(201), ended())));
        assert!(records.contains(&Record::Settled(run(99))));
        assert_eq!(records.last(), Some(&Record::Settled(run(150))));
        assert!(!records.contains(&Record::Settled(run(1))));
    }

    #[test]
    fn a_rewritten_journal_keeps_open_operations_the_newest_settled_ids_and_all_attempts() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let (mut journal, _) = JournalFile::open_with(&path, 2_000, (3, 3)).expect("open");
        let etag = ContentId::of(b"x");
        let open = [
            Record::FileAccepted(accepted(200)),
            Record::FileIntended(op(200), etag),
            Record::FileAccepted(accepted(201)),
            Record::FileEnded(op(201), Err(refused())),
        ];
        journal.append(&open).expect("append");
        let mut attempts = BTreeMap::new();
        for n in 0..100 {
            let taken = accepted(n);
            attempts.extend(taken.attempt);
            journal.append(&[Record::FileAccepted(taken), Record::FileSettled(op(n))]).expect("append");
            journal.rewrite_if_large().expect("rewrite");
        }
        journal.rewrite_at = 0;
        journal.rewrite_if_large().expect("rewrite");
        let (_, records) = JournalFile::open(&path).expect("open");
        assert!(records.ends_with(&open), "{records:?}");
        let settled: Vec<&Record> =
            records.iter().filter(|it| matches!(it, Record::FileSettled(_))).collect();
        assert_eq!(settled, [97, 98, 99].map(|n| Record::FileSettled(op(n))).iter().collect::<Vec<_>>());
        attempts.extend(accepted(200).attempt);
        attempts.extend(accepted(201).attempt);
        for (task, attempt) in attempts {
            assert!(records.contains(&Record::Attempt(task, attempt)), "the attempt outlives its operation");
        }
    }

    #[test]
    fn runs_do_not_push_out_what_is_remembered_of_operations() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let (mut journal, _) = JournalFile::open_with(&path, 1, (1, 1)).expect("open");
        let settled = [Record::FileSettled(op(1)), Record::Settled(run(1)), Record::Settled(run(2))];
        journal.append(&settled).expect("append");
        journal.rewrite_if_large().expect("rewrite");
        let (_, records) = JournalFile::open(&path).expect("open");
        assert_eq!(records, [Record::Settled(run(2)), Record::FileSettled(op(1))]);
    }
}
