//! One pass over a folder, as one thread goes over its part of it: from the leaves up, one folder of each level open,
//! one look at each entry.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use cortex_content::object::{DirEntry, FileNode, Node, Object, read_object};
use cortex_content::tree::{write_dir, write_map};
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::files::op::Kind;
use cortex_core::files::path::RelPath;
use cortex_core::limits::{CHUNK_WHOLE_BYTES_MAX, TREE_ENTRIES_MAX};
use cortex_core::sync::{Problem, Seen};
use nix::errno::Errno;

use super::super::beneath::{Dir, Stat};
use super::super::fault::Fault;
use super::cache::{Fresh, Known, Learnt, Told, What};
use super::crew::{Crew, Job, Share, Waiting};
use super::file::{self, Content, Reader};
use super::level::{Done, Level, entry};
use super::rules::{self, Rules};
use super::{Base, Links, OURS, Objects, ScanSpec, Take, Tell, Written};
use crate::sandbox::walls::FileId;

/// How often an entry that changes is looked at.
const LOOKS_MAX: u32 = 3;
/// What is not kept of permissions (SYNC rule 16).
const MODE_MASKED: u16 = 0o7000;
/// Whether the owner may execute it.
const MODE_EXEC: u16 = 0o100;

/// What a pass goes by.
#[derive(Clone, Copy)]
pub(super) struct Guide<'a> {
    pub(super) spec: &'a ScanSpec,
    /// Whose times are kept.
    pub(super) base: Option<&'a Base<'a>>,
    /// Folders that are looked into again, with all those above them; the others are as they were.
    /// `None`: all are.
    pub(super) dirty: Option<&'a BTreeSet<RelPath>>,
    /// Files with more than one name, all of which were found. `None`: that is still to be found out,
    /// such files are left to the next pass.
    pub(super) inside: Option<&'a HashSet<FileId>>,
    /// Files that were written since the last scan.
    pub(super) wrote: Option<&'a HashMap<RelPath, Written>>,
    /// Who is given what is read.
    pub(super) take: Option<&'a Take<'a>>,
    /// Whether it is found out of files that are read if somebody may write to them.
    pub(super) asks_writers: bool,
}

impl<'a> Guide<'a> {
    /// All of a folder, by nothing but this.
    pub(super) const fn of(spec: &'a ScanSpec) -> Self {
        Self { spec, base: None, dirty: None, inside: None, wrote: None, take: None, asks_writers: false }
    }
}

/// What a pass found, or one thread's part of it.
#[derive(Default)]
pub(super) struct Found {
    /// New objects of the tree.
    pub(super) objects: Objects,
    pub(super) left_out: BTreeMap<RelPath, Seen>,
    /// Files with more than one name: how many they have, and how many were found.
    pub(super) names: HashMap<FileId, (u64, u64)>,
    /// The folders in which such files are.
    pub(super) linked_in: BTreeSet<RelPath>,
    /// What is to be kept in the cache.
    pub(super) learnt: Learnt,
    /// Bytes that were read.
    pub(super) hashed: u64,
}

impl Found {
    /// What another thread found.
    pub(super) fn add(&mut self, other: Self) {
        self.objects.add(other.objects);
        self.left_out.extend(other.left_out);
        for (file, (names, found)) in other.names {
            self.names.entry(file).or_insert((names, 0)).1 += found;
        }
        self.linked_in.extend(other.linked_in);
        self.learnt.add(other.learnt);
        self.hashed += other.hashed;
    }
}

/// One thread's part of a pass under way.
pub(super) struct Pass<'p, 'a> {
    crew: &'p Crew<'a>,
    guide: Guide<'a>,
    /// Who is told how far it is.
    tell: Option<&'p Tell<'p>>,
    /// Calls others to help, once.
    call: Option<&'p dyn Fn()>,
    rules: Rules,
    reader: Reader,
    pub(super) found: Found,
}

/// What one look at an entry came to.
enum Look {
    Done,
    Below(Box<Level>),
    /// It changed meanwhile.
    Again,
}

/// Why something could not be looked at, when the scan goes on.
enum Miss {
    Gone,
    Changed,
    Blocked(Problem),
}

impl<'p, 'a> Pass<'p, 'a> {
    /// Before its first folder.
    pub(super) fn new(crew: &'p Crew<'a>, tell: Option<&'p Tell<'p>>, call: Option<&'p dyn Fn()>) -> Self {
        let (reader, found) = (Reader::default(), Found::default());
        Self { crew, guide: crew.guide, tell, call, rules: crew.rules.clone(), reader, found }
    }

    /// What it found.
    pub(super) fn end(self) -> Found {
        Found { hashed: self.reader.hashed, ..self.found }
    }

    /// The folder at the top, as work.
    pub(super) fn top(&mut self, dir: &Dir) -> Result<Job, Fault> {
        let dir = dir.again()?;
        let base = self.guide.base.map(|base| base.root);
        let ino = dir.stat_self()?.id.ino;
        let level = self.level(dir, [].into(), RelPath::root(), ino, base)??;
        Ok(Job { level: Box::new(level), rules: self.rules.clone() })
    }

    /// Goes over a folder, or a part of one, with all below it, but for what it leaves to others.
    pub(super) fn work(&mut self, job: Job) -> Result<(), Fault> {
        let Job { level, rules } = job;
        self.rules = rules;
        let mut stack = vec![level];
        while let Some(mut level) = stack.pop() {
            let mut below = None;
            while below.is_none() {
                if self.crew.wants_more() {
                    self.share(&mut stack, &mut level)?;
                }
                let Some(name) = level.names.next() else { break };
                if self.crew.is_over() {
                    return Ok(());
                }
                below = self.entry(&mut level, name)?;
            }
            if let Some(below) = below {
                stack.push(level);
                stack.push(below);
                continue;
            }
            if let Some((waiting, share)) = level.share() {
                return self.report(Some(waiting), share);
            }
            self.rules.leave(level.path.len());
            level.dir = None;
            let above = || stack.last_mut().map(|level| Arc::clone(level.expects_one()));
            let Some(level) = Waiting::park(level, above) else { continue };
            let done = self.finish(*level)?;
            match stack.last_mut() {
                Some(above) => above.put_dir(&done),
                None => self.crew.end(Ok(done)),
            }
        }
        Ok(())
    }

    /// Leaves half of what is to be looked at to others: of the topmost folder, since what lies there is most.
    fn share(&mut self, stack: &mut [Box<Level>], level: &mut Box<Level>) -> Result<(), Fault> {
        let is_more = |level: &&mut Box<Level>| level.names.len() > 0;
        let level = match stack.iter_mut().find(is_more) {
            Some(above) => above,
            None if level.names.len() > 1 => level,
            None => return Ok(()),
        };
        if let Some(call) = self.call.take() {
            call();
        }
        let part = level.split()?;
        let mut rules = self.rules.clone();
        rules.leave(part.path.len() + 1);
        self.crew.leave(Job { level: Box::new(part), rules });
        Ok(())
    }

    /// Tells a folder what another thread did of it, finishes it when that was the last thing it waited for, tells the
    /// folder above, and so on.
    fn report(&mut self, mut above: Option<Arc<Waiting>>, mut share: Share) -> Result<(), Fault> {
        while let Some(waiting) = above {
            let Some((level, next)) = waiting.put(share) else { return Ok(()) };
            let done = self.finish(*level)?;
            if next.is_none() {
                self.crew.end(Ok(done));
                return Ok(());
            }
            (share, above) = (Share::of(&done), next);
        }
        Ok(())
    }

    /// Takes one file.
    pub(super) fn single(&mut self, dir: &Dir, name: &[u8]) -> Result<Done, Fault> {
        let rel = RelPath::root().join_bytes(name).map_err(|_| Fault::Sys(Errno::EINVAL))?;
        let (stat, above) = (dir.stat_self()?, self.rules.digest());
        let mut level = Level::empty(dir.again()?, RelPath::root(), stat.id.ino, above);
        for _ in 0..LOOKS_MAX {
            let mut stat = dir.stat(name)?;
            if stat.kind != Kind::File {
                return Err(Fault::Unfit(stat.kind));
            }
            stat.links = 1;
            match self.file(&mut level, name, &rel, &stat, None) {
                Ok(Look::Again) | Err(Fault::Restless) => {}
                Ok(Look::Done | Look::Below(_)) if level.entries.is_empty() => return Err(Fault::TooMany),
                Ok(Look::Done | Look::Below(_)) => return self.finish(level),
                Err(fault) => return Err(fault),
            }
        }
        Err(Fault::Restless)
    }

    /// Opens the books of a folder. The inner fault is that of its ignore files: what may be sent of it is
    /// not known then.
    fn level(
        &mut self,
        dir: Dir,
        name: Box<[u8]>,
        rel: RelPath,
        ino: u64,
        base: Option<TreeId>,
    ) -> Result<Result<Level, Fault>, Fault> {
        let only = self.guide.spec.only.as_ref().filter(|_| rel.is_root());
        let mut names = match only {
            // A folder with a million other entries is not read for one.
            Some(_) => rules::names(),
            None => dir.all_names(TREE_ENTRIES_MAX as usize)?,
        };
        let path = path_of(&rel);
        let above = self.rules.digest();
        if let Err(fault) = self.rules.enter(&dir, &names, path.len()) {
            return if fault == Fault::TooMany { Ok(Err(fault)) } else { miss(fault).map(|_| Err(fault)) };
        }
        if let Some(only) = only {
            names = vec![only.clone()];
        }
        let rows = self.crew.cache.folder(&path).map(|record| record.rows()).unwrap_or_default();
        let base = self.guide.base.zip(base).map(|(base, id)| base.entries(id)).unwrap_or_default().into();
        let entries = Vec::with_capacity(names.len());
        let (names, was) = (names.into_iter(), rows.clone());
        Ok(Ok(Level { name, names, rows, was, base, entries, ..Level::empty(dir, rel, ino, above) }))
    }

    fn entry(&mut self, level: &mut Level, name: Box<[u8]>) -> Result<Option<Box<Level>>, Fault> {
        if level.rel.is_root() && &*name == OURS {
            return Ok(None);
        }
        self.crew.count(1)?;
        let Ok(rel) = level.rel.join_bytes(&name) else {
            level.sums.unnamed += 1;
            return Ok(None);
        };
        let mut known = level.rows.of(&name);
        for _ in 0..LOOKS_MAX {
            let missed = match level.dir()?.stat(&name) {
                Ok(stat) => match self.look(level, &name, &rel, &stat, known.take()) {
                    Ok(Look::Done) => return Ok(None),
                    Ok(Look::Below(below)) => return Ok(Some(below)),
                    Ok(Look::Again) => continue,
                    Err(fault) => fault,
                },
                Err(fault) => fault,
            };
            match miss(missed)? {
                Miss::Gone => return Ok(None),
                Miss::Changed => {}
                Miss::Blocked(problem) => {
                    self.found.left_out.insert(rel, Seen::Blocked(problem));
                    return Ok(None);
                }
            }
        }
        self.found.left_out.insert(rel, Seen::Blocked(Problem::Unsteady));
        Ok(None)
    }

    fn look(
        &mut self,
        level: &mut Level,
        name: &[u8],
        rel: &RelPath,
        stat: &Stat,
        known: Option<Known>,
    ) -> Result<Look, Fault> {
        let is_named = level.rel.is_root() && self.guide.spec.only.is_some();
        if !is_named && self.rules.leave_out(rel.as_str().as_bytes(), name, stat.kind == Kind::Dir) {
            self.found.left_out.insert(rel.clone(), Seen::Ignored);
            return Ok(Look::Done);
        }
        match stat.kind {
            Kind::Other => {
                self.found.left_out.insert(rel.clone(), Seen::Blocked(Problem::Unsupported));
                Ok(Look::Done)
            }
            Kind::Link => self.link(level, name, rel, stat, known),
            Kind::Dir => self.dir(level, name, rel, stat),
            Kind::File => self.file(level, name, rel, stat, known),
        }
    }

    fn link(
        &mut self,
        level: &mut Level,
        name: &[u8],
        rel: &RelPath,
        stat: &Stat,
        known: Option<Known>,
    ) -> Result<Look, Fault> {
        let target = Bytes::from(level.dir()?.link_target(name)?);
        let leads_out = self.guide.spec.links == Links::Refuse && leads_out(&level.rel, &target);
        let was = known.and_then(|known| match known.what {
            What::Link { mtime_ns, target: was } => (was == target).then_some(mtime_ns),
            What::Dir | What::File { .. } => None,
        });
        let of_base = level.in_base(name).and_then(|node| match node {
            Node::Link { target: was, mtime_ns } => (*was == target).then_some(*mtime_ns),
            Node::File(_) | Node::Dir { .. } => None,
        });
        let mtime_ns = of_base.or(was).unwrap_or(stat.mtime_ns);
        let entry = entry(name, Node::Link { target: target.clone(), mtime_ns });
        if leads_out || entry.check().is_err() {
            let problem = if leads_out { Problem::LinkOutside } else { Problem::Unsupported };
            self.found.left_out.insert(rel.clone(), Seen::Blocked(problem));
            return Ok(Look::Done);
        }
        level.writer.link(name, mtime_ns, &target);
        level.entries.push(entry);
        level.sums.files += 1;
        Ok(Look::Done)
    }

    fn dir(&mut self, level: &mut Level, name: &[u8], rel: &RelPath, stat: &Stat) -> Result<Look, Fault> {
        if let Some(told) = self.as_it_was(rel, stat) {
            let path = rel.as_str().len();
            let from = self.crew.was_left_out.range(rel.clone()..);
            let below =
                from.take_while(|(other, _)| other.as_str().len() > path && other.below(rel).is_some());
            self.found.left_out.extend(below.map(|(other, seen)| (other.clone(), seen.clone())));
            self.crew.count(told.totals.entries.into())?;
            level.writer.dir(name);
            level.put_dir(&Done { name: name.into(), told, entries: 0 });
            return Ok(Look::Done);
        }
        let dir = level.dir()?.dir(name)?;
        if dir.stat_self()?.id != stat.id {
            return Ok(Look::Again);
        }
        let base = level.in_base(name).and_then(|node| match node {
            Node::Dir { id, .. } => Some(*id),
            Node::File(_) | Node::Link { .. } => None,
        });
        let Ok(mut below) = self.level(dir, name.into(), rel.clone(), stat.id.ino, base)? else {
            level.sums.rules_unread += 1;
            self.found.left_out.insert(rel.clone(), Seen::Blocked(Problem::Unreadable));
            return Ok(Look::Done);
        };
        below.sums.masked += u64::from(stat.mode & MODE_MASKED != 0);
        // At its place among the rows, which are in the order of names, whenever it is told what is below.
        level.writer.dir(name);
        Ok(Look::Below(Box::new(below)))
    }

    /// What a folder came to that nobody touched since.
    fn as_it_was(&self, rel: &RelPath, stat: &Stat) -> Option<Told> {
        if self.guide.dirty.is_none_or(|dirty| dirty.contains(rel)) {
            return None;
        }
        let told = self.crew.cache.folder(&path_of(rel))?.told;
        let is = told.ino == stat.id.ino && told.above == self.rules.digest();
        (is && self.crew.before.get(&told.tree.into()).is_some()).then_some(told)
    }

    /// What is in a file that was written since the last scan, if nobody touched it since.
    fn written(&self, rel: &RelPath, stat: &Stat) -> Option<Content> {
        let Written { stat: was, id, chunks } = self.guide.wrote?.get(rel)?;
        let is_same = stat.is_untouched_since(was) && stat.mode == was.mode;
        is_same.then(|| Content { id: *id, chunks: chunks.clone() })
    }

    fn file(
        &mut self,
        level: &mut Level,
        name: &[u8],
        rel: &RelPath,
        stat: &Stat,
        known: Option<Known>,
    ) -> Result<Look, Fault> {
        let is_named = level.rel.is_root() && self.guide.spec.only.is_some();
        if stat.links > 1 && !is_named {
            match self.guide.inside {
                None => {
                    let (_, found) = self.found.names.entry(stat.id).or_insert((stat.links, 0));
                    *found += 1;
                    self.found.linked_in.insert(level.rel.clone());
                    if let Some(known) = known {
                        level.writer.again(&known);
                    }
                    return Ok(Look::Done);
                }
                Some(inside) if !inside.contains(&stat.id) => {
                    level.sums.linked += 1;
                    self.found.left_out.insert(rel.clone(), Seen::Blocked(Problem::Unsupported));
                    return Ok(Look::Done);
                }
                Some(_) => {}
            }
        }
        // In a second pass all but files with more names were read in the first one.
        let believes = !self.guide.spec.full || (self.guide.inside.is_some() && stat.links == 1);
        let is_hit = |what: &What| match what {
            What::File { seen, content, .. } => believes && seen.is(stat) && fits(content, stat.size),
            What::Dir | What::Link { .. } => false,
        };
        let (content, was_ns) = match known.as_ref().map(|known| &known.what) {
            Some(What::File { content, mtime_ns, .. }) => (Some(content), *mtime_ns),
            Some(What::Dir | What::Link { .. }) | None => (None, 0),
        };
        let hit = known.as_ref().filter(|known| is_hit(&known.what));
        // Of what was written, which is not read.
        let mut no_writer = self.crew.writers.none_of_ours();
        let read = match hit {
            Some(_) => None,
            None if self.written(rel, stat).is_some() => self.written(rel, stat),
            None => {
                let file = level.dir()?.open_seen(name, stat)?;
                if file::is_too_large(&file, stat)? {
                    level.sums.too_large += 1;
                    self.found.left_out.insert(rel.clone(), Seen::Blocked(Problem::Unsupported));
                    return Ok(Look::Done);
                }
                let before = self.reader.hashed;
                let tell = |bytes: u64| {
                    if let Some(tell) = self.tell {
                        let (files, hashed) = self.crew.seen();
                        tell(files, hashed + (bytes - before));
                    }
                };
                no_writer = self.crew.writers.none_of(&file);
                let several = if file::is_long(stat) { self.crew.several.try_lock().ok() } else { None };
                let read = self.reader.read(&file, stat, several.is_some(), &tell, self.guide.take);
                drop(several);
                self.crew.hashed.fetch_add(self.reader.hashed - before, Ordering::Relaxed);
                let Some(read) = read? else { return Ok(Look::Again) };
                Some(read)
            }
        };
        let was_same = content.is_some_and(|was| read.as_ref().is_none_or(|read| read == was));
        let Some(content) = read.as_ref().or(content) else { return Ok(Look::Again) };
        let of_base = level.in_base(name).and_then(|node| match node {
            Node::File(file) => (file.id == content.id).then_some(file.mtime_ns),
            Node::Dir { .. } | Node::Link { .. } => None,
        });
        let mtime_ns = of_base.unwrap_or(if was_same { was_ns } else { stat.mtime_ns });
        let objects = &mut self.found.objects;
        let map = match content.chunks.is_empty() {
            true => None,
            false => {
                let written =
                    write_map(content.chunks.iter().copied(), &mut |id, bytes| objects.put(id, bytes));
                let Ok((map, _)) = written else { return Ok(Look::Again) };
                Some(map)
            }
        };
        let exec = stat.mode & MODE_EXEC != 0;
        let node = FileNode { id: content.id, size: stat.size, exec, mtime_ns, map };
        let entry = entry(name, Node::File(node));
        if entry.check().is_err() {
            return Ok(Look::Again);
        }
        match hit.map(|known| (known, &known.what)) {
            Some((known, _)) if mtime_ns == was_ns => level.writer.again(known),
            Some((_, What::File { seen, .. })) => level.writer.file(name, *seen, mtime_ns, content),
            _ => {
                let seen = Fresh::of(stat, self.crew.clock.is_too_young(stat), no_writer);
                level.writer.file(name, seen, mtime_ns, content);
            }
        }
        level.entries.push(entry);
        self.crew.files.fetch_add(1, Ordering::Relaxed);
        self.tell();
        level.sums.files += 1;
        level.sums.linked += u64::from(stat.links > 1);
        level.sums.masked += u64::from(stat.mode & MODE_MASKED != 0);
        Ok(Look::Done)
    }

    /// Closes the books of a folder, all of whose folders are finished.
    fn finish(&mut self, level: Level) -> Result<Done, Fault> {
        let Level { name, path, ino, above, was, entries, writer, sums, .. } = level;
        let is_dir = |entry: &&DirEntry| matches!(entry.node, Node::Dir { .. });
        let now: HashSet<Bytes> = entries.iter().filter(is_dir).map(|entry| entry.name.clone()).collect();
        for was in was.filter(|was| matches!(was.what, What::Dir) && !now.contains(&was.name)) {
            self.found.learnt.forget([&path[..], &was.name, b"/"].concat());
        }
        let (objects, count) = (&mut self.found.objects, entries.len() as u64);
        let written = write_dir(entries, &mut |id, bytes| objects.put(id, bytes));
        // Each entry was checked, and no two have one name: it is too many, or too deep.
        let (tree, totals) = written.map_err(|_| Fault::TooMany)?;
        let told = Told { ino, above, tree, totals, sums };
        self.found.learnt.put(self.crew.cache, &path, writer.finish(told));
        Ok(Done { name, told, entries: count })
    }

    fn tell(&self) {
        if let Some(tell) = self.tell {
            let (files, hashed) = self.crew.seen();
            tell(files, hashed);
        }
    }
}

impl Base<'_> {
    /// Entries of a folder of it, by name; those of objects that are not here are left out.
    fn entries(&self, id: TreeId) -> Vec<DirEntry> {
        let mut entries = Vec::new();
        self.collect(&id.into(), &mut entries);
        entries
    }

    fn collect(&self, id: &ContentId, into: &mut Vec<DirEntry>) {
        match self.objects.get(id).map(read_object) {
            Some(Ok(Object::Dir(mut entries))) => into.append(&mut entries),
            // An object names others that were hashed before: it never leads in circles.
            Some(Ok(Object::DirIndex { parts, .. })) => {
                parts.iter().for_each(|part| self.collect(&part.id, into))
            }
            Some(Ok(Object::Map(_) | Object::MapIndex { .. }) | Err(_)) | None => {}
        }
    }
}

pub(super) fn path_of(rel: &RelPath) -> Vec<u8> {
    if rel.is_root() { Vec::new() } else { [rel.as_str().as_bytes(), b"/"].concat() }
}

/// Whether what a cache claims can be the content of a file of this size.
fn fits(content: &Content, size: u64) -> bool {
    let is_long = size > CHUNK_WHOLE_BYTES_MAX as u64;
    let sum: u64 = content.chunks.iter().map(|chunk| u64::from(chunk.len)).sum();
    is_long != content.chunks.is_empty() && (!is_long || sum == size)
}

/// Whether the text of a link in `folder` leads out of the tree. What other links on the way do is not
/// asked: they are judged themselves.
fn leads_out(folder: &RelPath, target: &[u8]) -> bool {
    if target.starts_with(b"/") {
        return true;
    }
    let mut depth = folder.parts().count();
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if depth == 0 => return true,
            b".." => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

/// What a fault says of one entry.
///
/// # Errors
/// Faults that are not the entry's: whoever went on would take for unreadable what was not looked at.
fn miss(fault: Fault) -> Result<Miss, Fault> {
    match fault {
        Fault::Sys(Errno::ENOENT) => Ok(Miss::Gone),
        Fault::Sys(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOSYS) | Fault::TooMany => {
            Err(fault)
        }
        Fault::Sys(Errno::EXDEV) => Ok(Miss::Blocked(Problem::OtherFileSystem)),
        Fault::Sys(Errno::ENOTDIR | Errno::EISDIR | Errno::ELOOP | Errno::ESTALE | Errno::EINVAL)
        | Fault::Outside
        | Fault::Unfit(_)
        | Fault::Restless => Ok(Miss::Changed),
        Fault::Sys(_) => Ok(Miss::Blocked(Problem::Unreadable)),
    }
}
