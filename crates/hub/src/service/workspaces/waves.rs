//! The worker that makes members what their rows say they are to be. All it knows beside rows is who is at it,
//! when to look again, and what came of transfers that broke: a hub that ends in the middle goes on from rows.
//!
//! Nobody tells the hub yet that a folder changed: folders are looked at every [`SOURCE_EVERY`] and
//! [`FOLLOWER_EVERY`], and when their node comes.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use cortex_core::id::{Epoch, MemberId, NodeId};
use cortex_core::limits::TRANSFERS_RUNNING_MAX;
use cortex_core::time::WallTime;
use cortex_core::workspace::{Command, Member, Role, Step, Workspace, next};
use cortex_core::{Code, Refusal};
use futures::FutureExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Inner, Workspaces, lock};
use crate::transfer::keep::Hold;

/// Between two looks at the folder of a source.
pub const SOURCE_EVERY: Duration = Duration::from_secs(10);
/// Between two looks at the folder of a follower.
pub const FOLLOWER_EVERY: Duration = Duration::from_secs(60);
/// Between two looks at what there is to do, when nobody says that there is something.
const TICK: Duration = Duration::from_millis(500);
/// The first and the longest pause after a step that failed.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));
/// The pause before a step that is planned anew: a node may be at the end of the transfer before.
const ANEW: Duration = Duration::from_millis(20);
/// Steps for one member before others have their turn.
const STEPS_MAX: usize = 32;

/// What only the worker knows.
#[derive(Default)]
pub(super) struct Waves {
    running: BTreeSet<MemberId>,
    /// When a folder is to be looked at again.
    due: BTreeMap<MemberId, Instant>,
    trouble: BTreeMap<MemberId, Trouble>,
    /// The link by which a node was last seen.
    links: BTreeMap<NodeId, Option<Epoch>>,
    seen: BTreeMap<MemberId, WallTime>,
    /// What came of transfers that broke.
    pub(super) holds: BTreeMap<MemberId, Hold>,
    /// Who had a turn last.
    last: Option<MemberId>,
}

struct Trouble {
    refusal: Refusal,
    pause: Duration,
    until: Instant,
}

impl Waves {
    pub(super) fn seen_at(&self, member: MemberId) -> Option<WallTime> {
        self.seen.get(&member).copied()
    }

    pub(super) fn saw(&mut self, member: MemberId, now: WallTime) {
        self.seen.insert(member, now);
    }

    pub(super) fn trouble(&self, member: MemberId) -> Option<Refusal> {
        self.trouble.get(&member).map(|trouble| trouble.refusal.clone())
    }

    fn forget_all_but(&mut self, members: &BTreeSet<MemberId>) {
        self.due.retain(|member, _| members.contains(member));
        self.trouble.retain(|member, _| members.contains(member));
        self.seen.retain(|member, _| members.contains(member));
        self.holds.retain(|member, _| members.contains(member));
    }
}

impl Workspaces {
    /// Works until the hub stops.
    ///
    /// # Errors
    /// None; it is tried again.
    pub async fn run_waves(&self, shutdown: CancellationToken) -> Result<(), Refusal> {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => {
                    self.0.stop.cancel();
                    return Ok(());
                }
                () = self.0.wake.notified() => {}
                () = tokio::time::sleep(TICK) => {}
            }
            self.0.expire().await;
            self.0.begin_due();
        }
    }

    /// Members that somebody works on.
    pub fn busy(&self) -> usize {
        lock(&self.0.waves).running.len()
    }

    /// Looks at all folders at the next turn.
    pub fn look_at_all(&self) {
        lock(&self.0.waves).due.clear();
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

    /// Begins with those for whom there is something to do.
    fn begin_due(self: &Arc<Self>) {
        let rows: Vec<(Workspace, Member)> =
            self.roster().all().map(|(ws, member)| (ws.clone(), member.clone())).collect();
        let now = Instant::now();
        let mut begun = Vec::new();
        {
            let mut waves = lock(&self.waves);
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
                if link.is_some() && before.get(&member.node).copied().flatten() != link {
                    // What it did while it was away, nobody saw.
                    waves.due.remove(&member.id);
                    waves.trouble.remove(&member.id);
                }
                let is_late = waves.trouble.get(&member.id).is_some_and(|trouble| trouble.until > now);
                if waves.running.len() >= TRANSFERS_RUNNING_MAX {
                    // Whoever ends wakes this up; the others keep what they are due.
                    continue;
                }
                if waves.running.contains(&member.id) || is_late {
                    continue;
                }
                let looks = link.is_some() && waves.due.get(&member.id).is_none_or(|due| *due <= now);
                let acts = match next(ws, member, link.is_some()) {
                    Step::Scan | Step::Send | Step::Merge(_) | Step::Apply(_) => true,
                    Step::Nothing | Step::Wait(_) | Step::Stopped(_) => false,
                };
                if looks || acts {
                    waves.running.insert(member.id);
                    waves.last = Some(member.id);
                    begun.push((member.id, member.role, looks));
                }
            }
        }
        for (member, role, looks) in begun {
            let inner = Arc::clone(self);
            drop(self.mesh.spawn(inner.work(member, role, looks)));
        }
    }

    async fn work(self: Arc<Self>, member: MemberId, role: Role, looks: bool) {
        let stopped = self.stop.clone();
        let driven = AssertUnwindSafe(self.drive(member, looks)).catch_unwind();
        let ended = tokio::select! {
            ended = driven => ended.unwrap_or_else(|_panic| {
                Err(Refusal::new(Code::Internal, "A step of a sync met a defect of the hub."))
            }),
            () = stopped.cancelled() => Ok(()),
        };
        let now = Instant::now();
        let mut waves = lock(&self.waves);
        waves.running.remove(&member);
        match ended {
            Ok(()) => {
                waves.trouble.remove(&member);
                let every = if role.is_source() { SOURCE_EVERY } else { FOLLOWER_EVERY };
                waves.due.insert(member, now + every);
            }
            Err(refusal) => {
                tracing::debug!(%member, code = %refusal.code, reason = %refusal.message, "a step of a sync failed");
                let before = waves.trouble.get(&member).map(|trouble| trouble.pause);
                let pause = before.map_or(RETRY.0, |pause| (pause * 2).min(RETRY.1));
                waves.trouble.insert(member, Trouble { refusal, pause, until: now + pause });
            }
        }
        drop(waves);
        self.wake.notify_one();
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
