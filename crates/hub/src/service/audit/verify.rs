//! Whether the audit log is what was written: the chain from its first row on, and each witness of
//! a row. Reads page by page; the size of the log costs time and no memory.

use std::collections::BTreeMap;

use cortex_core::id::Seq;
use cortex_core::node::AuditHead;
use cortex_store::LoggedAudit;
use cortex_store::chain::{CHAIN_START, verify_chain_from};

/// One who saw a row: the anchor file, or a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// `audit.anchor`, `node build-2`.
    pub name: String,
    /// What it saw.
    pub head: AuditHead,
}

/// Where a log does not fit, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The first row that does not fit, or that is missing; `None` when it is not about a row.
    pub at: Option<Seq>,
    /// One sentence.
    pub why: String,
}

/// What became of a verification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The last row that was looked at.
    pub head: AuditHead,
    /// How many witnesses agree.
    pub witnesses: usize,
    /// The first thing that does not fit.
    pub broken: Option<Broken>,
}

/// A verification that is under way.
#[derive(Debug)]
pub struct Verification {
    last: AuditHead,
    /// By the row that they saw.
    witnesses: BTreeMap<Seq, Vec<Witness>>,
    agreeing: usize,
    broken: Option<Broken>,
}

impl Verification {
    /// From the first row on.
    pub fn new(witnesses: impl IntoIterator<Item = Witness>) -> Self {
        let mut by_row: BTreeMap<Seq, Vec<Witness>> = BTreeMap::new();
        for witness in witnesses {
            by_row.entry(witness.head.seq).or_default().push(witness);
        }
        let last = AuditHead { seq: Seq(0), hash: CHAIN_START };
        Self { last, witnesses: by_row, agreeing: 0, broken: None }
    }

    /// The row behind which the next page begins.
    pub const fn after(&self) -> Seq {
        self.last.seq
    }

    /// The next rows, in order. Whether more are wanted.
    pub fn take(&mut self, rows: &[LoggedAudit]) -> bool {
        for row in rows {
            match verify_chain_from(self.last.seq, self.last.hash, std::slice::from_ref(row)) {
                Ok((seq, hash)) => self.last = AuditHead { seq, hash },
                Err((at, why)) => {
                    self.broken = Some(Broken { at: Some(at), why: format!("Row {at}: {why}.") });
                    return false;
                }
            }
            for witness in self.witnesses.remove(&row.seq).unwrap_or_default() {
                if witness.head.hash == row.hash {
                    self.agreeing += 1;
                    continue;
                }
                let why = format!("Row {} is not the one that {} saw.", row.seq, witness.name);
                self.broken = Some(Broken { at: Some(row.seq), why });
                return false;
            }
        }
        true
    }

    /// There are no more rows.
    pub fn finish(mut self) -> Verdict {
        if let (None, Some((seen, witnesses))) = (&self.broken, self.witnesses.last_key_value()) {
            let names: Vec<&str> = witnesses.iter().map(|witness| witness.name.as_str()).collect();
            let why = format!(
                "The log ends with row {}, and {} saw row {seen}: its end is missing.",
                self.last.seq,
                names.join(", ")
            );
            self.broken = Some(Broken { at: Some(self.last.seq.next()), why });
        }
        Verdict { head: self.last, witnesses: self.agreeing, broken: self.broken }
    }
}

#[cfg(test)]
mod tests {
    use cortex_core::audit::{AuditRow, Outcome};
    use cortex_core::time::WallTime;
    use cortex_store::chain::chain_hash;

    use super::*;

    fn log(count: u64) -> Vec<LoggedAudit> {
        let mut hash = CHAIN_START;
        let mut row = |number: u64| {
            let row = AuditRow::new(WallTime(0), format!("token:{number}"), "run.start", Outcome::Allowed);
            hash = chain_hash(&hash, Seq(number), &row);
            LoggedAudit { seq: Seq(number), row, hash }
        };
        (1..=count).map(&mut row).collect()
    }

    fn witness(of: &LoggedAudit) -> Witness {
        Witness { name: "node a".to_owned(), head: AuditHead { seq: of.seq, hash: of.hash } }
    }

    fn verdict(witnesses: Vec<Witness>, pages: &[&[LoggedAudit]]) -> Verdict {
        let mut verification = Verification::new(witnesses);
        let _all_taken = pages.iter().all(|page| verification.take(page));
        verification.finish()
    }

    #[test]
    fn a_whole_log_verifies_in_pages_of_any_size() {
        let rows = log(7);
        for cut in 0..=7 {
            let verdict = verdict(vec![witness(&rows[6]), witness(&rows[2])], &[&rows[..cut], &rows[cut..]]);
            assert_eq!((verdict.broken, verdict.witnesses, verdict.head.seq), (None, 2, Seq(7)));
        }
        assert_eq!(verdict(vec![], &[]).broken, None);
    }

    #[test]
    fn a_row_that_is_changed_deleted_added_or_moved_is_named() {
        let rows = log(5);
        let mut changed = rows.clone();
        changed[2].row.actor = "token:mallory".to_owned();
        let deleted = [&rows[..2], &rows[3..]].concat();
        let mut moved = rows.clone();
        moved.swap(1, 2);
        let mut doubled = rows.clone();
        doubled.insert(3, rows[2].clone());
        for (rows, at) in [(changed, 3), (deleted, 4), (moved, 3), (doubled, 3)] {
            let broken = verdict(vec![], &[&rows]).broken.expect("broken");
            assert_eq!(broken.at, Some(Seq(at)), "{}", broken.why);
        }
    }

    #[test]
    fn a_lost_end_is_noticed_by_whoever_saw_it_also_when_other_rows_took_its_place() {
        let rows = log(5);
        let seen = || vec![witness(&rows[4])];
        let broken = verdict(seen(), &[&rows[..3]]).broken.expect("broken");
        assert_eq!((broken.at, broken.why.contains("node a")), (Some(Seq(4)), true));
        let mut other = rows[..4].to_vec();
        let row = AuditRow::new(WallTime(1), "token:other", "run.start", Outcome::Allowed);
        let hash = chain_hash(&other[3].hash, Seq(5), &row);
        other.push(LoggedAudit { seq: Seq(5), row, hash });
        assert_eq!(verdict(seen(), &[&other]).broken.expect("broken").at, Some(Seq(5)));
    }
}
