//! A workspace while it is decided on: its new rows, and what is told of each change.

use std::collections::BTreeMap;

use super::super::{Complete, Member, MemberState, Mode, RevisionKind, RevisionRow, Step, Workspace};
use super::{Command, Decided, Source};
use crate::error::{Code, Refusal};
use crate::event::{Event, EventKind};
use crate::id::{LockEpoch, MemberId, Revision};
use crate::limits::{REVISION_NOTE_BYTES_MAX, TREE_ENTRIES_MAX};
use crate::name::{Name, printable};
use crate::time::WallTime;

/// A workspace that is being decided on.
pub(super) struct Draft<'a> {
    before: &'a Workspace,
    /// As they were.
    pub(super) members: &'a [Member],
    pub(super) ws: Workspace,
    /// As they are to be, those that change.
    pub(super) changed: BTreeMap<MemberId, Member>,
    pub(super) gone: Vec<MemberId>,
    revision: Option<RevisionRow>,
    pub(super) events: Vec<Event>,
    pub(super) now: WallTime,
}

impl<'a> Draft<'a> {
    pub(super) fn new(before: &'a Workspace, members: &'a [Member], now: WallTime) -> Self {
        Self {
            before,
            members,
            ws: before.clone(),
            changed: BTreeMap::new(),
            gone: Vec::new(),
            revision: None,
            events: Vec::new(),
            now,
        }
    }

    pub(super) fn apply(&mut self, command: Command) -> Result<(), Refusal> {
        match command {
            Command::Commit { complete, expect, source, by, note, lock } => {
                self.commit(&complete, expect, source, by, note, lock)
            }
            Command::Restore { of, complete, by, lock } => self.restore(&of, &complete, by, lock),
            Command::Change { rules, bytes_max, by, lock } => self.change(rules, bytes_max, &by, lock),
            Command::Attach { id, node, path, role, by } => self.attach(id, node, path, role, &by),
            Command::Detach { member, by } => self.detach(member, &by),
            Command::Observed { member, root, tree, news } => self.observed(member, root, (tree, news)),
            Command::Unavailable { member, rule } => self.unavailable(member, rule),
            Command::Received { member, complete } => self.received(member, &complete),
            Command::Halt { member, planning, halt } => self.halt(member, &planning, halt),
            Command::Merged { member, planning, agreed } => self.merged(member, &planning, &agreed),
            Command::Settled { member, planning, agreed } => self.settled(member, &planning, &agreed),
            Command::Begin { member, planning } => self.begin(member, &planning),
            Command::Applied { member, planning, tree, agreed, conflicts } => {
                self.applied(member, &planning, tree, &agreed, conflicts)
            }
            Command::Accept { member, halt, by } => self.accept(member, halt, &by),
            Command::Resync { member, repair, by } => self.resync(member, repair, &by),
            Command::Lock { holder, ttl_ms } => self.lock(holder, ttl_ms),
            Command::Extend { epoch } => self.extend(epoch),
            Command::Unlock { epoch } => self.unlock(epoch),
            Command::BreakLock { by } => self.break_lock(&by),
            Command::Expire { epoch } => self.expire(epoch),
            Command::Remove { by, lock } => self.remove(&by, lock),
        }
    }

    fn commit(
        &mut self,
        complete: &Complete,
        expect: Revision,
        source: Source,
        by: String,
        note: String,
        lock: Option<LockEpoch>,
    ) -> Result<(), Refusal> {
        let (kind, from) = match source {
            Source::Edit => (RevisionKind::Edit, None),
            Source::Import => (RevisionKind::Import, None),
            Source::Member { id, planning, agreed, conflicts } => {
                let member = self.source(id)?;
                let is_accepted = member.accepted.is_some();
                let kind = if is_accepted { RevisionKind::Resync } else { RevisionKind::Sync };
                (kind, Some((member, planning, agreed, conflicts)))
            }
        };
        if from.is_none() {
            self.must_be_hubs()?;
        }
        self.ws.check_lock(lock)?;
        self.must_be_head(expect)?;
        self.check_size(complete)?;
        if note.len() > REVISION_NOTE_BYTES_MAX {
            let message = format!("The note on a revision has at most {REVISION_NOTE_BYTES_MAX} bytes.");
            return Err(Refusal::new(Code::TooLarge, message));
        }
        let Some((mut member, planning, agreed, conflicts)) = from else {
            self.put_head(complete, kind, None, by, note);
            return Ok(());
        };
        self.must_be_next(&member, &Step::Merge(*planning))?;
        self.count_conflicts(&mut member, conflicts);
        let id = member.id;
        self.put(member);
        self.put_head(complete, kind, Some(id), by, note);
        self.take_over(id, &planning, &agreed)
    }

    fn restore(
        &mut self,
        of: &RevisionRow,
        complete: &Complete,
        by: String,
        lock: Option<LockEpoch>,
    ) -> Result<(), Refusal> {
        self.must_be_hubs()?;
        self.ws.check_lock(lock)?;
        if of.workspace != self.ws.id || of.n > self.ws.head || of.tree != complete.tree() {
            let message = format!("Workspace {} has no such revision {}.", self.ws.name, of.n);
            return Err(Refusal::new(Code::NotFound, message)
                .hint("List the revisions with `cortex workspace history NAME` and use one of those."));
        }
        self.check_size(complete)?;
        self.put_head(complete, RevisionKind::Restore, None, by, format!("revision {}", of.n));
        Ok(())
    }

    /// The tree becomes the head, and each member should be there. A tree that is the head already makes
    /// no revision: it would say that something changed.
    pub(super) fn put_head(
        &mut self,
        complete: &Complete,
        kind: RevisionKind,
        member: Option<MemberId>,
        by: String,
        note: String,
    ) {
        let is_first = self.ws.head == Revision(0);
        if !is_first && self.ws.tree == complete.tree() {
            return;
        }
        let n = self.ws.head.next();
        let row = RevisionRow {
            workspace: self.ws.id,
            n,
            tree: complete.tree(),
            parent: (!is_first).then_some(self.ws.head),
            kind,
            member,
            by,
            at: self.now,
            files: complete.files(),
            bytes: complete.bytes(),
            note,
        };
        (self.ws.head, self.ws.tree) = (n, row.tree);
        self.tell(EventKind::WorkspaceRevision, Some(&row.by), Some(format!("{n} {}", kind.as_str())));
        self.revision = Some(row);
        self.change_all(|member| member.intent = n);
    }

    pub(super) fn check_size(&self, complete: &Complete) -> Result<(), Refusal> {
        check_size(&self.ws.name, self.ws.bytes_max, (complete.files(), complete.bytes()))
    }

    /// The member that a commit comes from.
    fn source(&self, id: MemberId) -> Result<Member, Refusal> {
        let member = self.member(id)?;
        if !member.role.is_source() {
            let message = format!("A {} never changes workspace {}.", member.role.as_str(), self.ws.name);
            return Err(Refusal::new(Code::InvalidArgument, message)
                .hint("Write through the hub or to a member that is a source."));
        }
        if let Some(halt) = &member.halt {
            return Err(halted(&member, halt.id));
        }
        if member.unavailable.is_some() {
            let message = format!("The folder {} cannot be looked at.", path(&member));
            return Err(Refusal::new(Code::Conflict, message)
                .hint("Look at the folder on its node; bring it back, or detach the member."));
        }
        Ok(member)
    }

    fn must_be_hubs(&self) -> Result<(), Refusal> {
        match self.ws.mode {
            Mode::HubPrimary => Ok(()),
            Mode::NodePrimary => {
                let message = format!("Workspace {} is changed by its lead and nobody else.", self.ws.name);
                Err(Refusal::new(Code::InvalidArgument, message)
                    .hint("Write to the lead's folder with `cortex fs` or `cortex push`."))
            }
        }
    }

    fn must_be_head(&self, expect: Revision) -> Result<(), Refusal> {
        if expect == self.ws.head {
            return Ok(());
        }
        let message = format!("Workspace {} is at revision {}, not at {expect}.", self.ws.name, self.ws.head);
        Err(Refusal::new(Code::Conflict, message)
            .hint("Read the present state and decide again.")
            .detail("head", self.ws.head.to_string()))
    }

    /// A member as it is to be.
    pub(super) fn member(&self, id: MemberId) -> Result<Member, Refusal> {
        let known = self.changed.get(&id).or_else(|| self.members.iter().find(|member| member.id == id));
        known.cloned().ok_or_else(|| {
            let message = format!("Workspace {} has no member {id}.", self.ws.name);
            Refusal::new(Code::NotFound, message)
                .hint("List the members with `cortex workspace status NAME` and use one of those.")
        })
    }

    pub(super) fn put(&mut self, member: Member) {
        self.changed.insert(member.id, member);
    }

    pub(super) fn change_all(&mut self, change: impl Fn(&mut Member)) {
        for before in self.members {
            change(self.changed.entry(before.id).or_insert_with(|| before.clone()));
        }
    }

    pub(super) fn count_conflicts(&mut self, member: &mut Member, conflicts: u64) {
        if conflicts > 0 {
            member.conflicts = member.conflicts.saturating_add(conflicts);
            self.tell_of(EventKind::SyncConflict, member, None, &conflicts.to_string());
        }
    }

    pub(super) fn tell(&mut self, kind: EventKind, actor: Option<&str>, detail: Option<String>) {
        let mut event = Event::new(kind, self.now).subject(self.ws.name.as_str());
        (event.actor, event.detail) = (actor.map(str::to_owned), detail);
        self.events.push(event);
    }

    /// Tells something of a member.
    pub(super) fn tell_of(&mut self, kind: EventKind, member: &Member, actor: Option<&str>, more: &str) {
        let event = Event::new(kind, self.now).node(member.node).subject(self.ws.name.as_str());
        let detail = if more.is_empty() { path(member) } else { format!("{} {more}", path(member)) };
        self.events.push(Event { actor: actor.map(str::to_owned), ..event.detail(detail) });
    }

    pub(super) fn decided(mut self) -> Decided {
        self.follow();
        let before: BTreeMap<MemberId, &Member> =
            self.members.iter().map(|member| (member.id, member)).collect();
        let mut members: Vec<Member> = self.changed.into_values().collect();
        members.retain(|member| {
            before.get(&member.id).is_none_or(|before| *before != member) && !self.gone.contains(&member.id)
        });
        Decided { ws: self.ws, members, gone: self.gone, revision: self.revision, events: self.events }
    }

    /// What follows for each member from the new rows, and what is told of its state.
    fn follow(&mut self) {
        if self.ws.removed_at.is_some() {
            return;
        }
        let is_moved = self.ws.head != self.before.head || self.ws.lock != self.before.lock;
        for before in self.members {
            if self.gone.contains(&before.id) || (!is_moved && !self.changed.contains_key(&before.id)) {
                continue;
            }
            let mut member = self.changed.get(&before.id).unwrap_or(before).clone();
            let was = before.state(self.before);
            let is = member.state(&self.ws);
            if matches!(is, MemberState::InSync | MemberState::Conflict) && member.has_its_revision(&self.ws)
            {
                // Both sides are alike, whoever made them so.
                member.agreed = Some(self.ws.tree);
                member.reached = self.ws.head;
                (member.received, member.merged, member.begun) = (None, None, None);
                (member.settled, member.accepted, member.repair) = (None, None, false);
                if member.drift_since.take().is_some() {
                    self.tell_of(EventKind::DriftCleared, &member, None, "");
                }
            }
            if is == MemberState::Drifted && member.drift_since.is_none() {
                member.drift_since = Some(self.now);
                self.tell_of(EventKind::DriftFound, &member, None, "");
            }
            let is_told = is == MemberState::InSync
                || [is, was].contains(&MemberState::Unavailable)
                || was == MemberState::Halted;
            if is != was && is_told && is != MemberState::Halted {
                self.tell_of(EventKind::MemberState, &member, None, is.as_str());
            }
            if member != *before {
                self.changed.insert(member.id, member);
            }
        }
    }
}

/// Refuses a tree of more entries or bytes than a workspace takes.
pub(super) fn check_size(name: &Name, bytes_max: u64, (entries, bytes): (u64, u64)) -> Result<(), Refusal> {
    if entries > TREE_ENTRIES_MAX {
        let message = format!("A tree has at most {TREE_ENTRIES_MAX} entries.");
        return Err(Refusal::new(Code::TooLarge, message)
            .hint("Use several workspaces, or leave folders out with `.cortexignore`."));
    }
    if bytes > bytes_max {
        let message = format!("The tree has {bytes} bytes; workspace {name} takes {bytes_max}.");
        return Err(Refusal::new(Code::Quota, message)
            .hint("Ask an administrator to raise the bound, or leave folders out with `.cortexignore`."));
    }
    Ok(())
}

/// The folder of a member, for messages.
pub(super) fn path(member: &Member) -> String {
    printable(member.path.as_str(), 200)
}

/// The refusal of what a halted member may not.
pub(super) fn halted(member: &Member, halt: crate::sync::HaltId) -> Refusal {
    let message = format!("The sync of {} is halted by a safety rule.", path(member));
    Refusal::new(Code::SyncHalted, message).detail("halt", halt.to_string())
}
