//! A folder or file of the machine where a command runs: as a tree whose objects and chunks others ask for,
//! which is what a push sends; and as what a tree becomes, which is what a pull receives. Nothing of a node
//! is needed for either.

use std::cell::OnceCell;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use cortex_content::object::Totals;
use cortex_core::error::{Code, Refusal};
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::files::path::{FilePath, RelPath};
use cortex_core::id::Revision;
use cortex_core::sync::{DeleteLimits, HaltId, Mode, Push, Seen, SideCounts};
use cortex_core::transfer::{ApplyAsk, Filters, Progress, TransferEnd};

pub use crate::files::priority::give_way;

use crate::files::beneath::{Dir, Follow, Root};
use crate::files::fault::Fault;
use crate::files::place::Place;
use crate::files::scan::{self, Cache, Links, Places, ScanSpec, Scanned};
use crate::files::seam::Plain;
use crate::files::transfer::{self, Heard, Supply};

/// Given chunks with their hashes.
pub type Take<'a> = dyn Fn(ContentId, &[u8]) + Sync + 'a;

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
    /// Where its chunks lie, once somebody asks for one.
    places: OnceCell<Places>,
}

impl LocalTree {
    /// Reads a folder, or a file: that is a tree of one entry. A link at the end of `path` is followed.
    /// What is known from the time before is kept in the file `cache`, in a folder that is there; without
    /// it all is read. `take` is given each chunk that is read, with its hash: what is new is what others most
    /// likely ask for. Not with [`LocalSpec::full`], by which all is read. It blocks, for as long as the disk
    /// takes.
    ///
    /// # Errors
    /// `invalid_argument` for a pattern that is none, `unsupported_entry` for what is neither file nor
    /// folder, `too_large` beyond 5 million entries, else what the system says.
    pub fn open(
        path: &Path,
        spec: &LocalSpec,
        cache: Option<&Path>,
        take: Option<&Take<'_>>,
    ) -> Result<Self, Refusal> {
        let take = take.filter(|_| !spec.full);
        let shown = path.to_string_lossy();
        let failed = |fault: Fault| fault.refusal(&shown);
        let spec = ScanSpec {
            excludes: spec.excludes.clone(),
            ignore_files: spec.ignore_files,
            vcs: spec.vcs,
            links: if spec.refuse_links_out { Links::Refuse } else { Links::Keep },
            full: spec.full,
            only: None,
        };
        spec.check()?;
        let path = path.canonicalize().map_err(|error| failed(error.into()))?;
        let root = Root::open(&path).map_err(failed)?;
        let (dir, scanned) = if root.is_dir() {
            let dir = root.dir(&RelPath::root(), Follow::Never).map_err(failed)?;
            let scanned = scan_with(&dir, &spec, cache, take).map_err(failed)?;
            (dir, scanned)
        } else {
            let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(Refusal::new(Code::UnsupportedEntry, format!("`{shown}` is no file.")));
            };
            let dir = folder(above).map_err(failed)?;
            let scanned = scan::single(&dir, name.as_bytes(), take).map_err(failed)?;
            (dir, scanned)
        };
        Ok(Self { dir, scanned, places: OnceCell::new() })
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
        let Some(len) = self.len_of(id) else { return Ok(None) };
        let mut bytes = vec![0; len as usize];
        Ok(self.read_into(id, &mut bytes)?.then(|| bytes.into()))
    }

    /// The same, into `room`, which is as long as it has bytes. Whether it is there.
    ///
    /// # Errors
    /// Those of [`Self::read`].
    pub fn read_into(&mut self, id: &ContentId, room: &mut [u8]) -> Result<bool, Refusal> {
        match self.scanned.objects.copy_to(id, room) {
            Some(copied) => Ok(copied),
            None => {
                let failed = |fault: Fault| fault.refusal("the folder that is sent");
                self.places().map_err(failed)?;
                let places = self.places.get_mut();
                places.map_or(Ok(false), |places| places.read_into(&self.dir, id, room).map_err(failed))
            }
        }
    }

    /// How many bytes an object or chunk has; `None` when there is none in the tree.
    pub fn len_of(&self, id: &ContentId) -> Option<u32> {
        match self.scanned.objects.get(id) {
            Some(object) => u32::try_from(object.len()).ok(),
            None => self.places().ok()?.len_of(id),
        }
    }

    fn places(&self) -> Result<&Places, Fault> {
        if let Some(places) = self.places.get() {
            return Ok(places);
        }
        let places = Places::of(self.scanned.root, &self.scanned.objects)?;
        Ok(self.places.get_or_init(|| places))
    }
}

/// What a folder of this machine is to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalAsk {
    /// The tree.
    pub target: TreeId,
    /// The one entry of the folder that it is about, by its name; `None`: all of it. Nothing else in the folder
    /// is looked at or changed then, and nothing is remembered in it.
    pub only: Option<String>,
    /// How what is there is treated. A first one to a folder that was pulled into before is none: what was
    /// changed there since then stays, and is told.
    pub push: Push,
    /// When removals halt.
    pub limits: DeleteLimits,
    /// The halt that a person let pass.
    pub accepted: Option<HaltId>,
    /// What of the folder is looked at.
    pub spec: LocalSpec,
    /// Only says what would be done.
    pub dry_run: bool,
}

/// What whoever has the tree says.
#[derive(Debug)]
pub enum LocalHeard {
    /// The next 1 to [`CARRY_DATA_BYTES_MAX`](cortex_core::limits::CARRY_DATA_BYTES_MAX) bytes of packs, which
    /// follow one another. They are verified here.
    Pack(Bytes),
    /// It does not have these, which were asked for.
    Missing(Vec<ContentId>),
}

/// Who has the tree. A failure of any call ends the transfer; what came stays for the next one.
pub trait LocalPeer {
    /// Asks for these, 1 to [`WANTS_MAX`](cortex_core::limits::WANTS_MAX), behind what was asked for before. No
    /// more is open than [`WANTS_OPEN_MAX`](cortex_core::limits::WANTS_OPEN_MAX) ids and
    /// [`WANTS_OPEN_BYTES_MAX`](cortex_core::limits::WANTS_OPEN_BYTES_MAX) bytes.
    ///
    /// # Errors
    /// When it is gone.
    fn want(&mut self, ids: &[ContentId]) -> Result<(), Refusal>;

    /// Waits for what comes next.
    ///
    /// # Errors
    /// When it is gone, or says why nothing comes.
    fn next(&mut self) -> Result<LocalHeard, Refusal>;

    /// Hears how far it is, ten times a second at most, and at each change of the phase.
    fn progress(&mut self, progress: Progress);
}

/// A folder of this machine that becomes what a tree says.
#[derive(Debug)]
pub struct LocalFolder {
    root: Root,
    rel: RelPath,
    path: FilePath,
}

impl LocalFolder {
    /// The folder at `path`, which need not be there: it is made, with those above it. Links on the way to it
    /// are followed.
    ///
    /// # Errors
    /// `bad_path` for what is no text or leads upwards through what is not there, else what the system says.
    pub fn at(path: &Path) -> Result<Self, Refusal> {
        let shown = path.to_string_lossy();
        let failed = |fault: Fault| fault.refusal(&shown);
        let whole = std::path::absolute(path).map_err(|error| failed(error.into()))?;
        let (mut above, mut rest) = (whole.as_path(), PathBuf::new());
        let there = loop {
            match above.canonicalize() {
                Ok(there) => break there,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    let (Some(parent), Some(name)) = (above.parent(), above.file_name()) else {
                        return Err(failed(error.into()));
                    };
                    rest =
                        if rest.as_os_str().is_empty() { name.into() } else { Path::new(name).join(&rest) };
                    above = parent;
                }
                Err(error) => return Err(failed(error.into())),
            }
        };
        let no_text = || Refusal::new(Code::BadPath, format!("`{shown}` is no text (UTF-8)."));
        let rest = rest.to_str().ok_or_else(no_text)?;
        let rel = if rest.is_empty() { RelPath::root() } else { RelPath::parse(rest)? };
        let path = FilePath::parse(there.join(rest).to_str().ok_or_else(no_text)?.trim_end_matches('/'))?;
        Ok(Self { root: Root::open(&there).map_err(failed)?, rel, path })
    }

    /// Makes it what is asked for. It blocks, for as long as the disk and the peer take. A second try of the
    /// same tree asks only for what did not come before.
    ///
    /// # Errors
    /// `invalid_argument` for a pattern or a name that is none, `unsupported_entry` for what is no folder,
    /// `conflict` while another command receives the same into it, `no_space`, what the peer says, else what
    /// the system says. Each file is as it was or as it is to be, whatever fails.
    pub fn receive(&self, ask: &LocalAsk, peer: &mut dyn LocalPeer) -> Result<TransferEnd, Refusal> {
        let LocalSpec { excludes, ignore_files, vcs, refuse_links_out, full } = ask.spec.clone();
        let filters = Filters { exclude: excludes, ignore_files, vcs, links_outside: !refuse_links_out };
        let asked = ApplyAsk {
            dest: self.path.clone(),
            target: ask.target,
            base: None,
            only: ask.only.clone(),
            mode: Mode::Push(ask.push),
            limits: ask.limits,
            accepted: ask.accepted,
            filters,
            checksum: full,
            dry_run: ask.dry_run,
            read_only: false,
            // No mode of a push makes copies.
            node_name: "local".to_owned(),
            revision: Revision(0),
            identity: None,
        };
        let work = cortex_core::transfer::TransferWork::Apply(Box::new(asked.clone()));
        work.check()?;
        let place = Place { root: &self.root, rel: &self.rel, path: &self.path };
        transfer::receive(&place, &asked, &mut Caller(peer), &Plain)
    }
}

/// The caller of a command: nobody else has a word in what it does.
struct Caller<'p>(&'p mut dyn LocalPeer);

impl Supply for Caller<'_> {
    fn open(&mut self) -> Result<(), Refusal> {
        Ok(())
    }

    fn want(&mut self, ids: &[ContentId]) -> Result<(), Refusal> {
        self.0.want(ids)
    }

    fn hear(&mut self) -> Result<Heard, Refusal> {
        Ok(match self.0.next()? {
            LocalHeard::Pack(piece) => Heard::Pack(piece),
            LocalHeard::Missing(ids) => Heard::Missing(ids),
        })
    }

    fn gate(&mut self) -> Result<(), Refusal> {
        Ok(())
    }

    fn tell(&mut self, progress: Progress) {
        self.0.progress(progress);
    }
}

fn folder(path: &Path) -> Result<Dir, Fault> {
    Root::open(path)?.dir(&RelPath::root(), Follow::Never)
}

fn scan_with(
    dir: &Dir,
    spec: &ScanSpec,
    cache: Option<&Path>,
    take: Option<&Take<'_>>,
) -> Result<Scanned, Fault> {
    let place = cache.and_then(|cache| {
        let above = cache.parent().and_then(|above| above.canonicalize().ok())?;
        Some((folder(&above).ok()?, cache.file_name()?.as_bytes()))
    });
    let loaded = place.as_ref().map(|(above, name)| Cache::load_from(above, name));
    let mut cache = loaded.unwrap_or_default();
    let scanned = scan::scan(dir, spec, &mut cache, take)?;
    if let Some((above, name)) = place {
        // Without it the next time all is read, and that is all.
        let _saved = cache.save_to(&above, name);
    }
    Ok(scanned)
}
