//! What of the content lies in the folder already, under whatever name: unchanged parts of a long file, a
//! file that was moved. It is not fetched. What the scan saw may have changed, so each chunk is compared
//! with its hash when it is copied.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use cortex_content::object::Node;
use cortex_core::error::Refusal;
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::files::path::RelPath;
use cortex_core::limits::CHUNK_WHOLE_BYTES_MAX;

use super::super::beneath::Dir;
use super::content::Content;
use super::fetch::Store;
use super::peer::Peer;

struct Search<'a, 's> {
    root: &'a Dir,
    store: &'a Store<'s>,
    /// Who is told how far it is.
    peer: &'a mut dyn Peer,
}

/// Copies what is needed and lies in the folder, which was scanned as `tree`.
pub(super) fn copy(
    root: &Dir,
    store: &Store<'_>,
    tree: TreeId,
    content: &mut Content<'_>,
    peer: &mut dyn Peer,
) -> Result<(), Refusal> {
    let mut search = Search { root, store, peer };
    search.folder(&RelPath::root(), tree, content)
}

impl Search<'_, '_> {
    fn folder(&mut self, path: &RelPath, id: TreeId, content: &mut Content<'_>) -> Result<(), Refusal> {
        let mut dir = None;
        for entry in self.store.dir(id)? {
            if !content.needs_any() {
                return Ok(());
            }
            match entry.node {
                Node::Dir { id, .. } => {
                    if let Ok(path) = path.join_bytes(&entry.name) {
                        self.folder(&path, id, content)?;
                    }
                }
                Node::File(file) if file.map.is_some() || content.needs(&file.id) => {
                    // What cannot be opened, or is another file meanwhile, is fetched.
                    let open = |dir: &mut Option<Dir>| {
                        if dir.is_none() {
                            *dir = self.root.below(path).ok();
                        }
                        dir.as_ref().and_then(|dir| dir.regular(&entry.name).ok())
                    };
                    match file.map {
                        None => {
                            let Some(there) = open(&mut dir) else { continue };
                            let len = usize::try_from(file.size).unwrap_or(usize::MAX);
                            self.piece(&there, 0, len, &file.id, content)?;
                        }
                        Some(map) => {
                            let (mut offset, mut there) = (0_u64, None);
                            let mut pieces = Vec::new();
                            self.store.chunks(&map, &mut |chunk| {
                                if content.needs(&chunk.id) {
                                    pieces.push((offset, chunk));
                                }
                                offset += u64::from(chunk.len);
                                Ok(())
                            })?;
                            for (offset, chunk) in pieces {
                                // A chunk that is in it twice was found by the first.
                                if !content.needs(&chunk.id) {
                                    continue;
                                }
                                there = there.or_else(|| open(&mut dir));
                                let Some(there) = &there else { break };
                                self.piece(there, offset, chunk.len as usize, &chunk.id, content)?;
                            }
                        }
                    }
                }
                Node::File(_) | Node::Link { .. } => {}
            }
        }
        Ok(())
    }

    fn piece(
        &mut self,
        file: &File,
        offset: u64,
        len: usize,
        id: &ContentId,
        content: &mut Content<'_>,
    ) -> Result<(), Refusal> {
        if len > CHUNK_WHOLE_BYTES_MAX {
            return Ok(());
        }
        let mut bytes = vec![0; len];
        let is_it = file.read_exact_at(&mut bytes, offset).is_ok() && ContentId::of(&bytes) == *id;
        if is_it {
            content.found(id, &bytes.into())?;
        }
        self.peer.progress(content.progress());
        Ok(())
    }
}
