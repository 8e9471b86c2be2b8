//! What roots name: a walk from each root over the objects that are kept.
//!
//! An object is looked at once, and once more when it was first met by a root that needs objects alone
//! and then by one that needs content. What is kept in mind of it is up to the store: the walk itself
//! holds the way down, at most the rows of one object for each level of a tree.

use bytes::Bytes;
use cortex_content::object::{Node, Object, read_object};
use cortex_core::files::content::ContentId;

use super::{BlobError, Root};

/// What the walk needs of a store.
pub(super) trait Marks {
    /// Marks chunks; how many of them are not kept.
    fn live(&mut self, ids: &[ContentId]) -> Result<u64, BlobError>;
    /// Marks an object; whether it is to be looked at (again); `None` when it is not kept.
    fn object(&mut self, id: &ContentId, content: bool) -> Result<Option<bool>, BlobError>;
    /// The bytes of an object.
    fn bytes(&self, id: &ContentId) -> Result<Option<Bytes>, BlobError>;
}

/// What a walk came by.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) objects: u64,
    pub(super) missing: u64,
}

/// Marks all that these roots name.
pub(super) fn mark(roots: &[Root], marks: &mut dyn Marks) -> Result<Walked, BlobError> {
    let mut walked = Walked::default();
    let mut waiting = Vec::new();
    let mut chunks = Vec::new();
    for root in roots {
        waiting.push(ContentId::from(root.tree));
        while let Some(id) = waiting.pop() {
            let lost = || BlobError::Lost { object: id };
            if !marks.object(&id, root.content)?.ok_or_else(lost)? {
                continue;
            }
            walked.objects += 1;
            let object = read_object(&marks.bytes(&id)?.ok_or_else(lost)?)?;
            below(&object, &mut waiting, &mut chunks);
            if root.content {
                walked.missing += marks.live(&chunks)?;
            }
            chunks.clear();
        }
    }
    Ok(walked)
}

/// The objects and the chunks that an object names.
pub(super) fn below(object: &Object, objects: &mut Vec<ContentId>, chunks: &mut Vec<ContentId>) {
    match object {
        Object::Dir(entries) => entries.iter().for_each(|entry| match &entry.node {
            Node::File(file) => match file.map {
                Some(map) => objects.push(map),
                None if file.size > 0 => chunks.push(file.id),
                None => {}
            },
            Node::Dir { id, .. } => objects.push((*id).into()),
            Node::Link { .. } => {}
        }),
        Object::DirIndex { parts, .. } => objects.extend(parts.iter().map(|part| part.id)),
        Object::Map(rows) => chunks.extend(rows.iter().map(|row| row.id)),
        Object::MapIndex { parts, .. } => objects.extend(parts.iter().map(|part| part.id)),
    }
}
