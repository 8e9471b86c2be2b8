//! A folder or file of the machine where a command runs, as a tree whose objects and chunks others ask
//! for: what a push sends. Nothing of a node is needed for it.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use bytes::Bytes;
use cortex_content::object::Totals;
use cortex_core::error::{Code, Refusal};
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::files::path::RelPath;
use cortex_core::sync::{Seen, SideCounts};

use crate::files::beneath::{Dir, Follow, Root};
use crate::files::fault::Fault;
use crate::files::scan::{self, Cache, Links, Places, ScanSpec, Scanned};

/// What of a folder is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalSpec {
    /// Patterns as in a `.gitignore`, from the folder down, for what is left out. They have the last word.
    pub excludes: Vec<String>,
    /// Whether `.gitignore` and `.cortexignore` count, in the folder and below it.
    pub ignore_files: bool,
    /// Whether what is called `.git` is taken.
    pub vcs: bool,
    /// Whether links that lead out of the folder are left out; else they are taken as text.
    pub refuse_links_out: bool,
    /// Whether every file is read, whatever is known from before.
    pub full: bool,
}

/// Remarks about a tree, as counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalNotes {
    /// Entries whose names no tree can have (no UTF-8, a control character, a `\`, too long or too deep);
    /// they are left out.
    pub unnamed: u64,
    /// Files and folders with setuid, setgid or sticky bits, which are not kept.
    pub masked: u64,
    /// Files that are longer than 1 TiB or hardly anything but a hole; they are left out.
    pub too_large: u64,
    /// Folders whose ignore files cannot be read; they are left out.
    pub rules_unread: u64,
    /// Bytes that were read to find out what there is.
    pub hashed: u64,
}

/// A tree, with the folder that it was read from.
#[derive(Debug)]
pub struct LocalTree {
    dir: Dir,
    scanned: Scanned,
    places: Places,
}

impl LocalTree {
    /// Reads a folder, or a file: that is a tree of one entry. A link at the end of `path` is followed.
    /// What is known from the time before is kept in the file `cache`, in a folder that is there; without
    /// it all is read. It blocks, for as long as the disk takes.
    ///
    /// # Errors
    /// `invalid_argument` for a pattern that is none, `unsupported_entry` for what is neither file nor
    /// folder, `too_large` beyond 5 million entries, else what the system says.
    pub fn open(path: &Path, spec: &LocalSpec, cache: Option<&Path>) -> Result<Self, Refusal> {
        let shown = path.to_string_lossy();
        let failed = |fault: Fault| fault.refusal(&shown);
        let spec = ScanSpec {
            excludes: spec.excludes.clone(),
            ignore_files: spec.ignore_files,
            vcs: spec.vcs,
            links: if spec.refuse_links_out { Links::Refuse } else { Links::Keep },
            full: spec.full,
        };
        spec.check()?;
        let path = path.canonicalize().map_err(|error| failed(error.into()))?;
        let root = Root::open(&path).map_err(failed)?;
        let (dir, scanned) = if root.is_dir() {
            let dir = root.dir(&RelPath::root(), Follow::Never).map_err(failed)?;
            let scanned = scan_with(&dir, &spec, cache).map_err(failed)?;
            (dir, scanned)
        } else {
            let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(Refusal::new(Code::UnsupportedEntry, format!("`{shown}` is no file.")));
            };
            let dir = folder(above).map_err(failed)?;
            let scanned = scan::single(&dir, name.as_bytes()).map_err(failed)?;
            (dir, scanned)
        };
        let places = Places::of(scanned.root, &scanned.objects).map_err(failed)?;
        Ok(Self { dir, scanned, places })
    }

    /// The tree.
    pub fn root(&self) -> TreeId {
        self.scanned.root
    }

    /// What lies below its root.
    pub fn totals(&self) -> Totals {
        self.scanned.totals
    }

    /// As the planner wants them.
    pub fn counts(&self) -> SideCounts {
        self.scanned.counts
    }

    /// What is there and was not taken, by path: the topmost of each.
    pub fn left_out(&self) -> impl Iterator<Item = (&RelPath, &Seen)> {
        self.scanned.left_out.iter()
    }

    /// Remarks.
    pub fn notes(&self) -> LocalNotes {
        let Scanned { unnamed, hashed, notes, .. } = &self.scanned;
        LocalNotes {
            unnamed: *unnamed,
            masked: notes.masked,
            too_large: notes.too_large,
            rules_unread: notes.rules_unread,
            hashed: *hashed,
        }
    }

    /// The bytes of an object or chunk of the tree, whose hash was compared. `None`: there is none, or it
    /// changed or went away since.
    ///
    /// # Errors
    /// `quota` when there is no memory or descriptor left.
    pub fn read(&mut self, id: &ContentId) -> Result<Option<Bytes>, Refusal> {
        if let Some(object) = self.scanned.objects.get(id) {
            return Ok(Some(object.clone()));
        }
        self.places.read(&self.dir, id).map_err(|fault| fault.refusal("the folder that is sent"))
    }

    /// How many bytes an object or chunk has; `None` when there is none in the tree.
    pub fn len_of(&self, id: &ContentId) -> Option<u32> {
        match self.scanned.objects.get(id) {
            Some(object) => u32::try_from(object.len()).ok(),
            None => self.places.len_of(id),
        }
    }
}

fn folder(path: &Path) -> Result<Dir, Fault> {
    Root::open(path)?.dir(&RelPath::root(), Follow::Never)
}

fn scan_with(dir: &Dir, spec: &ScanSpec, cache: Option<&Path>) -> Result<Scanned, Fault> {
    let place = cache.and_then(|cache| {
        let above = cache.parent().and_then(|above| above.canonicalize().ok())?;
        Some((folder(&above).ok()?, cache.file_name()?.as_bytes()))
    });
    let loaded = place.as_ref().map(|(above, name)| Cache::load_from(above, name));
    let mut cache = loaded.unwrap_or_default();
    let scanned = scan::scan(dir, spec, &mut cache, None)?;
    if let Some((above, name)) = place {
        // Without it the next time all is read, and that is all.
        let _saved = cache.save_to(&above, name);
    }
    Ok(scanned)
}
