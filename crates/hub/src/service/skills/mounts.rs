//! Folders of nodes that are what a skill is: rows, and the worker that brings each folder to its revision. All
//! that it knows beside rows is who is at it, when to look again, and what a node last said.
//!
//! A mount is one step, over and over: the node is asked to make the folder what the tree says, which scans it,
//! and is over at once when it is so. Nothing of the folder is ever asked for, so that nothing of it can reach
//! the library. What somebody changed there is kept beside its name, and told as drift.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use cortex_core::event::{Event, EventKind};
use cortex_core::files::path::FilePath;
use cortex_core::id::{Epoch, NodeId, Revision};
use cortex_core::limits::{SKILL_REVISIONS_KEPT, TRANSFERS_RUNNING_MAX};
use cortex_core::name::{Name, printable};
use cortex_core::node::Node;
use cortex_core::rights::Right;
use cortex_core::skill::{self, Mount, SkillRow};
use cortex_core::sync::{DeleteLimits, Mode, Rule};
use cortex_core::time::{Timestamp, WallTime};
use cortex_core::transfer::{ApplyAsk, Filters, TransferEnd, TransferWork};
use cortex_core::{Code, Refusal};
use cortex_store::Tx;
use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;

use super::{Inner, Skills, audit, lock, none};
use crate::mesh::{Asked, Unwatched, Watch};
use crate::service::asking::{self, Ask, Asking};
use crate::service::watching::{Watching, sleep_until};
use crate::service::{Caller, anew, targets};
use crate::transfer::give;

/// Between two looks at a folder whose node does not tell of changes, milliseconds.
pub const LOOK_EVERY_MS: u64 = 60_000;
/// What happens within this time is taken in together.
const MOMENT: Duration = Duration::from_millis(10);
/// The first and the longest pause after a step that failed, milliseconds.
const RETRY_MS: (u64, u64) = (500, 60_000);
/// Removals that never halt: what is removed was put there by the step before, and not changed since.
const NO_LIMITS: DeleteLimits = DeleteLimits { files: u64::MAX, percent: 100, percent_from: u64::MAX };

/// One folder, by node and path.
type Key = (NodeId, String);

/// How a mount stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has said yet what is there.
    Syncing,
    /// The folder is the revision, and nothing else.
    InSync,
    /// The files of the revision are there; something else is as well.
    Drifted,
    /// The node is away.
    Offline,
}

impl Standing {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Syncing => "syncing",
            Self::InSync => "in_sync",
            Self::Drifted => "drifted",
            Self::Offline => "offline",
        }
    }
}

/// A mount on a node that the caller sees.
#[derive(Clone, Debug)]
pub struct ShownMount {
    /// Its row.
    pub mount: Mount,
    /// The name of its node.
    pub node: String,
    /// How it stands.
    pub standing: Standing,
    /// When its node last said what is there, on the hub's wall clock.
    pub seen_at: Option<WallTime>,
    /// Why the last step was not done; it is tried again.
    pub trouble: Option<Refusal>,
}

/// What only the worker knows, and the rows, which follow each commit.
#[derive(Default)]
pub(super) struct Mounts {
    rows: BTreeMap<Key, Mount>,
    running: BTreeSet<Key>,
    /// When folders are looked at, and who tells of changes.
    folders: BTreeMap<Key, Watching>,
    trouble: BTreeMap<Key, Trouble>,
    /// The link by which a node was last seen.
    links: BTreeMap<NodeId, Epoch>,
    /// What the node last said, and when.
    said: BTreeMap<Key, (Standing, WallTime)>,
    /// Who had a turn last.
    last: Option<Key>,
}

struct Trouble {
    refusal: Refusal,
    pause_ms: u64,
    until: Timestamp,
}

fn key(mount: &Mount) -> Key {
    (mount.node, mount.path.as_str().to_owned())
}

impl Mounts {
    pub(super) fn of(rows: Vec<Mount>) -> Self {
        Self { rows: rows.into_iter().map(|row| (key(&row), row)).collect(), ..Self::default() }
    }

    pub(super) fn forget_all(&mut self, gone: &[Mount]) {
        gone.iter().for_each(|mount| self.forget(&key(mount)));
    }

    fn forget(&mut self, key: &Key) {
        self.rows.remove(key);
        self.folders.remove(key);
        self.trouble.remove(key);
        self.said.remove(key);
    }

    /// All that follow a skill are looked at at once.
    pub(super) fn moved(&mut self, skill: &Name) {
        let of: Vec<Key> =
            self.rows.iter().filter(|(_, row)| row.skill == *skill).map(|(key, _)| key.clone()).collect();
        for key in of {
            if let Some(folder) = self.folders.get_mut(&key) {
                folder.looks.want();
            }
            self.trouble.remove(&key);
        }
    }

    /// Those that have a turn, marked as running; and when there may be more, unless something happens. `watch`
    /// asks the node of a mount to tell of changes.
    fn begin(
        &mut self,
        links: &BTreeMap<NodeId, Epoch>,
        now: Timestamp,
        watch: impl Fn(&Mount, Filters) -> Result<Watch, Unwatched>,
    ) -> (Vec<Key>, Option<Timestamp>) {
        let before = std::mem::replace(&mut self.links, links.clone());
        let keys: Vec<Key> = self.rows.keys().cloned().collect();
        // Nobody is passed over for good because others come first.
        let turn = self.last.as_ref().map_or(0, |last| keys.partition_point(|key| key <= last));
        let (mut begun, mut next) = (Vec::new(), Vec::new());
        for key in keys[turn..].iter().chain(&keys[..turn]) {
            let folder = self.folders.entry(key.clone()).or_default();
            let link = links.get(&key.0);
            if before.get(&key.0) != link {
                // What was done there while it was away, nobody saw.
                folder.link_changed();
                self.trouble.remove(key);
            }
            folder.hear(now);
            let Some(mount) = self.rows.get(key).filter(|_| link.is_some()) else { continue };
            if mount.reached.is_some() {
                folder.ask(&filters(), now, |filters| watch(mount, filters));
                next.extend(folder.again());
            }
            if self.running.contains(key) || self.running.len() >= TRANSFERS_RUNNING_MAX {
                // Whoever ends wakes the worker.
                continue;
            }
            let retry = self.trouble.get(key).map(|trouble| trouble.until);
            let due = folder.due(LOOK_EVERY_MS).max(retry.unwrap_or_default());
            if due > now {
                next.push(due);
                continue;
            }
            folder.looks.begun();
            self.running.insert(key.clone());
            self.last = Some(key.clone());
            begun.push(key.clone());
        }
        (begun, next.into_iter().min())
    }

    fn ended(&mut self, key: &Key, ended: Result<(), Refusal>, now: Timestamp) {
        self.running.remove(key);
        if !self.rows.contains_key(key) {
            return;
        }
        let folder = self.folders.entry(key.clone()).or_default();
        folder.looks.ended(now);
        match ended {
            Ok(()) => {
                self.trouble.remove(key);
            }
            Err(refusal) => {
                folder.looks.want();
                let before = self.trouble.get(key).map(|trouble| trouble.pause_ms);
                let pause_ms = before.map_or(RETRY_MS.0, |pause| (pause * 2).min(RETRY_MS.1));
                let until = now.plus_ms(pause_ms);
                self.trouble.insert(key.clone(), Trouble { refusal, pause_ms, until });
            }
        }
    }
}

/// All of it is the skill's, whatever ignore files it has.
fn filters() -> Filters {
    Filters { ignore_files: false, vcs: true, ..Filters::default() }
}

impl Skills {
    /// Has a folder of a node follow a skill, or stay at one revision of it. What is in the folder already and
    /// is not the skill's stays, and is told as drift. Needs `skills:write`, `files:write` on the node, and its
    /// policy's leave to write the folder.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `node_not_found`, `policy_denied`, `path_outside_roots`, `conflict` when another
    /// mount or a workspace has the folder, `quota`.
    pub async fn mount(
        &self,
        caller: &Caller,
        name: &str,
        (node, path): (&str, FilePath),
        pin: Option<Revision>,
    ) -> Result<ShownMount, Refusal> {
        caller.anywhere(Right::SkillsWrite)?;
        let inner = &self.0;
        let node = targets::find_for(&inner.context.directory, caller, Right::FilesWrite, node)?;
        let skill = Name::parse(name).map_err(|_no_name| none(name))?;
        inner.revision_of(&skill, pin).await?;
        asking::judge(&inner.context, &node, &path, true)?;
        let (now, by) = (inner.context.clock.wall(), caller.clone());
        let mut row = audit(caller, "skill.mount", &skill, now);
        row.node = Some(node.id);
        row.argv.push(format!("{}:{}", node.name, path.as_str()));
        row.argv.extend(pin.map(|n| n.to_string()));
        let mount = Mount { skill, node: node.id, path, pin, reached: None, by: caller.actor(), at: now };
        let (new, of) = (mount.clone(), Arc::clone(&node));
        let work = move |tx: &mut dyn Tx| {
            let by = anew(tx, &by, now)?;
            by.anywhere(Right::SkillsWrite)?;
            by.on(Right::FilesWrite, &of)?;
            tx.skill(&new.skill)?
                .filter(|row| row.removed_at.is_none())
                .ok_or_else(|| none(new.skill.as_str()))?;
            skill::mount(&new, &tx.skill_mounts()?, &tx.members_on(new.node)?)?;
            tx.put_skill_mount(&new)?;
            tx.append_audit(&row)?;
            tx.append_event(&told(EventKind::SkillMounted, &new, now).actor(by.actor()))?;
            Ok(new)
        };
        let after = Arc::clone(inner);
        let follow = move |mount: &Mount| {
            tracing::info!(skill = %mount.skill, node = %mount.node, path = mount.path.as_str(), "a skill was mounted");
            lock(&after.mounts).rows.insert(key(mount), mount.clone());
            after.wake.notify_one();
        };
        let mount = inner.context.commit(work, follow).await?;
        Ok(inner.shown(mount, &node))
    }

    /// Has the folder follow no more; it stays as it is. Needs `skills:write`, and `files:write` on the node.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `node_not_found`.
    pub async fn unmount(
        &self,
        caller: &Caller,
        name: &str,
        (node, path): (&str, FilePath),
    ) -> Result<(), Refusal> {
        caller.anywhere(Right::SkillsWrite)?;
        let inner = &self.0;
        let node = targets::find_for(&inner.context.directory, caller, Right::FilesWrite, node)?;
        let skill = Name::parse(name).map_err(|_no_name| none(name))?;
        let (now, by) = (inner.context.clock.wall(), caller.clone());
        let mut row = audit(caller, "skill.unmount", &skill, now);
        row.node = Some(node.id);
        row.argv.push(format!("{}:{}", node.name, path.as_str()));
        let work = move |tx: &mut dyn Tx| {
            let by = anew(tx, &by, now)?;
            by.anywhere(Right::SkillsWrite)?;
            by.on(Right::FilesWrite, &node)?;
            let is_it = |mount: &Mount| mount.node == node.id && mount.path == path && mount.skill == skill;
            let mount = tx.skill_mounts()?.into_iter().find(is_it).ok_or_else(|| {
                let shown = printable(path.as_str(), 200);
                Refusal::new(Code::NotFound, format!("{}:{shown} is no mount of {skill}.", node.name))
                    .hint("See its mounts with `cortex skill show NAME`.")
            })?;
            tx.remove_skill_mount(mount.node, &mount.path)?;
            tx.append_audit(&row)?;
            tx.append_event(&told(EventKind::SkillUnmounted, &mount, now).actor(by.actor()))?;
            Ok(mount)
        };
        let after = Arc::clone(inner);
        inner
            .context
            .commit(work, move |mount: &Mount| lock(&after.mounts).forget(&key(mount)))
            .await
            .map(drop)
    }

    /// Folders that follow a skill, on nodes that the caller sees. Needs `skills:read`.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn mounts(&self, caller: &Caller, name: &str) -> Result<Vec<ShownMount>, Refusal> {
        caller.anywhere(Right::SkillsRead)?;
        let rows: Vec<Mount> =
            lock(&self.0.mounts).rows.values().filter(|row| row.skill.as_str() == name).cloned().collect();
        let shown = rows.into_iter().filter_map(|row| {
            let node = self.0.context.directory.node(row.node).filter(|node| caller.sees(node))?;
            Some(self.0.shown(row, &node))
        });
        Ok(shown.collect())
    }

    /// Works until the hub stops.
    ///
    /// # Errors
    /// None; it is tried again.
    pub async fn run_mounts(&self, shutdown: CancellationToken) -> Result<(), Refusal> {
        let mut presence = self.0.mesh.presence_changes();
        loop {
            let due = self.0.begin_due();
            tokio::select! {
                () = shutdown.cancelled() => {
                    self.0.stop.cancel();
                    return Ok(());
                }
                () = self.0.wake.notified() => {}
                _ = presence.changed() => {}
                () = sleep_until(due.map(|at| self.0.context.clock.instant(at))) => {}
            }
            tokio::time::sleep(MOMENT).await;
        }
    }

    /// Looks at all folders at the next turn.
    pub fn look_at_all(&self) {
        lock(&self.0.mounts).folders.values_mut().for_each(|folder| folder.looks.want());
        self.0.wake.notify_one();
    }
}

impl Inner {
    fn shown(&self, mount: Mount, node: &Node) -> ShownMount {
        let key = key(&mount);
        let mounts = lock(&self.mounts);
        let said = mounts.said.get(&key).copied();
        let standing = if self.mesh.presence(node.id).is_none() {
            Standing::Offline
        } else {
            said.map_or(Standing::Syncing, |(standing, _)| standing)
        };
        let trouble = mounts.trouble.get(&key).map(|trouble| trouble.refusal.clone());
        ShownMount { node: node.name.to_string(), standing, seen_at: said.map(|(_, at)| at), trouble, mount }
    }

    /// The revision at which a mount is to be.
    async fn revision_of(&self, skill: &Name, pin: Option<Revision>) -> Result<SkillRow, Refusal> {
        let name = skill.clone();
        let rows =
            self.context.view(move |view| view.skill_revisions(&name, None, SKILL_REVISIONS_KEPT)).await?;
        let mut live = rows.into_iter().take_while(|row| row.removed_at.is_none()).peekable();
        if live.peek().is_none() {
            return Err(none(skill.as_str()));
        }
        let found = live.find(|row| pin.is_none_or(|n| row.n == n));
        found.ok_or_else(|| {
            let n = pin.unwrap_or_default();
            Refusal::new(Code::NotFound, format!("Skill {skill} has no revision {n}."))
                .hint("See its revisions with `cortex skill show NAME`.")
        })
    }

    /// Begins with those that are due. When there may be more, unless something happens.
    fn begin_due(self: &Arc<Self>) -> Option<Timestamp> {
        let nodes: BTreeSet<NodeId> = lock(&self.mounts).rows.keys().map(|(node, _)| *node).collect();
        let links: BTreeMap<NodeId, Epoch> =
            nodes.into_iter().filter_map(|node| Some((node, self.mesh.presence(node)?.epoch))).collect();
        let watch =
            |mount: &Mount, filters| self.mesh.watch(mount.node, mount.path.clone(), filters, &self.wake);
        let (begun, next) = lock(&self.mounts).begin(&links, self.context.clock.now(), watch);
        for key in begun {
            let inner = Arc::clone(self);
            drop(self.mesh.spawn(inner.work(key)));
        }
        next
    }

    async fn work(self: Arc<Self>, key: Key) {
        let stopped = self.stop.clone();
        let stepped = AssertUnwindSafe(self.step(&key)).catch_unwind();
        let ended = tokio::select! {
            ended = stepped => ended.unwrap_or_else(|_panic| {
                Err(Refusal::new(Code::Internal, "A step of a mount met a defect of the hub."))
            }),
            () = stopped.cancelled() => Ok(()),
        };
        if let Err(refusal) = &ended {
            tracing::debug!(node = %key.0, path = key.1, code = %refusal.code, reason = %refusal.message, "a mount waits");
        }
        lock(&self.mounts).ended(&key, ended, self.context.clock.now());
        self.wake.notify_one();
    }

    /// The node makes the folder what the revision is.
    async fn step(self: &Arc<Self>, key: &Key) -> Result<(), Refusal> {
        let Some(mount) = lock(&self.mounts).rows.get(key).cloned() else { return Ok(()) };
        let Some(node) = self.context.directory.node(mount.node) else { return Ok(()) };
        let wanted = match mount.reached {
            // It is there already, whether or not the library still lists it.
            Some((n, tree)) if mount.pin == Some(n) => (n, tree),
            Some(_) | None => {
                let row = self.revision_of(&mount.skill, mount.pin).await?;
                (row.n, row.tree)
            }
        };
        let mut end = self.bring_to(&mount, &node, wanted, mount.reached.map(|(_, tree)| tree)).await?;
        let is_gone = |end: &TransferEnd| {
            end.halt.as_ref().is_some_and(|halt| halt.causes.iter().any(|cause| cause.rule == Rule::RootGone))
        };
        if mount.reached.is_some() && is_gone(&end) {
            // Somebody removed the folder: it is made anew.
            end = self.bring_to(&mount, &node, wanted, None).await?;
        }
        if let Some(halt) = &end.halt {
            let rules: Vec<&str> = halt.causes.iter().map(|cause| cause.rule.as_str()).collect();
            let message = format!("The folder is not the one that it was: {}.", rules.join(", "));
            return Err(Refusal::new(Code::SyncHalted, message)
                .hint("Look at it with `cortex fs ls NODE:PATH`, move it away, and it is made anew."));
        }
        self.reached(&mount, wanted, &end).await
    }

    async fn bring_to(
        &self,
        mount: &Mount,
        node: &Node,
        (n, tree): (Revision, cortex_core::files::content::TreeId),
        base: Option<cortex_core::files::content::TreeId>,
    ) -> Result<TransferEnd, Refusal> {
        let judge = || asking::judge(&self.context, node, &mount.path, true);
        let _turn = self.transfers.turn(node.id).await;
        judge()?;
        let (id, mut asking) = Asking::new(&self.context, &self.mesh, node.id);
        let work = TransferWork::Apply(Box::new(ApplyAsk {
            dest: mount.path.clone(),
            target: tree,
            base,
            only: None,
            mode: Mode::FromHub { repair: true },
            limits: NO_LIMITS,
            accepted: None,
            filters: filters(),
            checksum: false,
            dry_run: false,
            read_only: true,
            node_name: node.name.to_string(),
            revision: n,
            identity: None,
        }));
        let caller = format!("skill:{}", mount.skill);
        let ask = Ask { work, caller, lock: None, what: "skills" };
        match asking.ask((&self.context, &self.mesh), id, node, ask).await? {
            Asked::Over(end) => Ok(*end),
            Asked::Stream(stream) => {
                let trees = std::iter::once(tree).chain(base).collect();
                let end =
                    asking.while_wanted(judge, give::serve(&self.chunks, trees, stream, |_| ())).await?;
                Ok(*end)
            }
        }
    }

    /// Writes down what came of it, and tells of drift when it begins and ends.
    async fn reached(
        self: &Arc<Self>,
        mount: &Mount,
        (n, tree): (Revision, cortex_core::files::content::TreeId),
        end: &TransferEnd,
    ) -> Result<(), Refusal> {
        let (key, now) = (key(mount), self.context.clock.wall());
        let was = lock(&self.mounts).said.get(&key).map(|(standing, _)| *standing);
        let standing = if end.root == Some(tree) { Standing::InSync } else { Standing::Drifted };
        let is_there = mount.reached == Some((n, tree));
        // Something had to be put although it was there before.
        let was_repaired = is_there && end.files > 0;
        let found = was != Some(Standing::Drifted) && (standing == Standing::Drifted || was_repaired);
        let cleared = standing == Standing::InSync && (was == Some(Standing::Drifted) || was_repaired);
        let new = Mount { reached: Some((n, tree)), ..mount.clone() };
        if !is_there || found || cleared {
            let (row, before) = (new.clone(), mount.clone());
            let work = move |tx: &mut dyn Tx| {
                if !tx.skill_mounts()?.contains(&before) {
                    // It was given up meanwhile.
                    return Ok(false);
                }
                tx.put_skill_mount(&row)?;
                for (is_so, kind) in [(found, EventKind::DriftFound), (cleared, EventKind::DriftCleared)] {
                    if is_so {
                        tx.append_event(&told(kind, &row, now))?;
                    }
                }
                Ok(true)
            };
            let (after, at, row) = (Arc::clone(self), key.clone(), new);
            let follow = move |is_kept: &bool| {
                if *is_kept {
                    lock(&after.mounts).rows.insert(at, row);
                }
            };
            if !self.context.commit(work, follow).await? {
                return Ok(());
            }
            tracing::info!(
                skill = %mount.skill, node = %mount.node, path = mount.path.as_str(), revision = n.0,
                state = standing.as_str(), repaired = was_repaired, "a mount was brought to its revision"
            );
        }
        let mut mounts = lock(&self.mounts);
        if mounts.rows.contains_key(&key) {
            mounts.said.insert(key, (standing, now));
        }
        Ok(())
    }
}

/// What is told of a mount.
fn told(kind: EventKind, mount: &Mount, now: WallTime) -> Event {
    Event::new(kind, now).node(mount.node).subject(mount.skill.as_str()).detail(mount.path.as_str())
}
