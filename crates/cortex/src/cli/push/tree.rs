//! What is pushed: a folder or file of this machine as a tree. A file may get another name there.

use std::collections::HashSet;
use std::path::Path;

use bytes::Bytes;
use cortex_content::object::{Node, Object, read_object, write_object};
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::sync::{Problem, Seen};
use cortex_core::{Code, Refusal};
use cortex_node::local::{LocalNotes, LocalSpec, LocalTree, Take};

/// Paths that are shown of what changed or was left out; the rest is counted.
pub(super) const PATHS_MAX: usize = 200;

/// A tree with its source.
pub(in crate::cli) struct Tree {
    local: LocalTree,
    /// The object at the top, when it is another than the folder's.
    top: Option<(ContentId, Bytes)>,
}

/// Some paths, and how many more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Paths {
    pub(super) first: Vec<String>,
    pub(super) more: usize,
}

impl Paths {
    fn push(&mut self, path: impl FnOnce() -> String) {
        if self.first.len() < PATHS_MAX { self.first.push(path()) } else { self.more += 1 }
    }

    /// Whether there are none.
    pub(in crate::cli) const fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    pub(in crate::cli) const fn len(&self) -> usize {
        self.first.len() + self.more
    }
}

impl Tree {
    /// Reads it; blocks as long as the disk takes. With `name` it is a file that is called so there. `cache` and
    /// `take` as of [`LocalTree::open`].
    ///
    /// # Errors
    /// Those of [`LocalTree::open`].
    pub(super) fn open(
        source: &Path,
        spec: &LocalSpec,
        name: Option<&str>,
        cache: Option<&Path>,
        take: Option<&Take<'_>>,
    ) -> Result<Self, Refusal> {
        let mut local = LocalTree::open(source, spec, cache, take)?;
        let top = match name {
            None => None,
            Some(name) => Some(renamed(&mut local, name)?),
        };
        Ok(Self { local, top })
    }

    pub(in crate::cli) fn root(&self) -> TreeId {
        self.top.as_ref().map_or_else(|| self.local.root(), |(id, _)| TreeId::new(*id.as_bytes()))
    }

    pub(in crate::cli) fn entries(&self) -> u64 {
        u64::from(self.local.totals().entries)
    }

    pub(in crate::cli) fn bytes(&self) -> u64 {
        self.local.totals().bytes
    }

    pub(in crate::cli) fn notes(&self) -> LocalNotes {
        self.local.notes()
    }

    /// The bytes of an object or chunk. `None`: it changed or went away, or is none of this tree.
    pub(super) fn read(&mut self, id: &ContentId) -> Result<Option<Bytes>, Refusal> {
        match &self.top {
            Some((top, bytes)) if top == id => Ok(Some(bytes.clone())),
            Some(_) | None => self.local.read(id),
        }
    }

    /// The same, into `room`, which is as long as it. Whether it is there.
    pub(super) fn read_into(&mut self, id: &ContentId, room: &mut [u8]) -> Result<bool, Refusal> {
        match &self.top {
            Some((top, bytes)) if top == id => {
                room.copy_from_slice(bytes);
                Ok(true)
            }
            Some(_) | None => self.local.read_into(id, room),
        }
    }

    /// How long an object or chunk is.
    pub(super) fn len_of(&self, id: &ContentId) -> Option<u32> {
        match &self.top {
            Some((top, bytes)) if top == id => u32::try_from(bytes.len()).ok(),
            Some(_) | None => self.local.len_of(id),
        }
    }

    /// What is there and could not be read, so that nothing is known of it.
    pub(in crate::cli) fn unread(&self) -> Paths {
        self.left_out(|problem| matches!(problem, Problem::Unreadable | Problem::Unsteady))
    }

    /// What is there and no tree holds: devices, sockets, other file systems.
    pub(in crate::cli) fn unfit(&self) -> Paths {
        self.left_out(|problem| !matches!(problem, Problem::Unreadable | Problem::Unsteady))
    }

    fn left_out(&self, is_one: impl Fn(&Problem) -> bool) -> Paths {
        let mut paths = Paths::default();
        for (path, seen) in self.local.left_out() {
            if matches!(seen, Seen::Blocked(problem) if is_one(problem)) {
                paths.push(|| path.as_str().to_owned());
            }
        }
        paths
    }

    /// The files of which these chunks are.
    ///
    /// # Errors
    /// Those of [`read`](Self::read).
    pub(super) fn files_of(&mut self, chunks: &HashSet<ContentId>) -> Result<Paths, Refusal> {
        let mut paths = Paths::default();
        let mut next = vec![(ContentId::from(self.root()), String::new())];
        while let Some((id, above)) = next.pop() {
            match self.object(&id)? {
                Some(Object::DirIndex { parts, .. }) => {
                    next.extend(parts.into_iter().rev().map(|part| (part.id, above.clone())));
                }
                Some(Object::Dir(entries)) => {
                    for entry in entries {
                        let path = || format!("{above}{}", String::from_utf8_lossy(&entry.name));
                        match entry.node {
                            Node::Dir { id, .. } => next.push((id.into(), format!("{}/", path()))),
                            Node::File(file) => {
                                let is_one = match file.map {
                                    None => chunks.contains(&file.id),
                                    Some(map) => self.maps_any(map, chunks)?,
                                };
                                if is_one {
                                    paths.push(path);
                                }
                            }
                            Node::Link { .. } => {}
                        }
                    }
                }
                Some(Object::Map(_) | Object::MapIndex { .. }) | None => {}
            }
        }
        paths.first.sort_unstable();
        Ok(paths)
    }

    fn maps_any(&mut self, map: ContentId, chunks: &HashSet<ContentId>) -> Result<bool, Refusal> {
        let mut next = vec![map];
        while let Some(id) = next.pop() {
            match self.object(&id)? {
                Some(Object::Map(all)) if all.iter().any(|chunk| chunks.contains(&chunk.id)) => {
                    return Ok(true);
                }
                Some(Object::MapIndex { parts, .. }) => next.extend(parts.iter().map(|part| part.id)),
                Some(_) | None => {}
            }
        }
        Ok(false)
    }

    fn object(&mut self, id: &ContentId) -> Result<Option<Object>, Refusal> {
        self.read(id)?.map(|bytes| read_object(&bytes)).transpose()
    }
}

/// The top of a tree of one file, which is called otherwise.
fn renamed(local: &mut LocalTree, name: &str) -> Result<(ContentId, Bytes), Refusal> {
    let bytes = local.read(&local.root().into())?;
    let Some(Object::Dir(mut entries)) = bytes.map(|bytes| read_object(&bytes)).transpose()? else {
        return Err(Refusal::new(Code::Internal, "The tree of a single file has no folder."));
    };
    let [entry] = &mut entries[..] else {
        return Err(Refusal::new(Code::Internal, "The tree of a single file has several entries."));
    };
    entry.name = Bytes::copy_from_slice(name.as_bytes());
    let bytes = write_object(&Object::Dir(entries));
    Ok((ContentId::of(&bytes), bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(source: &Path, name: Option<&str>) -> Tree {
        let spec = LocalSpec { vcs: true, ..LocalSpec::default() };
        Tree::open(source, &spec, name, None, None).expect("a tree")
    }

    #[test]
    fn a_file_that_is_called_otherwise_there_is_the_tree_of_a_file_of_that_name() {
        let here = tempfile::tempdir().expect("a folder");
        let (one, two) = (here.path().join("a"), here.path().join("ملف جديد"));
        std::fs::write(&one, "content").expect("write");
        std::fs::copy(&one, &two).expect("copy");
        let time = std::fs::metadata(&one).and_then(|about| about.modified()).expect("its time");
        let file = std::fs::File::options().append(true).open(&two).expect("open");
        file.set_modified(time).expect("the same time");
        let (mut renamed, named) = (open(&one, Some("ملف جديد")), open(&two, None));
        assert_eq!((renamed.root(), renamed.bytes()), (named.root(), 7));
        let top = renamed.root().into();
        let bytes = renamed.read(&top).expect("read").expect("there");
        assert_eq!(renamed.len_of(&top), u32::try_from(bytes.len()).ok());
        assert_eq!(renamed.read(&ContentId::of(b"content")).expect("read").as_deref(), Some(&b"content"[..]));
        assert_eq!(open(&one, Some("a")).root(), open(&one, None).root());
    }

    #[test]
    fn files_that_changed_are_named_by_their_chunks() {
        let here = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(here.path().join("مجلد/b")).expect("folders");
        let long: Vec<u8> =
            (0..3_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        for (name, content) in [("x", &b"x"[..]), ("مجلد/b/long", &long), ("مجلد/same", b"x"), ("empty", b"")]
        {
            std::fs::write(here.path().join(name), content).expect("write");
        }
        let mut tree = open(here.path(), None);
        let of = |tree: &mut Tree, id| tree.files_of(&HashSet::from([id])).expect("read").first;
        assert_eq!(of(&mut tree, ContentId::of(b"x")), ["x", "مجلد/same"]);
        assert_eq!(of(&mut tree, ContentId::of(b"other")), Vec::<String>::new());
        // Some chunk in the middle of the long file.
        let mut chunks = Vec::new();
        let mut next = vec![ContentId::from(tree.root())];
        while let Some(id) = next.pop() {
            match tree.object(&id).expect("read") {
                Some(Object::Dir(entries)) => {
                    next.extend(entries.into_iter().filter_map(|entry| match entry.node {
                        Node::Dir { id, .. } => Some(id.into()),
                        Node::File(file) => file.map,
                        Node::Link { .. } => None,
                    }))
                }
                Some(Object::MapIndex { parts, .. }) => next.extend(parts.iter().map(|part| part.id)),
                Some(Object::Map(map)) => chunks.extend(map.into_iter().map(|chunk| chunk.id)),
                _ => {}
            }
        }
        assert!(chunks.len() > 3, "{}", chunks.len());
        assert_eq!(of(&mut tree, chunks[chunks.len() / 2]), ["مجلد/b/long"]);
    }

    #[test]
    fn many_paths_are_counted_beyond_the_first() {
        let mut paths = Paths::default();
        (0..PATHS_MAX + 5).for_each(|n| paths.push(|| n.to_string()));
        assert_eq!((paths.first.len(), paths.more, paths.len()), (PATHS_MAX, 5, PATHS_MAX + 5));
    }
}
