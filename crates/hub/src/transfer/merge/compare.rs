//! Trees side by side: only folders that differ are looked at.

use std::collections::BTreeMap;

use bytes::Bytes;
use cortex_content::object::Node;
use cortex_core::Refusal;
use cortex_core::files::content::TreeId;
use cortex_core::files::path::RelPath;
use cortex_core::sync::{Entry, Seen};
use cortex_core::workspace::Planning;

use super::{entry, listing};
use crate::transfer::chunks::Chunks;

/// The three trees as the planner wants them: no folder that is the same in all three.
#[derive(Default)]
pub(super) struct Trees {
    pub(super) agreed: BTreeMap<RelPath, Entry>,
    pub(super) hub: BTreeMap<RelPath, Seen>,
    pub(super) node: BTreeMap<RelPath, Seen>,
}

pub(super) fn compare(chunks: &Chunks, planning: &Planning) -> Result<Trees, Refusal> {
    let mut trees = Trees::default();
    let mut open = vec![(RelPath::root(), [Some(planning.hub), Some(planning.node), planning.agreed])];
    while let Some((at, roots)) = open.pop() {
        let mut names: BTreeMap<Bytes, [Option<Node>; 3]> = BTreeMap::new();
        for (side, root) in roots.into_iter().enumerate() {
            for (name, node) in listing(chunks, root)? {
                names.entry(name).or_default()[side] = Some(node);
            }
        }
        for (name, nodes) in names {
            // What is no path is on no side: it stays as it is.
            let Ok(path) = at.join_bytes(&name) else { continue };
            let dirs = [0, 1, 2].map(|side| match &nodes[side] {
                Some(Node::Dir { id, .. }) => Some(*id),
                Some(Node::File(_) | Node::Link { .. }) | None => None,
            });
            let [hub, node, agreed] = nodes.map(|node| node.as_ref().map(entry));
            trees.hub.extend(hub.map(|entry| (path.clone(), Seen::Entry(entry))));
            trees.node.extend(node.map(|entry| (path.clone(), Seen::Entry(entry))));
            trees.agreed.extend(agreed.map(|entry| (path.clone(), entry)));
            let is_same = dirs[0] == dirs[1] && dirs[1] == dirs[2];
            if !is_same {
                open.push((path, dirs));
            }
        }
    }
    Ok(trees)
}

/// One path at which two trees differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Where.
    pub(crate) path: RelPath,
    /// What the first has.
    pub(crate) hub: Option<Node>,
    /// What the second has.
    pub(crate) node: Option<Node>,
}

/// Where two trees differ, in order; at most `max` paths, and whether there are more. Of a folder that one of
/// them lacks, each entry is told.
///
/// # Errors
/// Those of the store.
pub(crate) fn differences(
    chunks: &Chunks,
    hub: TreeId,
    node: TreeId,
    max: usize,
) -> Result<(Vec<Difference>, bool), Refusal> {
    let mut found = Vec::new();
    let mut open = vec![(RelPath::root(), [Some(hub), Some(node)])];
    while let Some((at, roots)) = open.pop() {
        let mut names: BTreeMap<Bytes, [Option<Node>; 2]> = BTreeMap::new();
        for (side, root) in roots.into_iter().enumerate() {
            for (name, node) in listing(chunks, root)? {
                names.entry(name).or_default()[side] = Some(node);
            }
        }
        let mut below = Vec::new();
        for (name, [hub, node]) in names {
            let Ok(path) = at.join_bytes(&name) else { continue };
            let dir = |node: &Option<Node>| match node {
                Some(Node::Dir { id, .. }) => Some(*id),
                Some(Node::File(_) | Node::Link { .. }) | None => None,
            };
            let dirs = [dir(&hub), dir(&node)];
            if dirs[0] != dirs[1] {
                below.push((path.clone(), dirs));
            }
            if hub.as_ref().map(entry) != node.as_ref().map(entry) {
                if found.len() == max {
                    return Ok((found, true));
                }
                found.push(Difference { path, hub, node });
            }
        }
        open.extend(below.into_iter().rev());
    }
    Ok((found, false))
}
