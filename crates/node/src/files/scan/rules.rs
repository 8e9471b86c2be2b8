//! What of a folder belongs to its tree: the patterns of the caller, and those that folders bring along.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use cortex_content::search::{BYTES_MAX, FILES, GIT, Ignored};
use cortex_core::error::{Code, Refusal};
use cortex_core::name::printable;
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::super::beneath::Dir;
use super::super::fault::Fault;
use super::super::read;
use super::{Links, ScanSpec};

/// Names all rules that hold in a folder: when it is the same, so are they.
pub(super) type Digest = [u8; 32];

/// The rules in the folder where a scan is.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    excludes: Arc<Gitignore>,
    ignore_files: bool,
    vcs: bool,
    ignored: Ignored,
    /// Bytes of the path of a folder, with the slash behind it, and the rules in it; outermost first.
    digests: Vec<(usize, Digest)>,
    of_spec: Digest,
}

impl Rules {
    /// # Errors
    /// `invalid_argument` for a pattern that is none.
    pub(super) fn new(spec: &ScanSpec) -> Result<Self, Refusal> {
        let mut builder = GitignoreBuilder::new(".");
        builder.allow_unclosed_class(false);
        let mut hasher = blake3::Hasher::new();
        for exclude in &spec.excludes {
            builder.add_line(None, exclude).map_err(|_| no_pattern(exclude))?;
            hasher.update(&(exclude.len() as u64).to_le_bytes()).update(exclude.as_bytes());
        }
        let excludes = builder.build().map_err(|_| no_pattern(&spec.excludes.join(" ")))?;
        let refuses = spec.links == Links::Refuse;
        hasher.update(&[u8::from(spec.ignore_files), u8::from(spec.vcs), u8::from(refuses)]);
        Ok(Self {
            excludes: Arc::new(excludes),
            ignore_files: spec.ignore_files,
            vcs: spec.vcs,
            ignored: Ignored::default(),
            digests: Vec::new(),
            of_spec: hasher.finalize().into(),
        })
    }

    /// Those in the folder that was entered last.
    pub(super) fn digest(&self) -> Digest {
        self.digests.last().map_or(self.of_spec, |(_, digest)| *digest)
    }

    /// Takes in the ignore files of a folder with these names, whose path, with a slash behind it, has
    /// `prefix` bytes.
    ///
    /// # Errors
    /// When one of them cannot be read whole: nobody knows then what it leaves out.
    pub(super) fn enter(&mut self, dir: &Dir, names: &[Box<[u8]>], prefix: usize) -> Result<(), Fault> {
        if !self.ignore_files {
            return Ok(());
        }
        let mut texts = Vec::new();
        for name in FILES {
            if names.binary_search_by(|other| (**other).cmp(name)).is_err() {
                continue;
            }
            let file = match dir.regular(name) {
                Ok(file) => file,
                // It went away, or is no file: as git does, nothing is read through a link.
                Err(fault) if fault.is_absent() || matches!(fault, Fault::Unfit(_)) => continue,
                Err(fault) => return Err(fault),
            };
            texts.push(read::whole(&file, BYTES_MAX)?.0);
        }
        if texts.is_empty() {
            return Ok(());
        }
        if !self.ignored.take(&texts, prefix) {
            return Err(Fault::TooMany);
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.digest());
        for text in &texts {
            hasher.update(&(text.len() as u64).to_le_bytes()).update(text);
        }
        self.digests.push((prefix, hasher.finalize().into()));
        Ok(())
    }

    /// Forgets folders whose path is as long as `prefix`, or longer.
    pub(super) fn leave(&mut self, prefix: usize) {
        self.ignored.leave(prefix);
        while self.digests.last().is_some_and(|(of, _)| *of >= prefix) {
            self.digests.pop();
        }
    }

    /// Whether the entry at `path` is left out.
    pub(super) fn leave_out(&self, path: &[u8], name: &[u8], is_dir: bool) -> bool {
        if !self.vcs && name == GIT {
            return true;
        }
        if !self.excludes.is_empty() {
            match self.excludes.matched(Path::new(OsStr::from_bytes(path)), is_dir) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => {}
            }
        }
        !self.digests.is_empty() && self.ignored.says(path, is_dir) == Some(true)
    }
}

/// Names of files with rules, in byte order, whether they are there or not.
pub(super) fn names() -> Vec<Box<[u8]>> {
    let mut names: Vec<Box<[u8]>> = FILES.iter().map(|name| (**name).into()).collect();
    names.sort_unstable();
    names
}

fn no_pattern(text: &str) -> Refusal {
    let shown = printable(text, 80);
    Refusal::new(Code::InvalidArgument, format!("`{shown}` is no pattern for what is left out."))
        .hint("Use `*`, `?`, `**` and `[abc]` as in a `.gitignore`, with each bracket closed.")
}
