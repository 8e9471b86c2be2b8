//! Workspaces and skills.

pub(in super::super) mod conflicts;
pub(in super::super) mod members;
pub(in super::super) mod mounts;
pub(in super::super) mod revisions;
pub(in super::super) mod roots;
pub(in super::super) mod skills;
pub(in super::super) mod workspaces;

use cortex_core::files::content::TreeId;
use cortex_core::files::path::FilePath;

use super::super::codec::Columns;
use crate::StoreError;

/// The tree of a column.
fn tree(row: &mut Columns<'_, '_>) -> Result<TreeId, StoreError> {
    row.hash().map(TreeId::new)
}

fn optional_tree(row: &mut Columns<'_, '_>) -> Result<Option<TreeId>, StoreError> {
    Ok(row.optional_hash()?.map(TreeId::new))
}

fn bytes(tree: Option<TreeId>) -> Option<[u8; 32]> {
    tree.map(|tree| *tree.as_bytes())
}

fn path(text: &str) -> Option<FilePath> {
    FilePath::parse(text).ok()
}
