//! Trees of the chunk store that are made out of others: what a member changed is taken into the tree of the
//! hub, and what both sides agree on is written down. What is decided by the planner is only carried out
//! here. It blocks.

mod compare;

use std::collections::BTreeMap;

use bytes::Bytes;
use cortex_content::object::{DirEntry, FileNode, Node, Totals};
use cortex_content::tree::write_dir;
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::files::path::RelPath;
use cortex_core::sync::{
    Act, Conflict, DeleteLimits, Entry, Inputs, NameRules, Plan, RootState, Side, SideCounts, plan,
};
use cortex_core::workspace::Planning;
use cortex_core::{Code, Refusal};
use cortex_store::blobs::Pin;

use self::compare::compare;
use super::chunks::{Chunks, Putting};

pub(crate) use self::compare::{Difference, differences};

/// What a merge came to.
pub(crate) struct Merged {
    /// The plan.
    pub(crate) plan: Plan,
    /// The new tree of the hub; that before when the plan has no step.
    pub(crate) hub: TreeId,
    /// What is agreed on from then on.
    pub(crate) agreed: TreeId,
}

/// Changes of a tree: by name, what becomes of an entry and of those below it.
#[derive(Debug, Default)]
struct Changes(BTreeMap<Bytes, Change>);

#[derive(Debug, Default)]
struct Change {
    here: Option<Here>,
    below: Changes,
}

#[derive(Clone, Debug)]
enum Here {
    Leaf(Node),
    Dir,
    /// A whole folder of another tree.
    Tree(Node),
    Gone,
}

/// The empty tree, put into the store.
///
/// # Errors
/// Those of the store.
pub(crate) fn empty(chunks: &Chunks, pin: &Pin) -> Result<TreeId, Refusal> {
    written(chunks, pin, |writing| Ok(writing.dir(BTreeMap::new())?.0))
}

/// Takes over what a member changed, as the planner says.
///
/// # Errors
/// Those of the store; `internal` for a plan that does not fit its trees.
pub(crate) fn merge(
    chunks: &Chunks,
    planning: &Planning,
    node_name: &str,
    pin: &Pin,
) -> Result<Merged, Refusal> {
    let trees = compare(chunks, planning)?;
    let counts = |tree: Option<TreeId>| tree.map_or(Ok(SideCounts::default()), |tree| chunks.counts(tree));
    let side = |entries, counts| Side { entries, counts, root: RootState::Dir };
    let plan = plan(&Inputs {
        agreed: &trees.agreed,
        agreed_counts: counts(planning.agreed)?,
        hub: side(&trees.hub, chunks.counts(planning.hub)?),
        node: side(&trees.node, chunks.counts(planning.node)?),
        mode: planning.mode,
        limits: DeleteLimits::default(),
        names: NameRules::default(),
        node_name,
        revision: planning.to,
        accepted: planning.accepted,
    });
    if plan.halt.is_some() {
        let agreed = planning.agreed.unwrap_or(planning.hub);
        return Ok(Merged { plan, hub: planning.hub, agreed });
    }
    let times = Times { chunks, planning, conflicts: &plan.conflicts };
    let mut changes = Changes::default();
    for step in &plan.to_hub {
        let here = match &step.act {
            Act::Put(entry) => Here::Leaf(times.leaf(&step.path, entry)?),
            Act::MakeDir => Here::Dir,
            Act::RemoveFile | Act::RemoveDir => Here::Gone,
            Act::Exec(exec) => match times.now(&changes, &step.path)? {
                Some(Node::File(file)) => Here::Leaf(Node::File(FileNode { exec: *exec, ..file })),
                Some(Node::Dir { .. } | Node::Link { .. }) | None => return Err(unfit(&step.path)),
            },
            Act::Keep { copy } => {
                let node = times.now(&changes, &step.path)?.ok_or_else(|| unfit(&step.path))?;
                changes.set(copy, Here::Leaf(node));
                Here::Gone
            }
        };
        changes.set(&step.path, here);
    }
    let mut agreed_changes = Changes::default();
    for (path, entry) in &plan.agreed {
        let here = match entry {
            None => Here::Gone,
            Some(Entry::Dir) => Here::Dir,
            Some(entry) => Here::Leaf(times.leaf(path, entry)?),
        };
        agreed_changes.set(path, here);
    }
    let (hub, agreed) = written(chunks, pin, |writing| {
        let hub = writing.changed(Some(planning.hub), changes)?.0;
        Ok((hub, writing.changed(planning.agreed, agreed_changes)?.0))
    })?;
    Ok(Merged { plan, hub, agreed })
}

/// What hub and node agree on when the folder of the node is `node` after a sync that was to make it `hub`:
/// what is the same on both sides, and elsewhere what they agreed on before.
///
/// # Errors
/// Those of the store.
pub(crate) fn agreed(
    chunks: &Chunks,
    hub: TreeId,
    node: TreeId,
    before: Option<TreeId>,
    pin: &Pin,
) -> Result<TreeId, Refusal> {
    if hub == node {
        return Ok(hub);
    }
    written(chunks, pin, |writing| Ok(writing.common(hub, node, before)?.0))
}

/// A tree as its node has it, and at the paths of which that says nothing as it was agreed on: what could not
/// be read is not gone (SYNC rules 9 and 11).
///
/// # Errors
/// Those of the store.
pub(crate) fn with_held(
    chunks: &Chunks,
    node: TreeId,
    held: &[RelPath],
    agreed: Option<TreeId>,
    pin: &Pin,
) -> Result<TreeId, Refusal> {
    let Some(agreed) = agreed.filter(|_| !held.is_empty()) else { return Ok(node) };
    let mut changes = Changes::default();
    for path in held {
        if let Some(found) = chunks.find(agreed, path)?
            && chunks.find(node, path)?.is_none()
        {
            // The folders above are there, or the path would not have been looked at.
            changes.set(
                path,
                match found {
                    node @ Node::Dir { .. } => Here::Tree(node),
                    node @ (Node::File(_) | Node::Link { .. }) => Here::Leaf(node),
                },
            );
        }
    }
    if changes.0.is_empty() {
        return Ok(node);
    }
    written(chunks, pin, |writing| Ok(writing.changed(Some(node), changes)?.0))
}

/// Puts what `make` writes, and makes it durable.
fn written<T>(
    chunks: &Chunks,
    pin: &Pin,
    make: impl FnOnce(&mut Writing<'_>) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let mut writing = Writing { chunks, pin, putting: Putting::new(chunks) };
    let made = make(&mut writing)?;
    writing.putting.flush(pin)?;
    chunks.sync(pin)?;
    Ok(made)
}

struct Writing<'c> {
    chunks: &'c Chunks,
    pin: &'c Pin,
    putting: Putting,
}

type Listing = BTreeMap<Bytes, Node>;

impl Writing<'_> {
    fn dir(&mut self, entries: Listing) -> Result<(TreeId, Totals), Refusal> {
        let entries = entries.into_iter().map(|(name, node)| DirEntry { name, node }).collect();
        let mut objects = Vec::new();
        let made = write_dir(entries, &mut |id, bytes| objects.push((id, bytes)))?;
        objects.iter().try_for_each(|(id, bytes)| self.putting.put(*id, bytes, self.pin))?;
        Ok(made)
    }

    /// A folder with changes in it.
    fn changed(&mut self, dir: Option<TreeId>, changes: Changes) -> Result<(TreeId, Totals), Refusal> {
        let mut entries = listing(self.chunks, dir)?;
        for (name, Change { here, below }) in changes.0 {
            match here {
                Some(Here::Gone) => drop(entries.remove(&name)),
                Some(Here::Leaf(node) | Here::Tree(node)) => drop(entries.insert(name, node)),
                Some(Here::Dir) | None => {
                    let is_made = matches!(here, Some(Here::Dir));
                    let id = match entries.get(&name) {
                        Some(Node::Dir { id, .. }) => Some(*id),
                        Some(Node::File(_) | Node::Link { .. }) | None if is_made => None,
                        // Only what is gone is said of what lies in no folder.
                        Some(Node::File(_) | Node::Link { .. }) | None if below.is_all_gone() => continue,
                        Some(Node::File(_) | Node::Link { .. }) | None => {
                            return Err(Refusal::new(
                                Code::Internal,
                                "A change of a tree lies in no folder.",
                            ));
                        }
                    };
                    let (id, totals) = self.changed(id, below)?;
                    entries.insert(name, Node::Dir { id, totals });
                }
            }
        }
        self.dir(entries)
    }

    fn common(
        &mut self,
        hub: TreeId,
        node: TreeId,
        before: Option<TreeId>,
    ) -> Result<(TreeId, Totals), Refusal> {
        let (hub, node) = (listing(self.chunks, Some(hub))?, listing(self.chunks, Some(node))?);
        let mut before = listing(self.chunks, before)?;
        let mut entries = Listing::new();
        for (name, has) in hub {
            let was = before.remove(&name);
            let agreed = match (has, node.get(&name)) {
                (hub @ Node::Dir { id, .. }, Some(Node::Dir { id: other, .. })) => {
                    if id == *other {
                        Some(hub)
                    } else {
                        let was = match was {
                            Some(Node::Dir { id, .. }) => Some(id),
                            Some(Node::File(_) | Node::Link { .. }) | None => None,
                        };
                        let (id, totals) = self.common(id, *other, was)?;
                        Some(Node::Dir { id, totals })
                    }
                }
                (hub, Some(other)) if entry(&hub) == entry(other) => Some(hub),
                _ => was,
            };
            entries.extend(agreed.map(|agreed| (name, agreed)));
        }
        // What the hub has not and the node has not either is gone on both sides.
        entries.extend(before.into_iter().filter(|(name, _)| node.contains_key(name)));
        self.dir(entries)
    }
}

impl Changes {
    fn set(&mut self, path: &RelPath, here: Here) {
        let mut at = self;
        let mut parts = path.parts().peekable();
        while let Some(part) = parts.next() {
            let change = at.0.entry(Bytes::copy_from_slice(part.as_bytes())).or_default();
            if parts.peek().is_none() {
                change.here = Some(here);
                return;
            }
            at = &mut change.below;
        }
    }

    fn get(&self, path: &RelPath) -> Option<&Here> {
        let mut at = self;
        let mut found = None;
        for part in path.parts() {
            let change = at.0.get(part.as_bytes())?;
            (found, at) = (change.here.as_ref(), &change.below);
        }
        found
    }

    fn is_all_gone(&self) -> bool {
        let gone =
            |change: &Change| matches!(change.here, Some(Here::Gone) | None) && change.below.is_all_gone();
        self.0.values().all(gone)
    }
}

/// Where an entry of a plan has its time from.
struct Times<'p> {
    chunks: &'p Chunks,
    planning: &'p Planning,
    conflicts: &'p [Conflict],
}

impl Times<'_> {
    /// A file or link as it stands in a tree: with the time that whoever had it gave it.
    fn leaf(&self, path: &RelPath, of: &Entry) -> Result<Node, Refusal> {
        let aside = self.conflicts.iter().find(|conflict| conflict.copy.as_ref() == Some(path));
        let paths = std::iter::once(path).chain(aside.map(|conflict| &conflict.path));
        let mut time = 0;
        'found: for path in paths {
            for tree in [Some(self.planning.node), Some(self.planning.hub), self.planning.agreed] {
                let Some(tree) = tree else { continue };
                if let Some(found) = self.chunks.find(tree, path)?
                    && content(&found) == of_entry(of)
                {
                    time = time_of(&found);
                    break 'found;
                }
            }
        }
        match of.clone() {
            Entry::File { id, map, size, exec } => {
                Ok(Node::File(FileNode { id, size, exec, mtime_ns: time, map: map.map(ContentId::from) }))
            }
            Entry::Link { target } => Ok(Node::Link { target, mtime_ns: time }),
            Entry::Dir => Err(unfit(path)),
        }
    }

    /// What the hub has at a path after these changes.
    fn now(&self, changes: &Changes, path: &RelPath) -> Result<Option<Node>, Refusal> {
        match changes.get(path) {
            Some(Here::Leaf(node) | Here::Tree(node)) => Ok(Some(node.clone())),
            Some(Here::Gone | Here::Dir) => Ok(None),
            None => self.chunks.find(self.planning.hub, path),
        }
    }
}

/// What a node makes of a folder that it is to bring to a tree: its plan, and the folder afterwards.
#[cfg(test)]
pub(crate) fn applied(
    chunks: &Chunks,
    ask: &cortex_core::transfer::ApplyAsk,
    node: TreeId,
    pin: &Pin,
) -> Result<(Plan, TreeId), Refusal> {
    let planning = Planning {
        to: ask.revision,
        hub: ask.target,
        node,
        news: 0,
        agreed: ask.base,
        mode: ask.mode,
        accepted: ask.accepted,
    };
    let trees = compare(chunks, &planning)?;
    let side = |entries, counts| Side { entries, counts, root: RootState::Dir };
    let plan = plan(&Inputs {
        agreed: &trees.agreed,
        agreed_counts: ask.base.map_or(Ok(SideCounts::default()), |base| chunks.counts(base))?,
        hub: side(&trees.hub, chunks.counts(ask.target)?),
        node: side(&trees.node, chunks.counts(node)?),
        mode: ask.mode,
        limits: ask.limits,
        names: NameRules::default(),
        node_name: &ask.node_name,
        revision: ask.revision,
        accepted: ask.accepted,
    });
    let times = Times { chunks, planning: &planning, conflicts: &plan.conflicts };
    let of_node = Planning { hub: node, ..planning };
    let now = Times { chunks, planning: &of_node, conflicts: &[] };
    let mut changes = Changes::default();
    for step in &plan.to_node {
        let here = match &step.act {
            Act::Put(entry) => Here::Leaf(times.leaf(&step.path, entry)?),
            Act::MakeDir => Here::Dir,
            Act::RemoveFile | Act::RemoveDir => Here::Gone,
            Act::Exec(exec) => match now.now(&changes, &step.path)? {
                Some(Node::File(file)) => Here::Leaf(Node::File(FileNode { exec: *exec, ..file })),
                _ => return Err(unfit(&step.path)),
            },
            Act::Keep { copy } => {
                let node = now.now(&changes, &step.path)?.ok_or_else(|| unfit(&step.path))?;
                changes.set(copy, Here::Leaf(node));
                Here::Gone
            }
        };
        changes.set(&step.path, here);
    }
    let tree = written(chunks, pin, |writing| Ok(writing.changed(Some(node), changes)?.0))?;
    Ok((plan, tree))
}

/// A tree with these files put, and those gone of which there is none.
#[cfg(test)]
pub(crate) fn edited(
    chunks: &Chunks,
    tree: TreeId,
    edits: Vec<(RelPath, Option<Node>)>,
    pin: &Pin,
) -> TreeId {
    let mut changes = Changes::default();
    for (path, node) in edits {
        let mut above = path.parent();
        while let Some(folder) = above.filter(|_| node.is_some()).filter(|folder| !folder.is_root()) {
            if changes.get(&folder).is_none() {
                changes.set(&folder, Here::Dir);
            }
            above = folder.parent();
        }
        changes.set(&path, node.map_or(Here::Gone, Here::Leaf));
    }
    written(chunks, pin, |writing| Ok(writing.changed(Some(tree), changes)?.0)).expect("written")
}

fn listing(chunks: &Chunks, dir: Option<TreeId>) -> Result<Listing, Refusal> {
    let Some(dir) = dir else { return Ok(Listing::new()) };
    Ok(chunks.dir(dir)?.into_iter().map(|entry| (entry.name, entry.node)).collect())
}

/// An entry as it is compared: times are no part of it.
pub(crate) fn entry(node: &Node) -> Entry {
    match node {
        Node::File(FileNode { id, size, exec, map, .. }) => {
            Entry::File { id: *id, map: map.map(TreeId::from), size: *size, exec: *exec }
        }
        Node::Dir { .. } => Entry::Dir,
        Node::Link { target, .. } => Entry::Link { target: target.clone() },
    }
}

/// What is in it, whoever may execute it.
fn content(node: &Node) -> (Option<ContentId>, Option<&Bytes>) {
    match node {
        Node::File(file) => (Some(file.id), None),
        Node::Link { target, .. } => (None, Some(target)),
        Node::Dir { .. } => (None, None),
    }
}

fn of_entry(entry: &Entry) -> (Option<ContentId>, Option<&Bytes>) {
    match entry {
        Entry::File { id, .. } => (Some(*id), None),
        Entry::Link { target } => (None, Some(target)),
        Entry::Dir => (None, None),
    }
}

const fn time_of(node: &Node) -> i64 {
    match node {
        Node::File(FileNode { mtime_ns, .. }) | Node::Link { mtime_ns, .. } => *mtime_ns,
        Node::Dir { .. } => 0,
    }
}

fn unfit(path: &RelPath) -> Refusal {
    Refusal::new(Code::Internal, format!("The plan for `{path}` does not fit its tree."))
}
