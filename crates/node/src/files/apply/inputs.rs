//! The three trees side by side, as the planner wants them: only folders that differ are looked at.

use std::collections::{BTreeMap, HashMap};

use cortex_content::object::{DirEntry, FileNode, Node};
use cortex_core::error::Refusal;
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::files::path::RelPath;
use cortex_core::name::printable;
use cortex_core::sync::{Entry, Seen, SideCounts};

use super::super::scan::{OURS, Scanned};
use super::fetch::Store;
use super::modes::is_hook;
use super::outcome::{Listed, Undone};
use super::was::mark_of;

/// Whether a path of the target tree, and whether it is a folder, is left out by the rules of the folder.
pub(crate) type Excluded<'a> = dyn Fn(&RelPath, bool) -> bool + 'a;

/// What differs.
#[derive(Debug, Default)]
pub(super) struct Trees {
    pub(super) agreed: BTreeMap<RelPath, Entry>,
    pub(super) hub: BTreeMap<RelPath, Seen>,
    pub(super) node: BTreeMap<RelPath, Seen>,
    /// When files and links of the target tree were written.
    pub(super) times: HashMap<RelPath, i64>,
    /// Entries of the target tree whose names are no paths: they are passed over.
    pub(super) unnamed: Listed<String>,
}

/// A folder in each of the three.
#[derive(Clone, Copy)]
struct Roots {
    hub: Option<TreeId>,
    node: Option<TreeId>,
    agreed: Option<TreeId>,
}

/// What is not in the tree of the folder, by the folder that it lies in.
type LeftOut<'a> = BTreeMap<RelPath, Vec<(&'a RelPath, &'a Seen)>>;

struct Walk<'a, 's> {
    store: &'a Store<'s>,
    left_out: LeftOut<'a>,
    excluded: &'a Excluded<'a>,
    only: Option<&'a str>,
    trees: Trees,
}

/// Compares the three.
pub(super) fn compare(
    store: &Store<'_>,
    target: TreeId,
    scanned: &Scanned,
    agreed: Option<TreeId>,
    excluded: &Excluded<'_>,
    only: Option<&str>,
) -> Result<Trees, Refusal> {
    let mut left_out = LeftOut::new();
    for (path, seen) in &scanned.left_out {
        left_out.entry(path.parent().unwrap_or_default()).or_default().push((path, seen));
    }
    let mut walk = Walk { store, left_out, excluded, only, trees: Trees::default() };
    walk.folder(&RelPath::root(), Roots { hub: Some(target), node: Some(scanned.root), agreed })?;
    Ok(walk.trees)
}

impl Walk<'_, '_> {
    fn folder(&mut self, path: &RelPath, roots: Roots) -> Result<(), Refusal> {
        let only = self.only.filter(|_| path.is_root());
        let list = |id: Option<TreeId>| id.map_or(Ok(Vec::new()), |id| self.store.listed(id, only));
        let (hub, node, agreed) = (list(roots.hub)?, list(roots.node)?, list(roots.agreed)?);
        for (path, seen) in self.left_out.remove(path).unwrap_or_default() {
            self.trees.node.insert(path.clone(), seen.clone());
        }
        let (mut hub, mut node, mut agreed) =
            (hub.into_iter().peekable(), node.into_iter().peekable(), agreed.into_iter().peekable());
        loop {
            let names = [hub.peek(), node.peek(), agreed.peek()];
            let Some(name) = names.into_iter().flatten().map(|entry| &entry.name).min().cloned() else {
                return Ok(());
            };
            let of = |entry: &DirEntry| entry.name == name;
            let (hub, node, agreed) = (hub.next_if(of), node.next_if(of), agreed.next_if(of));
            match path.join_bytes(&name) {
                Ok(path) => self.entry(path, hub, node, agreed)?,
                // What the folder has under such a name is in no tree: it was left out by the scan.
                Err(_) => {
                    let name = printable(&String::from_utf8_lossy(&name), 255);
                    self.trees.unnamed.push(format!("{path}/{name}").trim_start_matches('/').to_owned());
                }
            }
        }
    }

    fn entry(
        &mut self,
        path: RelPath,
        hub: Option<DirEntry>,
        node: Option<DirEntry>,
        agreed: Option<DirEntry>,
    ) -> Result<(), Refusal> {
        let dir = |entry: &Option<DirEntry>| match entry {
            Some(DirEntry { node: Node::Dir { id, .. }, .. }) => Some(*id),
            Some(_) | None => None,
        };
        let mut roots = Roots { hub: dir(&hub), node: dir(&node), agreed: dir(&agreed) };
        if let Some(mut entry) = hub {
            let is_ours = path.as_str().as_bytes().eq_ignore_ascii_case(OURS);
            if is_ours || (self.excluded)(&path, roots.hub.is_some()) {
                roots.hub = None;
                self.trees.hub.insert(path.clone(), Seen::Ignored);
            } else {
                if let Some(time) = time_of(&entry.node) {
                    self.trees.times.insert(path.clone(), time);
                }
                tame(&path, &mut entry.node, node.as_ref());
                self.trees.hub.insert(path.clone(), Seen::Entry(of(entry.node)));
            }
        }
        if let Some(entry) = node {
            self.trees.node.insert(path.clone(), Seen::Entry(of(entry.node)));
        }
        if let Some(entry) = agreed {
            self.trees.agreed.insert(path.clone(), of(entry.node));
        }
        // What is the same on both sides needs no step, whatever they agreed on before.
        let is_same = roots.hub.is_some() && roots.hub == roots.node;
        let is_none = roots.hub.is_none() && roots.node.is_none() && roots.agreed.is_none();
        if is_same || is_none { Ok(()) } else { self.folder(&path, roots) }
    }
}

/// What the transfer before was to change and could not is agreed on as it was then, if it still is that: it
/// is no change of the node, and is planned again.
pub(super) fn forgive(trees: &mut Trees, undone: &[Undone]) {
    for Undone { path, was } in undone {
        let agreed = &mut trees.agreed;
        let from = agreed.range(path.clone()..).map(|(at, _)| at);
        let gone: Vec<RelPath> = from.take_while(|at| at.below(path).is_some()).cloned().collect();
        let is_there = |at: &RelPath| matches!(agreed.get(at), None | Some(Entry::Dir));
        let above: Vec<RelPath> = std::iter::successors(path.parent(), RelPath::parent).collect();
        let fits = above.iter().all(is_there);
        for at in gone {
            agreed.remove(&at);
        }
        let node = trees.node.get(path).and_then(Seen::entry);
        if let Some(node) = node.filter(|node| fits && mark_of(Some(node)) == *was) {
            above.into_iter().filter(|at| !at.is_root()).for_each(|at| {
                agreed.entry(at).or_insert(Entry::Dir);
            });
            agreed.insert(path.clone(), node.clone());
        }
    }
}

/// What git runs by itself is not made executable (ABUSE 60); what is so already, with the same content,
/// stays so.
fn tame(path: &RelPath, hub: &mut Node, node: Option<&DirEntry>) {
    let Node::File(FileNode { id, exec, .. }) = hub else { return };
    if *exec && is_hook(path) {
        *exec =
            matches!(node, Some(DirEntry { node: Node::File(there), .. }) if there.id == *id && there.exec);
    }
}

fn time_of(node: &Node) -> Option<i64> {
    match node {
        Node::File(FileNode { mtime_ns, .. }) | Node::Link { mtime_ns, .. } => Some(*mtime_ns),
        Node::Dir { .. } => None,
    }
}

fn of(node: Node) -> Entry {
    match node {
        Node::File(FileNode { id, size, exec, map, .. }) => {
            Entry::File { id, map: map.map(TreeId::from), size, exec }
        }
        Node::Dir { .. } => Entry::Dir,
        Node::Link { target, .. } => Entry::Link { target },
    }
}

/// How much there is in a tree, all of it, or of its only entry that counts.
pub(super) fn counts(store: &Store<'_>, root: TreeId, only: Option<&str>) -> Result<SideCounts, Refusal> {
    let mut known = HashMap::new();
    let mut sum: u64 = 0;
    let entries = store.listed(root, only)?;
    let root_entries = entries.len() as u64;
    for entry in entries {
        sum = sum.saturating_add(match entry.node {
            Node::File(_) | Node::Link { .. } => 1,
            Node::Dir { id, .. } => files(store, id, &mut known)?,
        });
    }
    Ok(SideCounts { files: sum, root_entries })
}

/// A folder that is in many places is looked at once: the check of a tree bounds different folders, and
/// what they add up to.
fn files(store: &Store<'_>, id: TreeId, known: &mut HashMap<ContentId, u64>) -> Result<u64, Refusal> {
    if let Some(files) = known.get(&id.into()) {
        return Ok(*files);
    }
    let mut sum: u64 = 0;
    for entry in store.dir(id)? {
        sum = sum.saturating_add(match entry.node {
            Node::File(_) | Node::Link { .. } => 1,
            Node::Dir { id, .. } => files(store, id, known)?,
        });
    }
    known.insert(id.into(), sum);
    Ok(sum)
}
