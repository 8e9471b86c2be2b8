//! The anchor of the audit log: number and hash of its newest row, in a file beside the database.
//! A chain of hashes shows what was changed, not what was cut off at its end; the anchor does, as
//! long as it is not rolled back together with the database, for which nodes are witnesses.
//!
//! It follows the commits by at most a second. One that does not fit the log is evidence: it is put
//! aside, never overwritten. Never here: a word on whom to suspect.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cortex_core::id::{Generation, Seq};
use cortex_core::invite::{from_hex, to_hex};
use cortex_core::node::AuditHead;
use cortex_core::time::WallTime;

use crate::files;

/// How long an anchor waits for further rows before it is written.
pub(crate) const BEHIND_MAX: Duration = Duration::from_secs(1);
/// Its file in the data directory. Anchors that were put aside have more behind that name.
const FILE: &str = "audit.anchor";
/// First word of the file.
const KIND: &str = "cortex-audit-anchor-1";
/// Anchors put aside that are read; beyond it the oldest by name count.
const ASIDE_MAX: usize = 64;

/// What an anchor file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Anchor {
    /// The store's generation when it was written. Another generation is another log.
    pub(crate) generation: Generation,
    /// The newest row at that time.
    pub(crate) head: AuditHead,
}

impl Anchor {
    fn to_text(&self) -> String {
        let AuditHead { seq, hash } = self.head;
        let body = format!("{KIND} {} {seq} {}", self.generation, to_hex(&hash));
        let check = to_hex(blake3::hash(body.as_bytes()).as_bytes());
        format!("{body} {check}")
    }

    /// `None` unless every byte is as it was written.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace().skip(1);
        let generation = Generation(words.next()?.parse().ok()?);
        let head = AuditHead { seq: Seq(words.next()?.parse().ok()?), hash: from_hex(words.next()?)? };
        let anchor = Self { generation, head };
        (format!("{}\n", anchor.to_text()) == text).then_some(anchor)
    }
}

/// The anchor files of a data directory.
#[derive(Clone, Debug)]
pub(crate) struct Anchors {
    dir: PathBuf,
}

impl Anchors {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The anchor that is followed. Blocks.
    ///
    /// # Errors
    /// When it cannot be read; what it says is `None` when it is damaged.
    pub(crate) fn current(&self) -> io::Result<Option<Option<Anchor>>> {
        match fs::read_to_string(self.dir.join(FILE)) {
            Ok(text) => Ok(Some(Anchor::parse(&text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Some(None)),
            Err(error) => Err(error),
        }
    }

    /// Every anchor by the name of its file: the one that is followed, and those put aside. Blocks.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub(crate) fn all(&self) -> io::Result<Vec<(String, Option<Anchor>)>> {
        let mut names: Vec<String> = fs::read_dir(&self.dir)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with(FILE) && !name.ends_with(".partial"))
            .collect();
        names.sort();
        names.truncate(ASIDE_MAX);
        let read = |name: String| {
            let text = fs::read(self.dir.join(&name)).unwrap_or_default();
            let anchor = std::str::from_utf8(&text).ok().and_then(Anchor::parse);
            (name, anchor)
        };
        Ok(names.into_iter().map(read).collect())
    }

    /// Replaces the anchor that is followed; durable when this returns. Blocks.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub(crate) fn write(&self, anchor: &Anchor) -> io::Result<()> {
        files::write_private(&self.dir.join(FILE), &anchor.to_text())
    }

    /// Puts the anchor that is followed aside under a name that tells why. Blocks.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub(crate) fn put_aside(&self, why: &str, now: WallTime) -> io::Result<()> {
        fs::rename(self.dir.join(FILE), self.dir.join(format!("{FILE}.{why}.{}", now.0)))?;
        files::sync_dir(&self.dir)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anchor() -> Anchor {
        Anchor { generation: Generation(3), head: AuditHead { seq: Seq(120), hash: [0xab; 32] } }
    }

    #[test]
    fn an_anchor_is_read_back_and_any_flipped_bit_of_its_file_is_detected() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let anchors = Anchors::new(dir.path());
        assert_eq!(anchors.current().expect("readable"), None);
        anchors.write(&anchor()).expect("written");
        assert_eq!(anchors.current().expect("readable"), Some(Some(anchor())));
        let path = dir.path().join(FILE);
        let whole = fs::read(&path).expect("there");
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, flipped).expect("written");
            assert_eq!(anchors.current().expect("readable"), Some(None), "bit {bit}");
        }
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).expect("written");
            assert_eq!(anchors.current().expect("readable"), Some(None), "cut at {cut}");
        }
    }

    #[test]
    fn an_anchor_put_aside_is_still_among_all() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let anchors = Anchors::new(dir.path());
        anchors.write(&anchor()).expect("written");
        anchors.put_aside("broken", WallTime(7)).expect("renamed");
        let newer = Anchor { head: AuditHead { seq: Seq(1), hash: [1; 32] }, ..anchor() };
        anchors.write(&newer).expect("written");
        assert_eq!(
            anchors.all().expect("readable"),
            [("audit.anchor".to_owned(), Some(newer)), ("audit.anchor.broken.7".to_owned(), Some(anchor()))]
        );
    }
}
