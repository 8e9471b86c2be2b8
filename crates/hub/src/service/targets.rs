//! From what a caller writes to nodes: names, ids, selectors. Never a query, and never a node that
//! the caller does not see: it is answered like one that is not there, to the letter.

use std::collections::BTreeSet;
use std::sync::Arc;

use cortex_core::id::NodeId;
use cortex_core::name::{Name, Selector, printable};
use cortex_core::node::Node;
use cortex_core::rights::Right;
use cortex_core::{Code, Refusal, limits};

use crate::directory::Directory;
use crate::service::Caller;

/// A node that the caller sees, by name or id. `NodeNotFound` names the nearest ones.
pub fn find(directory: &Directory, caller: &Caller, text: &str) -> Result<Arc<Node>, Refusal> {
    let by_id = text.parse().ok().and_then(|id| directory.node(id));
    let by_name = || Name::parse(text).ok().and_then(|name| directory.node_named(&name));
    let found = by_id.or_else(by_name).filter(|node| caller.sees(node));
    found.ok_or_else(|| not_found(directory, caller, text))
}

/// The same, on which the caller has this right; `Forbidden` when it sees the node and has not.
pub fn find_for(
    directory: &Directory,
    caller: &Caller,
    right: Right,
    text: &str,
) -> Result<Arc<Node>, Refusal> {
    let node = find(directory, caller, text)?;
    caller.on(right, &node)?;
    Ok(node)
}

/// The id of a node by which records are looked for. An id may be of a node that was removed: its
/// records stay, and whoever does not see the node finds none.
pub fn id_of(directory: &Directory, caller: &Caller, text: &str) -> Result<NodeId, Refusal> {
    text.parse().or_else(|_| find(directory, caller, text).map(|node| node.id))
}

/// Whether the caller has this right on a node of records, which may have been removed since: then
/// only who has it on all nodes has it there.
pub fn has(directory: &Directory, caller: &Caller, right: Right, node: NodeId) -> bool {
    caller.everywhere(right) || directory.node(node).is_some_and(|node| caller.has(right, &node))
}

/// What was named, in that order: each is a node once, or its refusal.
pub fn named(
    directory: &Directory,
    caller: &Caller,
    texts: &[String],
) -> Vec<(String, Result<Arc<Node>, Refusal>)> {
    let mut seen = BTreeSet::new();
    let found = texts.iter().map(|text| (text.clone(), find(directory, caller, text)));
    found.filter(|(_, node)| node.as_ref().map_or(true, |node| seen.insert(node.id))).collect()
}

/// The nodes that `online` holds for, whose labels match, and on which the caller has this right. A
/// refusal says why none does.
pub fn selected(
    directory: &Directory,
    caller: &Caller,
    right: Right,
    selector: &str,
    online: impl Fn(&Node) -> bool,
) -> Result<Vec<Arc<Node>>, Refusal> {
    let parsed = Selector::parse(selector)?;
    let may = |node: &Arc<Node>| parsed.matches(&node.labels) && caller.has(right, node);
    let matching: Vec<_> = directory.nodes().into_iter().filter(may).collect();
    let here: Vec<_> = matching.iter().filter(|node| online(node)).cloned().collect();
    if !here.is_empty() {
        return Ok(here);
    }
    let selector = printable(selector, 120);
    if matching.is_empty() {
        let message = format!("No node has the labels `{selector}`.");
        return Err(Refusal::new(Code::NodeNotFound, message)
            .hint("Look at the labels with `cortex node ls`, or set them with `cortex node label`."));
    }
    let message = format!("{} node(s) match `{selector}`, and none is online.", matching.len());
    Err(Refusal::new(Code::NodeOffline, message))
}

/// Refuses empty and too long lists.
pub fn check_count(count: usize) -> Result<(), Refusal> {
    if count == 0 {
        let message = "The request names no node: give `nodes` or `selector`.";
        return Err(Refusal::new(Code::InvalidArgument, message)
            .hint("List the nodes with `cortex node ls` and name at least one."));
    }
    if count > limits::NODES_PER_EXEC_MAX {
        let message = format!("{count} nodes at once; the bound is {}.", limits::NODES_PER_EXEC_MAX);
        return Err(Refusal::new(Code::TooLarge, message));
    }
    Ok(())
}

fn not_found(directory: &Directory, caller: &Caller, text: &str) -> Refusal {
    let refusal = Refusal::new(Code::NodeNotFound, format!("There is no node `{}`.", printable(text, 80)));
    let near = nearest(directory, caller, text);
    if near.is_empty() {
        return refusal.hint("Make an invite with `cortex invite`: there is no node yet that you may see.");
    }
    let list = near.join(", ");
    refusal
        .hint(format!("Use one of these names: {list}. All are listed by `cortex node ls`."))
        .detail("nearest", list)
}

/// Of the names that the caller sees, the three with the least edit distance.
fn nearest(directory: &Directory, caller: &Caller, text: &str) -> Vec<String> {
    // A name has at most 63 bytes: what is far longer is near to nothing, and costs nothing.
    let wanted: Vec<char> = text.to_ascii_lowercase().chars().take(2 * limits::NAME_BYTES_MAX).collect();
    let mut names: Vec<(usize, String)> = directory
        .nodes()
        .iter()
        .filter(|node| caller.sees(node))
        .map(|node| (distance(&wanted, node.name.as_str()), node.name.to_string()))
        .collect();
    names.sort();
    names.into_iter().take(3).map(|(_, name)| name).collect()
}

fn distance(left: &[char], right: &str) -> usize {
    let mut row: Vec<usize> = (0..=left.len()).collect();
    for (i, r) in right.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, l) in left.iter().enumerate() {
            let cost = diagonal + usize::from(*l != r);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[left.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_single_letters() {
        let d = |left: &str, right: &str| distance(&left.chars().collect::<Vec<_>>(), right);
        assert_eq!(
            (d("", "abc"), d("abc", "abc"), d("biuld", "build"), d("kitten", "sitting")),
            (3, 0, 2, 3)
        );
    }
}
