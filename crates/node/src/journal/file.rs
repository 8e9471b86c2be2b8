//! The journal's file: open, replay, append, sync, rewrite. Blocking; for the journal's thread
//! and the start of the node.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use cortex_core::id::RunId;
use cortex_core::limits;
use cortex_core::node_runs::Record;
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
    open: BTreeMap<RunId, Option<Ended>>,
    settled: VecDeque<RunId>,
    settled_max: usize,
    /// Records of a later build, verbatim and in their order: this one only takes them along, so that they
    /// are there when the later one comes back. No more come while this build runs.
    unknown: Vec<u8>,
}

impl JournalFile {
    /// Opens or makes the file, drops a torn tail, and returns what it says, oldest first.
    pub(crate) fn open(path: &Path) -> io::Result<(Self, Vec<Record>)> {
        Self::open_with(path, GROWTH_BYTES_MAX, limits::JOURNAL_SETTLED_MAX)
    }

    fn open_with(path: &Path, growth_max: u64, settled_max: usize) -> io::Result<(Self, Vec<Record>)> {
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
            open: BTreeMap::new(),
            settled: VecDeque::new(),
            settled_max,
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
        self.settled.iter().for_each(|run| record::write(&mut bytes, &Record::Settled(*run)));
        for (run, ended) in &self.open {
            record::write(&mut bytes, &Record::Accepted(*run));
            if let Some(ended) = ended {
                record::write(&mut bytes, &Record::Ended(*run, ended.clone()));
            }
        }
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
                self.open.insert(*run, None);
            }
            Record::Ended(run, ended) => {
                self.open.insert(*run, Some(ended.clone()));
            }
            Record::Settled(run) => {
                self.open.remove(run);
                self.settled.push_back(*run);
                if self.settled.len() > self.settled_max {
                    self.settled.pop_front();
                }
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
    use super::*;
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

        let (mut journal, records) = JournalFile::open_with(&path, 1, 3).expect("open");
        assert_eq!(records, [Record::Accepted(run(1)), Record::Accepted(run(2))], "nothing is torn");
        journal.append(&[Record::Settled(run(1))]).expect("append");
        journal.rewrite_if_large().expect("rewrite");
        drop(journal);
        for _ in 0..2 {
            let bytes = std::fs::read(&path).expect("read");
            assert_eq!(bytes.windows(later.len()).filter(|part| *part == later).count(), 1);
            let (mut journal, records) = JournalFile::open_with(&path, 1, 3).expect("open");
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
        let (mut journal, _) = JournalFile::open_with(&path, 2_000, 3).expect("open");
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
}
