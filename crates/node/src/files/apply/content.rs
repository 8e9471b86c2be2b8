//! The content of what is to be written, until all of it lies in staging and is durable. Nothing here has
//! a name yet that anybody knows (SYNC rule 4).

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use cortex_content::asking::{Asking, Came};
use cortex_core::error::{Code, Refusal};
use cortex_core::files::content::ContentId;
use cortex_core::files::path::RelPath;
use cortex_core::limits::{PACK_BYTES_MAX, WANTS_MAX, WANTS_OPEN_BYTES_MAX, WANTS_OPEN_MAX};
use cortex_core::sync::{Act, Entry, Step};
use cortex_core::transfer::{Phase, Progress};
use nix::sys::stat::Mode;

use super::super::beneath::{Dir, Stat};
use super::super::fault::Fault;
use super::super::scan::Written;
use super::super::seam::{Moment, Seam, Synced};
use super::beside::{Beside, Done, Job, Wrote};
use super::fetch::Store;
use super::modes;
use super::peer::{Event, Peer};
use super::staging::{Staging, TakenLog};
use super::taken::Part;

/// Bytes after which it is noted what is there: what a cut costs at most.
const NOTE_BYTES: u64 = PACK_BYTES_MAX as u64;
/// Bytes after which it is made durable: what a power cut costs at most.
const SYNC_BYTES: u64 = WANTS_OPEN_BYTES_MAX;
/// No further place.
const NONE: u32 = u32::MAX;

/// How far a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// So many chunks are missing.
    Open(u32),
    /// It is whole.
    Ready,
    /// The other end does not have all of it.
    Missing,
}

/// A file that is to be written.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) path: RelPath,
    folder: u32,
    id: ContentId,
    map: Option<ContentId>,
    pub(super) size: u64,
    exec: bool,
    mtime_ns: Option<i64>,
    state: State,
    /// What was known of it when it was done.
    stat: Option<Stat>,
    /// Chunks that came since the last note; of a long file.
    fresh: Vec<(u32, u32)>,
}

/// Where a chunk goes.
#[derive(Clone, Copy, Debug)]
struct Place {
    item: u32,
    offset: u64,
    len: u32,
    /// Its number in its file.
    number: u32,
    /// One more place of the same chunk.
    next: u32,
}

/// What is to be written, and what is missing of it. About 200 bytes for each file and 100 for each chunk.
pub(super) struct Content<'a> {
    staging: &'a Staging,
    seam: &'a dyn Seam,
    items: Vec<Item>,
    folders: Vec<RelPath>,
    places: Vec<Place>,
    /// The last place of each chunk that is missing.
    needs: HashMap<ContentId, u32>,
    /// The same in the order in which they are asked for.
    order: Vec<(ContentId, u32)>,
    log: TakenLog,
    /// The folder that was used last.
    at: Option<(u32, Arc<Dir>)>,
    /// The file that was used last, of those that are written or read in parts.
    open: Option<(u32, Arc<File>)>,
    /// For what is read of them.
    buffer: Vec<u8>,
    beside: Beside,
    unnoted: u64,
    unsynced: u64,
    is_dirty: bool,
    /// Something could not be made durable: that is not asked for again.
    is_broken: bool,
    ready: u64,
    done: u64,
    all: u64,
    pub(super) fetched: u64,
    pub(super) copied: u64,
    pub(super) resumed: u64,
}

/// Files of a plan by their paths, with what they are to hold.
pub(super) fn files(steps: &[Step]) -> HashMap<&RelPath, (ContentId, u64)> {
    let file = |step: &Step| {
        let Act::Put(Entry::File { id, size, .. }) = &step.act else { return None };
        Some((*id, *size))
    };
    steps.iter().filter_map(|step| Some((&step.path, file(step)?))).collect()
}

impl<'a> Content<'a> {
    /// What the steps need, less what lies in staging already.
    pub(super) fn new(
        staging: &'a Staging,
        seam: &'a dyn Seam,
        store: &Store<'_>,
        steps: &[Step],
        times: &HashMap<RelPath, i64>,
        (log, mut parts): (TakenLog, HashMap<RelPath, Part>),
    ) -> Result<Self, Refusal> {
        let mut content = Self {
            staging,
            seam,
            items: Vec::new(),
            folders: Vec::new(),
            places: Vec::new(),
            needs: HashMap::new(),
            order: Vec::new(),
            log,
            at: None,
            open: None,
            buffer: Vec::new(),
            beside: Beside::default(),
            unnoted: 0,
            unsynced: 0,
            is_dirty: false,
            is_broken: false,
            ready: 0,
            done: 0,
            all: 0,
            fetched: 0,
            copied: 0,
            resumed: 0,
        };
        content.make_folders(steps)?;
        content.add_items(store, steps, times, &mut parts)?;
        Ok(content)
    }

    fn add_items(
        &mut self,
        store: &Store<'_>,
        steps: &[Step],
        times: &HashMap<RelPath, i64>,
        parts: &mut HashMap<RelPath, Part>,
    ) -> Result<(), Refusal> {
        let mut folders: HashMap<&str, u32> = HashMap::new();
        for step in steps {
            let path = &step.path;
            let folder = path.as_str().rsplit_once('/').map_or("", |(folder, _)| folder);
            let entry = match &step.act {
                Act::Put(entry) => entry,
                Act::MakeDir | Act::RemoveFile | Act::RemoveDir | Act::Exec(_) | Act::Keep { .. } => continue,
            };
            let folder = match folders.get(folder) {
                Some(number) => *number,
                None => {
                    let number = count(self.folders.len())?;
                    self.folders.push(path.parent().unwrap_or_default());
                    folders.insert(folder, number);
                    number
                }
            };
            let mtime_ns = times.get(path).copied();
            match entry {
                Entry::Link { target } => self.link(path, folder, target, mtime_ns)?,
                Entry::Dir => {}
                Entry::File { id, map, size, exec } => {
                    let (exec, map) = (*exec && !modes::is_hook(path), map.map(ContentId::from));
                    let item = Item {
                        path: path.clone(),
                        folder,
                        id: *id,
                        map,
                        size: *size,
                        exec,
                        mtime_ns,
                        state: State::Open(0),
                        stat: None,
                        fresh: Vec::new(),
                    };
                    self.file(store, item, parts.remove(path))?;
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, store: &Store<'_>, item: Item, part: Option<Part>) -> Result<(), Refusal> {
        self.all = self.all.saturating_add(item.size);
        let number = count(self.items.len())?;
        let there = part.map(|part| part.chunks);
        let (id, map, size) = (item.id, item.map, item.size);
        self.items.push(item);
        let Some(map) = map else {
            if size == 0 {
                return self.whole(number, Bytes::new());
            }
            // The check of a tree has it that a file without a map is one chunk.
            let len = u32::try_from(size).unwrap_or(u32::MAX);
            let place = Place { item: number, offset: 0, len, number: 0, next: NONE };
            if there.is_some() && self.is_staged(&id, &place)? {
                self.resumed += size;
                self.done += size;
                return self.finish_staged(number);
            }
            return self.need(id, place);
        };
        let (mut offset, mut chunk, mut resumed) = (0_u64, 0_u32, 0_u64);
        store.chunks(&map, &mut |part| {
            let place = Place { item: number, offset, len: part.len, number: chunk, next: NONE };
            offset += u64::from(part.len);
            chunk = count(chunk as usize + 1)?;
            let is_noted = there.as_ref().is_some_and(|chunks| {
                let is_in = |(from, until): &(u32, u32)| (*from..*until).contains(&place.number);
                chunks.as_ref().is_none_or(|chunks| chunks.iter().any(is_in))
            });
            if is_noted && self.is_staged(&part.id, &place)? {
                resumed += u64::from(part.len);
                return Ok(());
            }
            self.need(part.id, place)
        })?;
        self.resumed += resumed;
        self.done += resumed;
        if self.items[number as usize].state == State::Open(0) { self.finish_staged(number) } else { Ok(()) }
    }

    /// All of a file lies in staging already.
    fn finish_staged(&mut self, number: u32) -> Result<(), Refusal> {
        let file = self.long(number).map_err(|fault| self.refusal(number, fault))?;
        self.finish(number, &file)
    }

    /// Whether a try before staged that chunk, and the disk still has it as it was (ABUSE 59).
    fn is_staged(&mut self, id: &ContentId, place: &Place) -> Result<bool, Refusal> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(place.len as usize, 0);
        let read = self.long(place.item).map(|file| file.read_exact_at(&mut buffer, place.offset));
        let is_it = read.map(|read| read.is_ok() && ContentId::of(&buffer) == *id);
        self.buffer = buffer;
        is_it.map_err(|fault| self.refusal(place.item, fault))
    }

    fn need(&mut self, id: ContentId, mut place: Place) -> Result<(), Refusal> {
        if let State::Open(missing) = &mut self.items[place.item as usize].state {
            *missing += 1;
        }
        let number = count(self.places.len())?;
        let len = place.len;
        match self.needs.insert(id, number) {
            Some(before) => place.next = before,
            None => self.order.push((id, len)),
        }
        self.places.push(place);
        Ok(())
    }

    /// In staging, all folders in which something comes to lie.
    fn make_folders(&mut self, steps: &[Step]) -> Result<(), Refusal> {
        let mut folders: BTreeSet<RelPath> = BTreeSet::new();
        for step in steps {
            let mut at = match step.act {
                Act::MakeDir => Some(step.path.clone()),
                Act::Put(_) => step.path.parent(),
                Act::RemoveFile | Act::RemoveDir | Act::Exec(_) | Act::Keep { .. } => None,
            };
            while let Some(folder) = at.filter(|at| !at.is_root()) {
                at = folder.parent();
                if !folders.insert(folder) {
                    break;
                }
            }
        }
        let mode = Mode::from_bits_truncate(modes::DIR_MODE.into());
        let mut above: Option<(RelPath, Dir)> = None;
        for folder in &folders {
            let parent = folder.parent().unwrap_or_default();
            let below = match above.take() {
                Some((path, dir)) if path == parent => Ok(dir),
                _ => self.staging.tree.below(&parent),
            };
            let made = below.and_then(|dir| {
                match dir.make_dir(folder.name().as_bytes(), mode) {
                    Err(fault) if !fault.is_taken() => return Err(fault),
                    Ok(()) | Err(_) => {}
                }
                let made = dir.dir(folder.name().as_bytes())?;
                super::super::tree::set_mode(&made, modes::DIR_MODE)?;
                Ok(made)
            });
            above = Some((folder.clone(), made.map_err(|fault| fault.refusal(folder.as_str()))?));
        }
        Ok(())
    }

    fn folder(&mut self, number: u32) -> Result<&Arc<Dir>, Fault> {
        let at = match self.at.take() {
            Some((at, dir)) if at == number => (at, dir),
            _ => (number, Arc::new(self.staging.tree.below(&self.folders[number as usize])?)),
        };
        Ok(&self.at.insert(at).1)
    }

    fn link(
        &mut self,
        path: &RelPath,
        folder: u32,
        target: &[u8],
        mtime_ns: Option<i64>,
    ) -> Result<(), Refusal> {
        let name = path.name().as_bytes();
        let made = self.folder(folder).and_then(|folder| {
            folder.make_link(name, target)?;
            mtime_ns.map_or(Ok(()), |ns| modes::set_entry_time(folder, name, ns))
        });
        self.is_dirty = true;
        made.map_err(|fault| fault.refusal(path.as_str()))
    }

    /// Bytes that are missing, and files.
    pub(super) fn missing(&self) -> (u64, u64) {
        let open = self.items.iter().filter(|item| matches!(item.state, State::Open(_)));
        let bytes = self.order.iter().map(|(_, len)| u64::from(*len));
        let again = self.places.iter().filter(|place| place.next != NONE).map(|place| u64::from(place.len));
        (bytes.chain(again).sum(), open.count() as u64)
    }

    /// Whether that chunk is missing.
    pub(super) fn needs(&self, id: &ContentId) -> bool {
        self.needs.contains_key(id)
    }

    /// Whether any is.
    pub(super) fn needs_any(&self) -> bool {
        !self.needs.is_empty()
    }

    /// A chunk that was found in the folder.
    pub(super) fn found(&mut self, id: &ContentId, bytes: &Bytes) -> Result<(), Refusal> {
        self.copied += bytes.len() as u64;
        self.put(id, bytes)?;
        self.note(bytes.len() as u64)
    }

    /// Asks for what is missing, until it came.
    pub(super) fn fetch(&mut self, peer: &mut dyn Peer) -> Result<(), Refusal> {
        let fetched = self.fetched_all(peer);
        // What came before something failed is of use for the next try.
        let written = self.finish_all();
        let noted = if self.is_broken { Ok(()) } else { self.flush() };
        fetched.and(written).and(noted)
    }

    /// Waits until all that came is written.
    fn finish_all(&mut self) -> Result<(), Refusal> {
        let mut all = Ok(());
        while let Some(done) = self.beside.finish()? {
            all = all.and(self.written(done));
        }
        all
    }

    fn fetched_all(&mut self, peer: &mut dyn Peer) -> Result<(), Refusal> {
        let mut asking = Asking::new();
        for (id, len) in std::mem::take(&mut self.order) {
            if self.needs.contains_key(&id) {
                asking.push(id, len);
            }
        }
        while !asking.is_idle() {
            // A few at a time would be a message for each chunk.
            let is_half_open =
                asking.open_bytes() > WANTS_OPEN_BYTES_MAX / 2 || asking.open_ids() > WANTS_OPEN_MAX / 2;
            if !is_half_open {
                let ids = asking.next(WANTS_MAX);
                if !ids.is_empty() {
                    peer.want(&ids)?;
                }
            }
            let came = match peer.next()? {
                Event::Chunk(id, bytes) => {
                    if asking.came(id) == Came::Extra {
                        continue;
                    }
                    let len = bytes.len() as u64;
                    self.fetched += len;
                    self.put(&id, &bytes)?;
                    len
                }
                Event::Missing(id) => {
                    if asking.missing(id) {
                        self.give_up(&id);
                    }
                    continue;
                }
            };
            self.seam.pass(Moment::Piece);
            self.note(came)?;
            peer.progress(self.progress());
        }
        Ok(())
    }

    /// How far it is.
    pub(super) fn progress(&self) -> Progress {
        Progress {
            phase: Phase::Moving,
            files: self.ready,
            files_total: self.items.len() as u64,
            bytes: self.done,
            bytes_total: self.all,
        }
    }

    fn give_up(&mut self, id: &ContentId) {
        let mut at = self.needs.remove(id).unwrap_or(NONE);
        while let Some(place) = self.places.get(at as usize).copied() {
            self.items[place.item as usize].state = State::Missing;
            at = place.next;
        }
    }

    /// Has a chunk put wherever it belongs.
    fn put(&mut self, id: &ContentId, bytes: &Bytes) -> Result<(), Refusal> {
        let mut at = self.needs.remove(id).unwrap_or(NONE);
        while let Some(place) = self.places.get(at as usize).copied() {
            if bytes.len() != place.len as usize {
                let path = self.items[place.item as usize].path.as_str();
                return Err(Refusal::new(
                    Code::InvalidArgument,
                    format!("`{path}` is told with a chunk of {} bytes that has {}.", place.len, bytes.len()),
                )
                .hint("Scan the source again: its tree does not fit its content."));
            }
            if self.items[place.item as usize].map.is_none() {
                self.whole(place.item, bytes.clone())?;
            } else {
                self.chunk(&place, bytes.clone())?;
            }
            at = place.next;
        }
        while let Some(done) = self.beside.done()? {
            self.written(done)?;
        }
        Ok(())
    }

    /// A file of one chunk.
    fn whole(&mut self, number: u32, bytes: Bytes) -> Result<(), Refusal> {
        let Item { exec, mtime_ns, folder, path, .. } = &self.items[number as usize];
        let (exec, mtime_ns, folder, name) = (*exec, *mtime_ns, *folder, path.name().as_bytes().into());
        let dir = self.folder(folder).map(Arc::clone).map_err(|fault| self.refusal(number, fault))?;
        self.beside.put(Job::Whole { item: number, dir, name, bytes, exec, mtime_ns })
    }

    fn chunk(&mut self, place: &Place, bytes: Bytes) -> Result<(), Refusal> {
        let Place { item, number, offset, .. } = *place;
        let file = self.long(item).map_err(|fault| self.refusal(item, fault))?;
        self.beside.put(Job::Chunk { item, number, file, offset, bytes })
    }

    /// Something was written, or not.
    fn written(&mut self, (number, done): Done) -> Result<(), Refusal> {
        match done.map_err(|fault| self.refusal(number, fault))? {
            Wrote::Whole(stat) => {
                self.done += self.items[number as usize].size;
                self.ready(number, stat);
                Ok(())
            }
            Wrote::Chunk { number: chunk, file, len } => {
                self.done += len as u64;
                let item = &mut self.items[number as usize];
                match item.fresh.last_mut() {
                    Some((_, until)) if *until == chunk => *until += 1,
                    Some(_) | None => item.fresh.push((chunk, chunk + 1)),
                }
                if let State::Open(missing) = &mut item.state {
                    *missing -= 1;
                    if *missing == 0 {
                        return self.finish(number, &file);
                    }
                }
                if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
                    self.note_chunks(number);
                }
                Ok(())
            }
        }
    }

    fn refusal(&self, number: u32, fault: Fault) -> Refusal {
        fault.refusal(self.items[number as usize].path.as_str())
    }

    /// The long file, as far as it is there.
    fn long(&mut self, number: u32) -> Result<Arc<File>, Fault> {
        let open = match self.open.take() {
            Some((at, file)) if at == number => (at, file),
            other => {
                if let Some((at, _)) = other {
                    self.note_chunks(at);
                }
                let item = &self.items[number as usize];
                let (size, folder, path) = (item.size, item.folder, item.path.clone());
                let folder = self.folder(folder)?;
                let file = match folder.create(path.name().as_bytes()) {
                    Ok(file) => {
                        file.set_len(size)?;
                        file
                    }
                    Err(fault) if fault.is_taken() => folder.writable(path.name().as_bytes())?,
                    Err(fault) => return Err(fault),
                };
                (number, Arc::new(file))
            }
        };
        Ok(Arc::clone(&self.open.insert(open).1))
    }

    /// All chunks of a long file are there.
    fn finish(&mut self, number: u32, file: &File) -> Result<(), Refusal> {
        let Item { exec, mtime_ns, .. } = self.items[number as usize];
        let stat = modes::dress(file, exec, mtime_ns).map_err(|fault| self.refusal(number, fault))?;
        self.open.take_if(|(open, _)| *open == number);
        self.ready(number, stat);
        Ok(())
    }

    fn ready(&mut self, number: u32, stat: Stat) {
        let item = &mut self.items[number as usize];
        item.stat = Some(stat);
        item.state = State::Ready;
        self.ready += 1;
        item.fresh = Vec::new();
        self.log.piece.whole(&item.path, &item.id);
        self.is_dirty = true;
    }

    fn note_chunks(&mut self, number: u32) {
        let item = &mut self.items[number as usize];
        for (from, until) in std::mem::take(&mut item.fresh) {
            self.log.piece.chunks(&item.path, &item.id, from, until);
        }
        self.is_dirty = true;
    }

    fn note(&mut self, bytes: u64) -> Result<(), Refusal> {
        self.unnoted += bytes;
        self.unsynced += bytes;
        if self.unnoted < NOTE_BYTES { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> Result<(), Refusal> {
        if let Some(number) = self.open.as_ref().map(|(number, _)| *number) {
            self.note_chunks(number);
        }
        let is_due = self.unsynced >= SYNC_BYTES;
        let synced = if is_due { self.seam.sync(self.staging.dir.as_fd(), Synced::Tree) } else { Ok(()) };
        let noted = synced.and_then(|()| self.log.write(self.seam, is_due));
        self.is_broken = noted.is_err();
        noted.map_err(|fault| fault.refusal(".cortex/staging"))?;
        self.unnoted = 0;
        if is_due {
            self.unsynced = 0;
        }
        self.seam.pass(Moment::PackSynced);
        Ok(())
    }

    /// Makes all durable that lies in staging, and removes what is not whole. What comes of it is asked by
    /// path.
    pub(super) fn settle(mut self) -> Result<Vec<Item>, Refusal> {
        self.finish_all()?;
        self.open = None;
        for number in 0..self.items.len() {
            let item = &self.items[number];
            if item.state == State::Ready {
                continue;
            }
            let (folder, path) = (item.folder, item.path.clone());
            let removed =
                self.folder(folder).and_then(|folder| match folder.unlink(path.name().as_bytes()) {
                    Err(fault) if !fault.is_absent() => Err(fault),
                    Ok(()) | Err(_) => Ok(()),
                });
            removed.map_err(|fault| fault.refusal(path.as_str()))?;
        }
        if self.is_dirty || !self.folders.is_empty() {
            let synced = self.seam.sync(self.staging.dir.as_fd(), Synced::Tree);
            synced.map_err(|fault| fault.refusal(".cortex/staging"))?;
        }
        self.seam.pass(Moment::Staged);
        Ok(self.items)
    }
}

impl Item {
    pub(super) fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    pub(super) const fn exec(&self) -> bool {
        self.exec
    }

    /// What the next scan need not read. `now` is what lies under its name, `None` when it got that with
    /// the folder that it lies in, by which nothing of it was touched.
    pub(super) fn written(&self, store: &Store<'_>, now: Option<Stat>) -> Result<Option<Written>, Refusal> {
        let Some(was) = self.stat else { return Ok(None) };
        let stat = now.unwrap_or(was);
        if !stat.is_as(&was) {
            return Ok(None);
        }
        let mut chunks = Vec::new();
        if let Some(map) = &self.map {
            store.chunks(map, &mut |chunk| {
                chunks.push(chunk);
                Ok(())
            })?;
        }
        Ok(Some(Written { stat, id: self.id, chunks }))
    }
}

/// Files and chunks are counted in 32 bits; a tree has at most five million entries.
fn count(number: usize) -> Result<u32, Refusal> {
    u32::try_from(number).ok().filter(|number| *number < NONE).ok_or_else(|| {
        Refusal::new(Code::TooLarge, "The files of a tree have more chunks than one transfer takes.")
    })
}
