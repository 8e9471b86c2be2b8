//! Answers what a receiver asks for, out of the folder that was scanned.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use cortex_content::object::{Node, Object, read_object};
use cortex_core::files::content::{ContentId, TreeId};
use nix::errno::Errno;

use super::super::beneath::Dir;
use super::super::fault::Fault;
use super::{Objects, Scanned};

/// Objects from memory, chunks from the disk.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    dir: &'a Dir,
    objects: &'a Objects,
    places: Places,
}

impl<'a> Source<'a> {
    /// Of this folder, which was scanned. It takes about 32 bytes for each chunk, and as many for each
    /// file and its name.
    ///
    /// # Errors
    /// [`Fault::TooMany`] for more files than a tree has.
    pub(crate) fn new(dir: &'a Dir, scanned: &'a Scanned) -> Result<Self, Fault> {
        Ok(Self { dir, objects: &scanned.objects, places: Places::of(scanned.root, &scanned.objects)? })
    }

    /// Reads an object or chunk, whose hash is compared, into `room`, which is as long as [`len_of`](Self::len_of)
    /// says. `false`: there is none in the tree, or it changed or went away since.
    ///
    /// # Errors
    /// When there is no memory or descriptor left.
    pub(crate) fn read_into(&mut self, id: &ContentId, room: &mut [u8]) -> Result<bool, Fault> {
        match self.objects.copy_to(id, room) {
            Some(copied) => Ok(copied),
            None => self.places.read_into(self.dir, id, room),
        }
    }

    /// How many bytes an object or chunk has; `None` when there is none in the tree.
    pub(crate) fn len_of(&self, id: &ContentId) -> Option<u32> {
        match self.objects.get(id) {
            Some(object) => u32::try_from(object.len()).ok(),
            None => self.places.len_of(id),
        }
    }
}

/// Where the chunks of a tree lie.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// By id. A chunk that lies at several places has several.
    chunks: Vec<Place>,
    files: Vec<FileAt>,
    folders: Vec<FolderAt>,
    /// All names, one after the other.
    names: Vec<u8>,
    /// What was read last: the chunks of a file are asked for in their order.
    open: Option<(u32, File)>,
}

/// The first half of an id finds its places. The bytes are compared with all of it.
type Half = [u8; 16];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    half: Half,
    file: u32,
    len: u32,
    offset: u64,
}

#[derive(Clone, Copy, Debug)]
struct FileAt {
    folder: u32,
    name: NameAt,
}

#[derive(Clone, Copy, Debug)]
struct FolderAt {
    above: Option<u32>,
    name: NameAt,
}

#[derive(Clone, Copy, Debug, Default)]
struct NameAt {
    at: u32,
    len: u8,
}

impl Places {
    /// Of the tree, all of whose objects are there.
    pub(crate) fn of(root: TreeId, objects: &Objects) -> Result<Self, Fault> {
        let mut places = Self::default();
        places.folders.push(FolderAt { above: None, name: NameAt::default() });
        let mut next = vec![(ContentId::from(root), 0)];
        while let Some((id, folder)) = next.pop() {
            match objects.get(&id).map(read_object) {
                Some(Ok(Object::DirIndex { parts, .. })) => {
                    next.extend(parts.iter().map(|part| (part.id, folder)));
                }
                Some(Ok(Object::Dir(entries))) => {
                    for entry in entries {
                        match entry.node {
                            Node::Link { .. } => {}
                            Node::Dir { id, .. } => {
                                let name = places.name(&entry.name)?;
                                let below = number(places.folders.len())?;
                                places.folders.push(FolderAt { above: Some(folder), name });
                                next.push((id.into(), below));
                            }
                            Node::File(file) if file.size == 0 => {}
                            Node::File(found) => {
                                let name = places.name(&entry.name)?;
                                let file = number(places.files.len())?;
                                places.files.push(FileAt { folder, name });
                                match found.map {
                                    Some(map) => {
                                        places.map(objects, &map, file, &mut 0);
                                    }
                                    None => places.put(&found.id, file, found.size as u32, 0),
                                }
                            }
                        }
                    }
                }
                Some(Ok(Object::Map(_) | Object::MapIndex { .. }) | Err(_)) | None => {}
            }
        }
        places.chunks.sort_unstable();
        places.chunks.shrink_to_fit();
        Ok(places)
    }

    fn map(&mut self, objects: &Objects, id: &ContentId, file: u32, offset: &mut u64) {
        match objects.get(id).map(read_object) {
            Some(Ok(Object::Map(chunks))) => {
                for chunk in chunks {
                    self.put(&chunk.id, file, chunk.len, *offset);
                    *offset += u64::from(chunk.len);
                }
            }
            Some(Ok(Object::MapIndex { parts, .. })) => {
                parts.iter().for_each(|part| self.map(objects, &part.id, file, offset));
            }
            Some(Ok(Object::Dir(_) | Object::DirIndex { .. }) | Err(_)) | None => {}
        }
    }

    fn put(&mut self, id: &ContentId, file: u32, len: u32, offset: u64) {
        self.chunks.push(Place { half: half(id), file, len, offset });
    }

    fn name(&mut self, name: &[u8]) -> Result<NameAt, Fault> {
        let at = NameAt { at: number(self.names.len())?, len: name.len() as u8 };
        self.names.extend_from_slice(name);
        Ok(at)
    }

    fn text(&self, name: NameAt) -> &[u8] {
        let at = name.at as usize;
        &self.names[at..at + usize::from(name.len)]
    }

    fn path(&self, file: u32) -> Vec<u8> {
        let at = self.files[file as usize];
        let (mut parts, mut folder) = (vec![self.text(at.name)], at.folder);
        while let FolderAt { above: Some(above), name } = self.folders[folder as usize] {
            parts.push(self.text(name));
            folder = above;
        }
        parts.reverse();
        parts.join(&b'/')
    }

    fn places(&self, id: &ContentId) -> &[Place] {
        let half = half(id);
        let from = self.chunks.partition_point(|place| place.half < half);
        let len = self.chunks[from..].partition_point(|place| place.half == half);
        &self.chunks[from..from + len]
    }

    /// How long a chunk is.
    pub(crate) fn len_of(&self, id: &ContentId) -> Option<u32> {
        self.places(id).first().map(|place| place.len)
    }

    /// Reads a chunk, from the first place where it still is, into `room`, which is as long as it. Whether it is
    /// there.
    pub(crate) fn read_into(&mut self, dir: &Dir, id: &ContentId, room: &mut [u8]) -> Result<bool, Fault> {
        for at in 0..self.places(id).len() {
            let place = self.places(id)[at];
            if place.len as usize != room.len() {
                continue;
            }
            match self.chunk(dir, place, room) {
                Ok(()) if ContentId::of(room) == *id => return Ok(true),
                Ok(()) => self.open = None,
                Err(fault @ Fault::Sys(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)) => return Err(fault),
                // It went away, got shorter or cannot be read: another place may have it.
                Err(_) => self.open = None,
            }
        }
        Ok(false)
    }

    fn chunk(&mut self, dir: &Dir, place: Place, room: &mut [u8]) -> Result<(), Fault> {
        let file = match self.open.take() {
            Some((of, file)) if of == place.file => file,
            Some(_) | None => dir.regular_below(&self.path(place.file))?,
        };
        let read = file.read_exact_at(room, place.offset);
        self.open = Some((place.file, file));
        Ok(read?)
    }
}

fn half(id: &ContentId) -> Half {
    let mut half = [0; 16];
    half.copy_from_slice(&id.as_bytes()[..16]);
    half
}

fn number(len: usize) -> Result<u32, Fault> {
    u32::try_from(len).map_err(|_| Fault::TooMany)
}
