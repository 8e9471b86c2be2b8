//! The steps of waves. Each ends with what came of it as a command, or with why there is nothing to tell; it
//! may be done twice.

use std::sync::Arc;

use cortex_content::graph::TreeQuota;
use cortex_core::audit::AuditRow;
use cortex_core::files::content::TreeId;
use cortex_core::files::path::RelPath;
use cortex_core::limits::{TREE_DEPTH_MAX, TREE_ENTRIES_MAX};
use cortex_core::node::Node;
use cortex_core::sync::{DeleteLimits, Entry, RootState, Rule, Why};
use cortex_core::transfer::{ApplyAsk, Carry, SendAsk, TransferEnd, TransferWork};
use cortex_core::workspace::{
    Begun, Command, Complete, Member, Planning, Role, RootIdentity, Source, Step, Workspace, next,
};
use cortex_core::{Code, Refusal};
use cortex_store::StoredConflict;
use cortex_store::blobs::Pin;

use super::ask::filters;
use super::{Beside, Inner, lock, record};
use crate::mesh::Asked;
use crate::transfer::chunks::Chunks;
use crate::transfer::keep::{self, Content, Hold, Order};
use crate::transfer::{TransferStream, give, merge};

/// What a node has, as it says.
pub(super) struct Looked {
    /// The tree; of a source with what it could not read as it was agreed on.
    pub(super) tree: TreeId,
    /// What holds what came of it.
    pub(super) hold: Hold,
    /// What came: objects of the tree, or all.
    content: Content,
    /// Whether anything came: the tree may be known by its name alone.
    pub(super) has_objects: bool,
    /// Which folder it is, as far as the node tells.
    identity: Option<RootIdentity>,
}

/// What is wanted of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// What the next step for the member needs.
    Due,
    /// Objects of the tree.
    Objects,
    /// These, and short files that differ from what the workspace has.
    Short(u64),
}

impl Inner {
    /// The node looks at the folder; of a source it sends what the hub lacks of it.
    pub(super) async fn look(
        self: &Arc<Self>,
        ws: &Workspace,
        member: &Member,
        node: &Node,
    ) -> Result<(), Refusal> {
        let Some(looked) = self.looked(ws, member, node, Want::Due).await? else { return Ok(()) };
        self.observe(ws, member, looked.identity, looked.tree).await?;
        fail::fail_point!("waves::sent");
        if looked.content != Content::All || !looked.has_objects {
            return Ok(());
        }
        let Some((ws, member)) = self.row(member.id) else { return Ok(()) };
        if next(&ws, &member, true) != Step::Send {
            return Ok(());
        }
        let tree = looked.tree;
        let (hold, complete) = self
            .chunks
            .run(move |chunks| {
                let complete = chunks.complete(tree, looked.hold.pin())?;
                Ok((looked.hold, complete))
            })
            .await?;
        // What the workspace had of it was lost meanwhile.
        let complete = complete.ok_or_else(|| {
            Refusal::new(Code::Conflict, "Something of the tree is not there any more; it is sent again.")
        })?;
        let received = Command::Received { member: member.id, complete };
        let done = self.decide(ws.id, received).await;
        // Until here nothing but the pin held what came.
        drop(hold);
        done.map(drop)
    }

    /// Asks the node for the folder. `None` when that was told as it is: it is gone, or not there yet.
    pub(super) async fn looked(
        self: &Arc<Self>,
        ws: &Workspace,
        member: &Member,
        node: &Node,
        want: Want,
    ) -> Result<Option<Looked>, Refusal> {
        self.judge(node, &member.path, false)?;
        let _turn = self.transfers.turn(node.id).await;
        let (id, mut asking) = self.asking(node.id);
        let work = TransferWork::Send(Box::new(SendAsk {
            source: member.path.clone(),
            base: member.agreed,
            only: None,
            filters: filters(&ws.rules),
            checksum: false,
            mark: member.root.is_none(),
            identity: member.root,
        }));
        let stream = match self.ask((id, &asking), node, ws, work).await? {
            Asked::Stream(stream) => stream,
            Asked::Over(_) => return Err(strange()),
        };
        let judge = || self.judge(node, &member.path, false);
        asking.while_wanted(judge, self.read(ws, member, want, stream)).await
    }

    async fn read(
        self: &Arc<Self>,
        ws: &Workspace,
        member: &Member,
        want: Want,
        stream: TransferStream,
    ) -> Result<Option<Looked>, Refusal> {
        let TransferStream { sending, mut receiving } = stream;
        let told = keep::told(&mut receiving).await?;
        lock(&self.waves).leaves_out(member.id, told.left_out);
        let hold = match lock(&self.waves).holds.remove(&member.id) {
            Some(hold) => hold,
            None => Hold::new(&self.chunks)?,
        };
        if told.state != RootState::Dir {
            let end = TransferEnd::default();
            let _told = sending.send(Carry::End(Box::new(end))).await;
            return self.not_there(ws, member, told.state, hold).await;
        }
        let is_known = [member.agreed, Some(ws.tree)].contains(&Some(told.root));
        let content = match want {
            Want::Objects => Content::Nothing,
            Want::Short(bytes) => Content::Differing(bytes),
            Want::Due if member.role.is_source() && ws.lock.is_none() => Content::All,
            Want::Due => Content::Nothing,
        };
        let needs = match want {
            Want::Due if member.role.is_source() => !is_known || !self.is_whole(told.root).await?,
            Want::Due => false,
            Want::Objects | Want::Short(_) => true,
        };
        let (hold, held) = if needs {
            let mut scope = Vec::new();
            for tree in std::iter::once(ws.tree).chain(member.agreed.filter(|agreed| *agreed != ws.tree)) {
                // What the disk has spoilt counts as had by nobody.
                scope.extend(self.is_whole(tree).await?.then_some(tree));
            }
            let order = Order {
                root: told.root,
                quota: TreeQuota {
                    entries: u32::try_from(TREE_ENTRIES_MAX).unwrap_or(u32::MAX),
                    bytes: ws.bytes_max,
                    depth: TREE_DEPTH_MAX,
                },
                content,
                scope,
                is_repeated: matches!(want, Want::Due),
            };
            let kept = keep::receive(&self.chunks, order, hold, &sending, &mut receiving).await?;
            if let Err(refusal) = kept.result {
                lock(&self.waves).holds.insert(member.id, kept.came);
                sending.refuse(refusal.clone()).await;
                return Err(refusal);
            }
            (kept.came, kept.held)
        } else {
            (hold, keep::look(told.root, &sending, &mut receiving).await?)
        };
        let end = TransferEnd { root: Some(told.root), ..TransferEnd::default() };
        // One that is gone loses nothing by it.
        let _told = sending.send(Carry::End(Box::new(end))).await;
        let held: Vec<RelPath> = held.into_iter().map(|note| note.path).collect();
        let agreed = member.agreed.filter(|_| member.role.is_source());
        let has_objects = needs || is_known;
        let (hold, tree) = self
            .chunks
            .run(move |chunks| {
                let tree = if has_objects {
                    merge::with_held(chunks, told.root, &held, agreed, hold.pin())?
                } else {
                    told.root
                };
                Ok((hold, tree))
            })
            .await?;
        Ok(Some(Looked { tree, hold, content, has_objects, identity: told.identity }))
    }

    /// Whether all of a known tree is still there; what the disk has spoilt is sent again by whoever has it.
    async fn is_whole(&self, tree: TreeId) -> Result<bool, Refusal> {
        let complete = move |chunks: &Chunks| chunks.complete(tree, &chunks.pin()?);
        Ok(self.chunks.run(complete).await?.is_some())
    }

    /// A folder that is not there is empty for one that was never there, and gone for all others. That its
    /// emptiness was agreed on makes it no folder that was there.
    async fn not_there(
        self: &Arc<Self>,
        ws: &Workspace,
        member: &Member,
        state: RootState,
        hold: Hold,
    ) -> Result<Option<Looked>, Refusal> {
        let (hold, empty) = self
            .chunks
            .run(move |chunks| {
                let empty = merge::empty(chunks, hold.pin())?;
                Ok((hold, empty))
            })
            .await?;
        if state == RootState::Missing && was_never_there(member, empty) {
            return Ok(Some(Looked {
                tree: empty,
                hold,
                // Nothing is all that a source has there, and is taken over as that.
                content: Content::All,
                has_objects: true,
                identity: None,
            }));
        }
        let rule = match state {
            RootState::Missing | RootState::OtherKind => Rule::RootGone,
            RootState::Unavailable | RootState::Dir => Rule::RootUnavailable,
        };
        lock(&self.waves).saw(member.id, self.context.clock.wall());
        if member.unavailable != Some(rule) {
            self.decide(ws.id, Command::Unavailable { member: member.id, rule }).await?;
        }
        Ok(None)
    }

    /// The node says what is there. What is known already makes no row.
    pub(super) async fn observe(
        self: &Arc<Self>,
        ws: &Workspace,
        member: &Member,
        root: Option<RootIdentity>,
        tree: TreeId,
    ) -> Result<(), Refusal> {
        lock(&self.waves).saw(member.id, self.context.clock.wall());
        let is_other = member.root.zip(root).is_some_and(|(known, found)| !known.is(&found));
        let is_known = if is_other {
            member.unavailable == Some(Rule::RootUnavailable)
        } else {
            let is_seen = member.observed.is_some_and(|observed| observed.tree == tree);
            is_seen && member.unavailable.is_none() && member.root.or(root) == member.root
        };
        if is_known {
            return Ok(());
        }
        let command = Command::Observed { member: member.id, root, tree, news: member.news };
        self.decide(ws.id, command).await.map(drop)
    }

    /// The hub takes over what the member changed.
    pub(super) async fn merge(
        self: &Arc<Self>,
        ws: &Workspace,
        member: &Member,
        node: &Node,
        planning: Planning,
    ) -> Result<(), Refusal> {
        let name = node.name.to_string();
        let (pin, merged, complete, agreed) = self
            .chunks
            .run(move |chunks| {
                let pin = chunks.pin()?;
                let merged = merge::merge(chunks, &planning, &name, &pin)?;
                let (complete, agreed) = match &merged.plan.halt {
                    Some(_) => (None, None),
                    None => (Some(chunks.whole(merged.hub, &pin)?), Some(chunks.whole(merged.agreed, &pin)?)),
                };
                Ok((pin, merged, complete, agreed))
            })
            .await?;
        fail::fail_point!("waves::planned");
        let id = member.id;
        let step = self.step(ws, member, node, &planning);
        let done = match (merged.plan.halt, complete.zip(agreed)) {
            (Some(halt), _) => {
                let beside = Beside { audit: Some(step.halted(&halt)), ..Beside::default() };
                self.decide_with(ws.id, Command::Halt { member: id, planning, halt }, beside).await
            }
            (None, Some((_, agreed))) if merged.hub == planning.hub => {
                self.decide(ws.id, Command::Merged { member: id, planning, agreed }).await
            }
            (None, Some((complete, agreed))) => {
                let audit = step.merged(&merged.plan.counts);
                let conflicts: Vec<StoredConflict> = merged
                    .plan
                    .conflicts
                    .into_iter()
                    .map(|conflict| StoredConflict {
                        workspace: ws.id,
                        revision: planning.to,
                        member: id,
                        path: conflict.path,
                        copy: conflict.copy,
                        hub: conflict.hub.as_ref().and_then(file),
                        node: conflict.node.as_ref().and_then(file),
                        at: self.context.clock.wall(),
                    })
                    .collect();
                let count = conflicts.len() as u64;
                let source = Source::Member { id, planning: Box::new(planning), agreed, conflicts: count };
                let (by, note) = (format!("node:{}", node.name), String::new());
                let commit = Command::Commit { complete, expect: planning.to, source, by, note, lock: None };
                self.decide_with(ws.id, commit, Beside { conflicts, audit }).await
            }
            (None, None) => return Err(strange()),
        };
        fail::fail_point!("waves::committed");
        drop(pin);
        done.map(drop)
    }

    /// The node brings its folder to a revision.
    pub(super) async fn apply(
        self: &Arc<Self>,
        ws: &Workspace,
        member: &Member,
        node: &Node,
        planning: Planning,
    ) -> Result<(), Refusal> {
        self.judge(node, &member.path, true)?;
        let begun = Begun { revision: planning.to, tree: planning.hub };
        let again = member.begun == Some(begun);
        if !again {
            self.decide(ws.id, Command::Begin { member: member.id, planning }).await?;
        }
        fail::fail_point!("waves::planned");
        let empty = self.chunks.run(|chunks| merge::empty(chunks, &chunks.pin()?)).await?;
        let end = {
            let _turn = self.transfers.turn(node.id).await;
            let (id, mut asking) = self.asking(node.id);
            // A folder that both agreed is empty, since it was not there, is not missed but made.
            let base = planning.agreed.filter(|_| !was_never_there(member, empty));
            let work = TransferWork::Apply(Box::new(ApplyAsk {
                dest: member.path.clone(),
                target: planning.hub,
                base,
                only: None,
                mode: planning.mode,
                limits: DeleteLimits::default(),
                accepted: planning.accepted,
                filters: filters(&ws.rules),
                checksum: false,
                dry_run: false,
                read_only: false,
                node_name: node.name.to_string(),
                revision: planning.to,
                identity: member.root,
            }));
            match self.ask((id, &asking), node, ws, work).await? {
                Asked::Over(end) => end,
                Asked::Stream(stream) => {
                    let trees = std::iter::once(planning.hub).chain(planning.agreed).collect();
                    let judge = || self.judge(node, &member.path, true);
                    asking.while_wanted(judge, give::serve(&self.chunks, trees, stream, |_| ())).await?
                }
            }
        };
        fail::fail_point!("waves::ended");
        let step = self.step(ws, member, node, &planning);
        if let Some(halt) = end.halt {
            let audit = Some(step.halted(&halt));
            let command = Command::Halt { member: member.id, planning, halt };
            return self.decide_with(ws.id, command, Beside { audit, ..Beside::default() }).await.map(drop);
        }
        let audit = step.applied(&end.counts, again);
        let tree = match end.root {
            Some(root) if root == planning.hub => root,
            // What both sides agree on is found in what the node has.
            Some(_) | None => {
                let Some(looked) = self.looked(ws, member, node, Want::Objects).await? else { return Ok(()) };
                return self.settle(ws, member, planning, looked, (&end, audit)).await;
            }
        };
        let (pin, agreed) = self.proof(tree).await?;
        let done = self.applied(ws, member, planning, (tree, agreed), (0, audit)).await;
        drop(pin);
        done
    }

    /// A sync that left something as it is: what is the same on both sides is agreed on.
    async fn settle(
        self: &Arc<Self>,
        ws: &Workspace,
        member: &Member,
        planning: Planning,
        looked: Looked,
        (end, audit): (&TransferEnd, Option<AuditRow>),
    ) -> Result<(), Refusal> {
        let Looked { tree, hold, .. } = looked;
        let (hold, agreed) = self
            .chunks
            .run(move |chunks| {
                let agreed = merge::agreed(chunks, planning.hub, tree, planning.agreed, hold.pin())?;
                let agreed = chunks.whole(agreed, hold.pin())?;
                Ok((hold, agreed))
            })
            .await?;
        let held = end.counts.held.get(&Why::Conflict).copied().unwrap_or_default();
        // What a source changed as well is told by the merge that takes it over.
        let conflicts = if member.role == Role::Follower { end.counts.kept_both + held } else { 0 };
        let done = self.applied(ws, member, planning, (tree, agreed), (conflicts, audit)).await;
        drop(hold);
        done
    }

    async fn applied(
        self: &Arc<Self>,
        ws: &Workspace,
        member: &Member,
        planning: Planning,
        (tree, agreed): (TreeId, Complete),
        (conflicts, audit): (u64, Option<AuditRow>),
    ) -> Result<(), Refusal> {
        lock(&self.waves).saw(member.id, self.context.clock.wall());
        let command = Command::Applied { member: member.id, planning, tree, agreed, conflicts };
        let done = self.decide_with(ws.id, command, Beside { audit, ..Beside::default() }).await;
        fail::fail_point!("waves::committed");
        done.map(drop)
    }

    fn step<'s>(
        &self,
        ws: &'s Workspace,
        member: &'s Member,
        node: &'s Node,
        planning: &'s Planning,
    ) -> record::Step<'s> {
        record::Step { ws, member, node, planning, now: self.context.clock.wall() }
    }

    async fn proof(&self, tree: TreeId) -> Result<(Pin, Complete), Refusal> {
        let proof = move |chunks: &Chunks| {
            let pin = chunks.pin()?;
            let complete = chunks.whole(tree, &pin)?;
            Ok((pin, complete))
        };
        self.chunks.run(proof).await
    }
}

/// Whether nobody has ever seen a folder at the path of the member, nor agreed on anything in it.
fn was_never_there(member: &Member, empty: TreeId) -> bool {
    let is_nothing = member.agreed.is_none_or(|agreed| agreed == empty);
    member.root.is_none() && member.role.is_target() && is_nothing
}

const fn file(entry: &Entry) -> Option<cortex_core::files::content::ContentId> {
    match entry {
        Entry::File { id, .. } => Some(*id),
        Entry::Dir | Entry::Link { .. } => None,
    }
}

fn strange() -> Refusal {
    Refusal::new(Code::InvalidArgument, "The node said something that does not belong to this transfer.")
}
