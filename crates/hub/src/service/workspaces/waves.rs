//! The worker that makes members what their rows say they are to be. All it knows beside rows is who is at it,
//! when to look again, and what came of transfers that broke: a hub that ends in the middle goes on from rows.
//!
//! A folder is looked at when its node comes, when its node tells that it changed, and by time: every
//! [`SOURCE_EVERY_MS`] and [`FOLLOWER_EVERY_MS`] where changes are not told, else every
//! [`LOOK_WATCHED_MS`](cortex_core::limits::LOOK_WATCHED_MS).

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use cortex_core::id::{Epoch, MemberId, NodeId};
use cortex_core::limits::TRANSFERS_RUNNING_MAX;
use cortex_core::time::{Timestamp, WallTime};
use cortex_core::transfer::LeftOut;
use cortex_core::workspace::{Command, Member, Role, Step, Workspace, next};
use cortex_core::{Code, Refusal};
use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;

use super::ask::filters;
use super::{Inner, Watching, Workspaces, lock};
use crate::service::watching::sleep_until;
use crate::transfer::chunks::{self, Chunks};
use crate::transfer::keep::Hold;

/// Between two looks at the folder of a source whose node does not tell of changes, milliseconds.
pub const SOURCE_EVERY_MS: u64 = 10_000;
/// The same of a follower.
pub const FOLLOWER_EVERY_MS: u64 = 60_000;
/// What happens within this time is taken in together.
const MOMENT: Duration = Duration::from_millis(10);
/// The first and the longest pause after a step that failed, milliseconds.
const RETRY_MS: (u64, u64) = (200, 60_000);
/// The pause before a step that is planned anew: a node may be at the end of the transfer before.
const ANEW: Duration = Duration::from_millis(20);
/// Bytes of the chunk store that are read after a step that met a defect of it.
const MEND_BYTES: u64 = 16 * 1024 * 1024;
/// Steps for one member before others have their turn.
const STEPS_MAX: usize = 32;

/// What only the worker knows.
#[derive(Default)]
pub(super) struct Waves {
    running: BTreeSet<MemberId>,
    /// When folders are looked at, and who tells of changes.
    folders: BTreeMap<MemberId, Watching>,
    trouble: BTreeMap<MemberId, Trouble>,
    /// The link by which a node was last seen.
    links: BTreeMap<NodeId, Option<Epoch>>,
    seen: BTreeMap<MemberId, WallTime>,
    /// Of folders that have something that no tree has.
    left_out: BTreeMap<MemberId, LeftOut>,
    /// What came of transfers that broke.
    pub(super) holds: BTreeMap<MemberId, Hold>,
    /// Who had a turn last.
    last: Option<MemberId>,
}

struct Trouble {
    refusal: Refusal,
    pause_ms: u64,
    until: Timestamp,
}

impl Waves {
    pub(super) fn seen_at(&self, member: MemberId) -> Option<WallTime> {
        self.seen.get(&member).copied()
    }

    pub(super) fn saw(&mut self, member: MemberId, now: WallTime) {
        self.seen.insert(member, now);
    }

    pub(super) fn left_out(&self, member: MemberId) -> LeftOut {
        self.left_out.get(&member).copied().unwrap_or_default()
    }

    pub(super) fn leaves_out(&mut self, member: MemberId, left_out: LeftOut) {
        if left_out == LeftOut::default() {
            self.left_out.remove(&member);
        } else {
            self.left_out.insert(member, left_out);
        }
    }

    pub(super) fn trouble(&self, member: MemberId) -> Option<Refusal> {
        self.trouble.get(&member).map(|trouble| trouble.refusal.clone())
    }

    pub(super) fn folder(&self, member: MemberId) -> Option<&Watching> {
        self.folders.get(&member)
    }

    fn forget_all_but(&mut self, members: &BTreeSet<MemberId>) {
        self.folders.retain(|member, _| members.contains(member));
        self.trouble.retain(|member, _| members.contains(member));
        self.seen.retain(|member, _| members.contains(member));
        self.left_out.retain(|member, _| members.contains(member));
        self.holds.retain(|member, _| members.contains(member));
    }
}

impl Workspaces {
    /// Works until the hub stops.
    ///
    /// # Errors
    /// None; it is tried again.
    pub async fn run_waves(&self, shutdown: CancellationToken) -> Result<(), Refusal> {
        let mut presence = self.0.mesh.presence_changes();
        loop {
            self.0.expire().await;
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

    /// Members that somebody works on.
    pub fn busy(&self) -> usize {
        lock(&self.0.waves).running.len()
    }

    /// Looks at all folders at the next turn.
    pub fn look_at_all(&self) {
        lock(&self.0.waves).folders.values_mut().for_each(|folder| folder.looks.want());
        self.0.wake.notify_one();
    }
}

impl Inner {
    /// Locks whose time is over end.
    async fn expire(self: &Arc<Self>) {
        loop {
            let ended = self.context.directory.folders().leases().poll_ended(self.context.clock.now());
            let Some((ws, epoch)) = ended else { return };
            if let Err(refusal) = self.decide(ws, Command::Expire { epoch }).await {
                if refusal.code == Code::StoreUnavailable {
                    // It is told again.
                    return;
                }
                self.context.directory.folders().leases().ended(ws, epoch);
            }
        }
    }

    /// Begins with those for whom there is something to do. When there may be more, unless something happens.
    fn begin_due(self: &Arc<Self>) -> Option<Timestamp> {
        let rows: Vec<(Workspace, Member)> =
            self.roster().all().map(|(ws, member)| (ws.clone(), member.clone())).collect();
        let now = self.context.clock.now();
        let (mut begun, mut due) = (Vec::new(), Vec::new());
        {
            let mut waves = lock(&self.waves);
            let waves = &mut *waves;
            waves.forget_all_but(&rows.iter().map(|(_, member)| member.id).collect());
            let nodes: BTreeSet<NodeId> = rows.iter().map(|(_, member)| member.node).collect();
            let links: BTreeMap<NodeId, Option<Epoch>> = nodes
                .into_iter()
                .map(|node| (node, self.mesh.presence(node).map(|presence| presence.epoch)))
                .collect();
            let before = std::mem::replace(&mut waves.links, links.clone());
            // Nobody is passed over for good because others come first.
            let turn = waves.last.map_or(0, |last| rows.partition_point(|(_, member)| member.id <= last));
            for (ws, member) in rows[turn..].iter().chain(&rows[..turn]) {
                let link = links.get(&member.node).copied().flatten();
                let folder = waves.folders.entry(member.id).or_default();
                if before.get(&member.node).copied().flatten() != link {
                    // What it did while it was away, nobody saw.
                    folder.link_changed();
                    waves.trouble.remove(&member.id);
                }
                folder.hear(now);
                // Before anybody has looked it may not be there.
                if link.is_some() && (member.root.is_some() || member.agreed.is_some()) {
                    folder.ask(&filters(&ws.rules), now, |filters| {
                        self.mesh.watch(member.node, member.path.clone(), filters, &self.wake)
                    });
                    due.extend(folder.again());
                }
                if waves.running.len() >= TRANSFERS_RUNNING_MAX || waves.running.contains(&member.id) {
                    // Whoever ends wakes this up; the others keep what they are due.
                    continue;
                }
                if let Some(trouble) = waves.trouble.get(&member.id).filter(|trouble| trouble.until > now) {
                    due.push(trouble.until);
                    continue;
                }
                let look_at = folder.due(every_ms(member.role));
                let looks = link.is_some() && look_at <= now;
                let acts = match next(ws, member, link.is_some()) {
                    Step::Scan | Step::Send | Step::Merge(_) | Step::Apply(_) => true,
                    Step::Nothing | Step::Wait(_) | Step::Stopped(_) => false,
                };
                if looks {
                    folder.looks.begun();
                } else if link.is_some() {
                    due.push(look_at);
                }
                if looks || acts {
                    waves.running.insert(member.id);
                    waves.last = Some(member.id);
                    begun.push((member.id, looks));
                }
            }
        }
        for (member, looks) in begun {
            let inner = Arc::clone(self);
            drop(self.mesh.spawn(inner.work(member, looks)));
        }
        let lock_ends = self.context.directory.folders().leases().poll_timeout().map(|(at, _)| at);
        due.into_iter().chain(lock_ends).min()
    }

    async fn work(self: Arc<Self>, member: MemberId, looks: bool) {
        let stopped = self.stop.clone();
        let driven = AssertUnwindSafe(self.drive(member, looks)).catch_unwind();
        let ended = tokio::select! {
            ended = driven => ended.unwrap_or_else(|_panic| {
                Err(Refusal::new(Code::Internal, "A step of a sync met a defect of the hub."))
            }),
            () = stopped.cancelled() => Ok(()),
        };
        if ended.as_ref().is_err_and(|refusal| refusal.code == Code::Internal) {
            self.mend().await;
        }
        let now = self.context.clock.now();
        let mut waves = lock(&self.waves);
        waves.running.remove(&member);
        if let Some(folder) = waves.folders.get_mut(&member) {
            folder.looks.ended(now);
            if ended.is_err() {
                // What was to be seen may not have been.
                folder.looks.want();
            }
        }
        match ended {
            Ok(()) => {
                waves.trouble.remove(&member);
            }
            Err(refusal) => {
                tracing::debug!(%member, code = %refusal.code, reason = %refusal.message, "a step of a sync failed");
                let before = waves.trouble.get(&member).map(|trouble| trouble.pause_ms);
                let pause_ms = before.map_or(RETRY_MS.0, |pause| (pause * 2).min(RETRY_MS.1));
                let until = now.plus_ms(pause_ms);
                waves.trouble.insert(member, Trouble { refusal, pause_ms, until });
            }
        }
        drop(waves);
        self.wake.notify_one();
    }

    /// What a step met that the disk has spoilt is set aside at once, and all folders are looked at: a source
    /// sends again what is not there.
    async fn mend(self: &Arc<Self>) {
        let scrub = |chunks: &Chunks| chunks.blobs().scrub(MEND_BYTES).map_err(chunks::refusal);
        let scrubbed = self.chunks.run(scrub).await;
        if scrubbed.is_ok_and(|scrubbed| !scrubbed.damaged.is_empty()) {
            lock(&self.waves).folders.values_mut().for_each(|folder| folder.looks.want());
        }
    }

    /// Does what there is to do for a member, step by step.
    async fn drive(self: &Arc<Self>, member: MemberId, mut looks: bool) -> Result<(), Refusal> {
        for _ in 0..STEPS_MAX {
            let Some((ws, member)) = self.row(member) else { return Ok(()) };
            let node = self.node(&member)?;
            let online = self.mesh.presence(node.id).is_some();
            let done = match next(&ws, &member, online) {
                Step::Scan | Step::Send => {
                    looks = false;
                    self.look(&ws, &member, &node).await
                }
                Step::Merge(planning) => self.merge(&ws, &member, &node, planning).await,
                Step::Apply(_) if looks => {
                    // A plan of what was seen long ago would be told to be outdated.
                    looks = false;
                    self.look(&ws, &member, &node).await
                }
                Step::Apply(planning) => {
                    // Of a folder that was made by it nobody has told which one it is.
                    looks |= member.root.is_none();
                    self.apply(&ws, &member, &node, planning).await
                }
                Step::Nothing | Step::Wait(_) if looks && online => {
                    looks = false;
                    self.look(&ws, &member, &node).await
                }
                Step::Nothing | Step::Wait(_) | Step::Stopped(_) => return Ok(()),
            };
            match done {
                Ok(()) => {}
                // The rows have changed since: what is to be done is another thing.
                Err(refusal) if refusal.code == Code::Conflict => {
                    tracing::debug!(member = %member.id, reason = %refusal.message, "a step is planned anew");
                    tokio::time::sleep(ANEW).await;
                }
                Err(refusal) => return Err(refusal),
            }
        }
        Err(Refusal::new(
            Code::Conflict,
            "The folder or the workspace does not come to rest; it is tried again.",
        ))
    }
}

/// Between two looks at a folder whose node does not tell of changes.
const fn every_ms(role: Role) -> u64 {
    if role.is_source() { SOURCE_EVERY_MS } else { FOLLOWER_EVERY_MS }
}
