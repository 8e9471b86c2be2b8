//! A tree comes from elsewhere into a folder: what differs is planned (`cortex_core::sync`), its content is
//! fetched and staged beside, and only when all of it is verified and durable it gets its names, each if
//! what is there still is what was planned for (SYNC rules 4 to 8, 16, 17).
//!
//! All of it blocks. A try that is cut off anywhere leaves each path as it was or as it is to be; what it
//! had staged is not fetched again by the next.
//!
//! Never here: the network ([`Peer`] is whoever has it), and whether the folder is the one that is meant
//! ([`Ask::state`] says so).

mod beside;
mod commit;
mod content;
mod fetch;
mod inputs;
mod local;
mod modes;
mod outcome;
mod peer;
mod space;
mod staging;
mod taken;
mod was;

use std::collections::BTreeSet;

use cortex_content::graph::{GraphCheck, TreeQuota};
use cortex_core::error::Refusal;
use cortex_core::files::content::TreeId;
use cortex_core::files::path::RelPath;
use cortex_core::id::Revision;
use cortex_core::sync::{
    self, Act, DeleteLimits, Entry, HaltId, Inputs, Mode, NameRules, RootState, Seen, Side, SideCounts, Step,
};

use super::beneath::Dir;
use super::place::Work;
use super::scan::{Objects, Scanned};
use super::seam::{Moment, Seam};
use commit::Commit;
use content::Content;
use fetch::Store;
use staging::Staging;

pub(crate) use commit::Known;
pub(crate) use inputs::Excluded;
pub(crate) use modes::set as set_mode;
pub(crate) use outcome::{Applied, End, Listed};
pub(crate) use outcome::{Deed, Trouble, Undone};
pub(crate) use peer::Event;
pub(crate) use peer::Peer;
pub(crate) use staging::sweep_staging;

/// What is asked of a folder.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// What the folder is to hold. A second try of the same tree goes on where the first was cut off.
    pub(crate) target: TreeId,
    /// What both sides had when they were last alike.
    pub(crate) base: Option<TreeId>,
    /// The one entry that it is about; the folder was scanned so.
    pub(crate) only: Option<String>,
    /// How changes of the folder are treated. What the mode would have the other side do is not done here.
    pub(crate) mode: Mode,
    /// When removals halt.
    pub(crate) limits: DeleteLimits,
    /// What the disk makes of names.
    pub(crate) names: NameRules,
    /// The name of this end, for the names of copies.
    pub(crate) node_name: String,
    /// The revision of the target, for the names of copies.
    pub(crate) revision: Revision,
    /// The halt that a person let pass.
    pub(crate) accepted: Option<HaltId>,
    /// What the target may have.
    pub(crate) quota: TreeQuota,
    /// Whether the folder is the one that is meant (SYNC rule 2).
    pub(crate) state: RootState,
    /// Only says what would be done.
    pub(crate) dry_run: bool,
}

/// The folder, as it was scanned.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'a> {
    /// It, opened beneath its root.
    pub(crate) root: &'a Dir,
    /// What was found in it.
    pub(crate) scanned: &'a Scanned,
    /// Whether a file is certainly what the scan saw.
    pub(crate) known: &'a Known<'a>,
    /// What the rules of the folder leave out, of the target as well.
    pub(crate) excluded: &'a Excluded<'a>,
    /// Objects that are kept here from before.
    pub(crate) kept: &'a Objects,
    /// What could not be done when the folder became [`Ask::base`].
    pub(crate) undone: &'a [Undone],
}

/// Makes a folder what is asked for. `objects` has all objects of the target afterwards.
///
/// # Errors
/// `quota` and `too_large` for a target above its bounds, `no_space` before anything is changed and when
/// the disk fills up in the middle; what the peer says; `conflict` while the same transfer is received
/// already; those of the disk. Names are as they were or as they are to be, whatever fails.
pub(crate) fn apply(
    ground: &Ground<'_>,
    ask: &Ask,
    peer: &mut dyn Peer,
    seam: &dyn Seam,
    objects: &mut Objects,
) -> Result<Applied, Refusal> {
    let scanned = ground.scanned;
    if scanned.root == ask.target && ask.state == RootState::Dir {
        remove_left(ground.root, ask.target, seam)?;
        return Ok(Applied::new(End::InSync));
    }
    let mut staging = if ask.dry_run || ask.state != RootState::Dir {
        None
    } else {
        Some(Staging::open(ground.root, ask.target, seam)?)
    };
    let applied = differing(ground, ask, peer, seam, objects, staging.as_ref());
    let is_over = match &applied {
        Ok(_) => true,
        // What is staged takes the room that is missing.
        Err(refusal) => refusal.code == cortex_core::error::Code::NoSpace,
    };
    if let Some(staging) = staging.take_if(|_| is_over) {
        seam.pass(Moment::BeforeEnd);
        let removed = staging.remove();
        // It is done, or failed for another reason, also when something stays.
        let _later = removed.is_err();
    }
    applied
}

/// Removes what a try left that was cut off when its folder was what it was to be already.
///
/// # Errors
/// `conflict` while somebody works there, and those of the disk.
pub(crate) fn remove_left(root: &Dir, target: TreeId, seam: &dyn Seam) -> Result<(), Refusal> {
    if let Some(left) = Staging::left(root, target, seam)? {
        let removed = left.remove();
        // The folder is what it is to be, also when something stays.
        let _later = removed.is_err();
    }
    Ok(())
}

fn differing(
    ground: &Ground<'_>,
    ask: &Ask,
    peer: &mut dyn Peer,
    seam: &dyn Seam,
    objects: &mut Objects,
    staging: Option<&Staging>,
) -> Result<Applied, Refusal> {
    let scanned = ground.scanned;
    let (came, mut log) = match staging {
        Some(staging) => {
            let (came, log) = staging.objects()?;
            (came, Some(log))
        }
        None => (Objects::default(), None),
    };
    let mut store = Store { local: &scanned.objects, came };
    ground.kept.iter().for_each(|(id, bytes)| store.came.put(*id, bytes.clone()));
    store.fetch(GraphCheck::new(ask.target, ask.quota), peer, log.as_mut())?;
    if let Some(base) = ask.base {
        // Of what was agreed on, no content is needed.
        store.fetch(GraphCheck::of_entries(base, ask.quota), peer, log.as_mut())?;
    }
    let only = ask.only.as_deref();
    let mut trees = inputs::compare(&store, ask.target, scanned, ask.base, ground.excluded, only)?;
    inputs::forgive(&mut trees, ground.undone);
    let agreed_counts =
        ask.base.map_or(Ok(SideCounts::default()), |base| inputs::counts(&store, base, only))?;
    let side = |entries, counts, root| Side { entries, counts, root };
    let mut plan = sync::plan(&Inputs {
        agreed: &trees.agreed,
        agreed_counts,
        hub: side(&trees.hub, inputs::counts(&store, ask.target, only)?, RootState::Dir),
        node: side(&trees.node, scanned.counts, ask.state),
        mode: ask.mode,
        limits: ask.limits,
        names: ask.names,
        node_name: &ask.node_name,
        revision: ask.revision,
        accepted: ask.accepted,
    });
    let mut applied = Applied::new(End::Done);
    applied.counts = std::mem::take(&mut plan.counts);
    applied.held = Listed::of(std::mem::take(&mut plan.held));
    applied.conflicts = Listed::of(std::mem::take(&mut plan.conflicts));
    applied.unnamed = trees.unnamed;
    let steps = plan.to_node;
    steps.iter().for_each(|step| applied.steps.push(commit::deed(step)));
    match (plan.halt, staging) {
        (Some(halt), _) => applied.end = End::Halted(halt),
        (None, None) => {
            applied.end = End::Planned;
            for step in &steps {
                if let Act::Put(entry) = &step.act {
                    let size = if let Entry::File { size, .. } = entry { *size } else { 0 };
                    applied.files += u64::from(*entry != Entry::Dir);
                    applied.bytes = applied.bytes.saturating_add(size);
                }
            }
        }
        (None, Some(staging)) => {
            let files = content::files(&steps);
            let wanted = |path: &RelPath| files.get(path).copied();
            let resumed = staging.resume(ask.target, seam, &wanted)?;
            let mut content = Content::new(staging, seam, &store, &steps, &trees.times, resumed)?;
            let (bytes, count) = content.missing();
            space::check(ground.root, bytes, count)?;
            if content.needs_any() {
                local::copy(ground.root, &store, scanned.root, &mut content, peer)?;
                content.fetch(peer)?;
            }
            (applied.fetched, applied.copied, applied.resumed) =
                (content.fetched, content.copied, content.resumed);
            let items = content.settle()?;
            let work = Work { id: staging::op_of(ask.target), seam };
            let mut commit = Commit::new(&work, ground.root, staging, ground.known, &store, &items);
            commit.run(&steps, peer, &mut applied)?;
            applied.undone = undone(&applied.troubles, &steps);
        }
    }
    *objects = store.came;
    scanned.objects.iter().for_each(|(id, bytes)| objects.put(*id, bytes.clone()));
    Ok(applied)
}

/// Which paths are what they were. One that changed meanwhile is somebody's change, and is no such path.
fn undone(troubles: &Listed<(RelPath, Trouble)>, steps: &[Step]) -> Option<Vec<Undone>> {
    if troubles.count == 0 {
        return Some(Vec::new());
    }
    if troubles.count > troubles.first.len() as u64 {
        return None;
    }
    let stays = |(path, trouble): &(RelPath, Trouble)| {
        let is_left = matches!(trouble, Trouble::Missing | Trouble::Denied(_) | Trouble::Below);
        is_left.then(|| path.clone())
    };
    let paths: BTreeSet<RelPath> = troubles.first.iter().filter_map(stays).collect();
    let of = |step: &Step| {
        let is_leaf =
            step.expect == Seen::Absent || step.expect.entry().is_some_and(|entry| *entry != Entry::Dir);
        let is_undone = is_leaf && paths.contains(&step.path);
        is_undone.then(|| Undone { path: step.path.clone(), was: was::mark_of(step.expect.entry()) })
    };
    Some(steps.iter().filter_map(of).collect())
}

#[cfg(test)]
pub(crate) mod tests;
