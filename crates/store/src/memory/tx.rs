//! Writing the maps, with a log of what was there before.

use std::collections::VecDeque;

use cortex_core::audit::AuditRow;
use cortex_core::consent::{Consent, ConsentRule};
use cortex_core::event::Event;
use cortex_core::files::entity::FileTask;
use cortex_core::id::{
    ConsentId, Epoch, GrantId, InviteId, LockId, NodeId, OpId, RunId, Seq, TokenId, UserId,
};
use cortex_core::invite::Invite;
use cortex_core::limits::POLICY_REVISIONS_KEPT;
use cortex_core::lock::Lock;
use cortex_core::name::Name;
use cortex_core::node::{AuditHead, Node};
use cortex_core::run::Run;
use cortex_core::time::WallTime;
use cortex_core::token::{Token, TokenKind};
use cortex_core::user::{RoleGrant, User};

use super::pool::{Pool, PoolChange};
use super::read::Held;
use super::state::{State, run_key, set};
use super::sync::SyncChange;
use crate::chain::{CHAIN_START, chain_hash};
use crate::{
    AfterFn, LoggedAudit, LoggedEvent, StoreError, StoredPolicy, StoredProfile, Tx, WriteError, conflict,
};

/// What a transaction has done so far.
#[derive(Default)]
pub(super) struct Undo {
    /// What to set again, last first.
    changes: Vec<Change>,
    /// The events that it appended, trimmed since or not.
    pub(super) events: Vec<LoggedEvent>,
    /// What is to be called once it is committed.
    pub(super) after: Vec<AfterFn>,
}

enum Change {
    Node(NodeId, Option<Node>),
    Invite(InviteId, Option<Invite>),
    Token(TokenId, Option<Token>),
    User(UserId, Option<User>),
    Grant(GrantId, Option<RoleGrant>),
    Lock(LockId, Option<Lock>),
    Consent(ConsentId, Option<Consent>),
    ConsentRule(ConsentId, Option<ConsentRule>),
    Policies(NodeId, Option<Vec<StoredPolicy>>),
    Profile(Name, Option<StoredProfile>),
    Run(RunId, Option<Run>),
    EventAppended,
    EventsTrimmed(VecDeque<Event>),
    AuditAppended,
    Pool(PoolChange),
    FileOp(OpId, Option<FileTask>),
    Sync(SyncChange),
}

pub(super) type Writing<'s> = Held<&'s mut State, Undo>;

impl Writing<'_> {
    /// Undoes all of the transaction.
    pub(super) fn roll_back(&mut self) {
        while let Some(change) = self.undo.changes.pop() {
            revert(self.state, change);
        }
    }

    fn note(&mut self, change: Change) {
        self.undo.changes.push(change);
    }

    /// Sets or removes an operation on files.
    pub(super) fn set_file_op(&mut self, id: OpId, task: Option<FileTask>) {
        let old = self.state.file_ops.set(id, task);
        self.note(Change::FileOp(id, old));
    }

    /// Makes a change of workspaces, skills or transfers.
    pub(super) fn set_sync(&mut self, change: SyncChange) {
        let old = self.state.sync.set(change);
        self.note(Change::Sync(old));
    }

    /// The pool, and where its changes are noted.
    pub(super) fn pool(&mut self) -> (&mut Pool, impl FnMut(PoolChange)) {
        let changes = &mut self.undo.changes;
        (&mut self.state.pool, |change| changes.push(Change::Pool(change)))
    }
}

fn revert(state: &mut State, change: Change) {
    match change {
        Change::Node(id, old) => drop(state.set_node(id, old)),
        Change::Invite(id, old) => drop(set(&mut state.invites, id, old)),
        Change::Token(id, old) => drop(state.set_token(id, old)),
        Change::User(id, old) => drop(state.set_user(id, old)),
        Change::Grant(id, old) => drop(set(&mut state.grants, id, old)),
        Change::Lock(id, old) => drop(set(&mut state.locks, id, old)),
        Change::Consent(id, old) => drop(set(&mut state.consents, id, old)),
        Change::ConsentRule(id, old) => drop(set(&mut state.consent_rules, id, old)),
        Change::Policies(id, old) => drop(set(&mut state.policies, id, old)),
        Change::Profile(name, old) => drop(set(&mut state.profiles, name, old)),
        Change::Run(id, old) => drop(state.set_run(id, old)),
        Change::EventAppended => drop(state.events.pop_back()),
        Change::EventsTrimmed(mut old) => {
            state.events_trimmed -= old.len() as u64;
            old.append(&mut state.events);
            state.events = old;
        }
        Change::AuditAppended => drop(state.audit.pop()),
        Change::Pool(change) => state.pool.revert(change),
        Change::FileOp(id, old) => drop(state.file_ops.set(id, old)),
        Change::Sync(change) => drop(state.sync.set(change)),
    }
}

impl Tx for Writing<'_> {
    fn put_node(&mut self, node: &Node) -> Result<(), WriteError> {
        let holder = self.state.live_nodes.get(&node.name);
        if node.removed_at.is_none() && holder.is_some_and(|id| *id != node.id) {
            return Err(conflict::node_name(node));
        }
        let old = self.state.set_node(node.id, Some(node.clone()));
        self.note(Change::Node(node.id, old));
        Ok(())
    }

    fn next_epoch(&mut self, id: NodeId) -> Result<Option<Epoch>, StoreError> {
        let Some(node) = self.state.nodes.get(&id) else { return Ok(None) };
        let epoch = node.epoch.next();
        let node = Node { epoch, ..node.clone() };
        let old = self.state.set_node(id, Some(node));
        self.note(Change::Node(id, old));
        Ok(Some(epoch))
    }

    fn observe_nodes(&mut self, seen: &[(NodeId, WallTime)]) -> Result<(), StoreError> {
        for (id, at) in seen {
            let Some(node) = self.state.nodes.get(id) else { continue };
            let node = Node { last_seen_at: Some(*at), ..node.clone() };
            let old = self.state.set_node(*id, Some(node));
            self.note(Change::Node(*id, old));
        }
        Ok(())
    }

    fn put_invite(&mut self, invite: &Invite) -> Result<(), StoreError> {
        let old = self.state.invites.insert(invite.id, invite.clone());
        self.note(Change::Invite(invite.id, old));
        Ok(())
    }

    fn put_token(&mut self, token: &Token) -> Result<(), WriteError> {
        let holder = self.state.live_tokens.get(&token.name);
        if token.revoked_at.is_none() && holder.is_some_and(|id| *id != token.id) {
            return Err(conflict::token_name(token));
        }
        let old = self.state.set_token(token.id, Some(token.clone()));
        self.note(Change::Token(token.id, old));
        Ok(())
    }

    fn trim_sessions(&mut self, before: WallTime, batch: usize) -> Result<u64, StoreError> {
        let over = |token: &&Token| {
            let ends = [token.revoked_at, token.expires_at];
            token.kind == TokenKind::Session && ends.into_iter().flatten().any(|end| end < before)
        };
        let gone: Vec<TokenId> =
            self.state.tokens.values().filter(over).map(|token| token.id).take(batch).collect();
        for id in &gone {
            let old = self.state.set_token(*id, None);
            self.note(Change::Token(*id, old));
        }
        Ok(gone.len() as u64)
    }

    fn put_user(&mut self, user: &User) -> Result<(), WriteError> {
        let holder = self.state.live_users.get(&user.name);
        if user.removed_at.is_none() && holder.is_some_and(|id| *id != user.id) {
            return Err(conflict::user_name(user));
        }
        let old = self.state.set_user(user.id, Some(user.clone()));
        self.note(Change::User(user.id, old));
        Ok(())
    }

    fn put_grant(&mut self, grant: &RoleGrant) -> Result<(), StoreError> {
        let old = self.state.grants.insert(grant.id, grant.clone());
        self.note(Change::Grant(grant.id, old));
        Ok(())
    }

    fn put_lock(&mut self, lock: &Lock) -> Result<(), StoreError> {
        let old = self.state.locks.insert(lock.id, lock.clone());
        self.note(Change::Lock(lock.id, old));
        Ok(())
    }

    fn put_consent(&mut self, consent: &Consent) -> Result<(), StoreError> {
        let old = self.state.consents.insert(consent.id, consent.clone());
        self.note(Change::Consent(consent.id, old));
        Ok(())
    }

    fn put_consent_rule(&mut self, rule: &ConsentRule) -> Result<(), StoreError> {
        let old = self.state.consent_rules.insert(rule.id, rule.clone());
        self.note(Change::ConsentRule(rule.id, old));
        Ok(())
    }

    fn trim_consents(&mut self, before: WallTime, batch: usize) -> Result<u64, StoreError> {
        let answered = |consent: &Consent| consent.answered_at.filter(|at| *at < before);
        let mut gone: Vec<(WallTime, ConsentId)> =
            self.state.consents.values().filter_map(|one| Some((answered(one)?, one.id))).collect();
        gone.sort();
        gone.truncate(batch);
        for (_, id) in &gone {
            let old = set(&mut self.state.consents, *id, None);
            self.note(Change::Consent(*id, old));
        }
        Ok(gone.len() as u64)
    }

    fn observe_audit(&mut self, node: NodeId, head: AuditHead) -> Result<(), StoreError> {
        let Some(old) = self.state.nodes.get(&node) else { return Ok(()) };
        if old.audit_seen.is_some_and(|seen| seen.seq > head.seq) {
            return Ok(());
        }
        let old = self.state.set_node(node, Some(Node { audit_seen: Some(head), ..old.clone() }));
        self.note(Change::Node(node, old));
        Ok(())
    }

    fn put_policy(&mut self, policy: &StoredPolicy) -> Result<(), WriteError> {
        let old = self.state.policies.get(&policy.node).cloned();
        let mut revisions = old.clone().unwrap_or_default();
        if let Some(newest) = revisions.last()
            && newest.revision >= policy.revision
        {
            return Err(conflict::policy_revision(policy, newest.revision));
        }
        revisions.push(policy.clone());
        let beyond = revisions.len().saturating_sub(POLICY_REVISIONS_KEPT);
        revisions.drain(..beyond);
        self.state.policies.insert(policy.node, revisions);
        self.note(Change::Policies(policy.node, old));
        Ok(())
    }

    fn put_profile(&mut self, profile: &StoredProfile) -> Result<(), StoreError> {
        let old = self.state.profiles.insert(profile.name.clone(), profile.clone());
        self.note(Change::Profile(profile.name.clone(), old));
        Ok(())
    }

    fn remove_profile(&mut self, name: &Name) -> Result<bool, StoreError> {
        let old = set(&mut self.state.profiles, name.clone(), None);
        let was_there = old.is_some();
        self.note(Change::Profile(name.clone(), old));
        Ok(was_there)
    }

    fn put_run(&mut self, run: &Run) -> Result<(), WriteError> {
        let holder = run_key(run).and_then(|key| self.state.run_keys.get(&key).copied());
        if holder.is_some_and(|id| id != run.id) {
            return Err(conflict::run_key(run));
        }
        let old = self.state.set_run(run.id, Some(run.clone()));
        self.note(Change::Run(run.id, old));
        Ok(())
    }

    fn append_event(&mut self, event: &Event) -> Result<Seq, StoreError> {
        let seq = self.state.next_event();
        self.state.events.push_back(event.clone());
        self.undo.events.push(LoggedEvent { seq, event: event.clone() });
        self.note(Change::EventAppended);
        Ok(seq)
    }

    fn append_audit(&mut self, row: &AuditRow) -> Result<Seq, StoreError> {
        let (last, previous) =
            self.state.audit.last().map_or((Seq(0), CHAIN_START), |logged| (logged.seq, logged.hash));
        let seq = last.next();
        let hash = chain_hash(&previous, seq, row);
        self.state.audit.push(LoggedAudit { seq, row: row.clone(), hash });
        self.note(Change::AuditAppended);
        Ok(seq)
    }

    fn trim_events(&mut self, keep: u64, batch: u64) -> Result<u64, StoreError> {
        let beyond = (self.state.events.len() as u64).saturating_sub(keep);
        let count = beyond.min(batch);
        let gone: VecDeque<Event> = self.state.events.drain(..usize::try_from(count).unwrap_or(0)).collect();
        self.state.events_trimmed += count;
        self.note(Change::EventsTrimmed(gone));
        Ok(count)
    }

    fn remove_runs(&mut self, runs: &[RunId]) -> Result<usize, StoreError> {
        let mut gone = 0;
        for id in runs {
            if self.state.runs.get(id).is_some_and(|run| run.state.is_final()) {
                let old = self.state.set_run(*id, None);
                self.note(Change::Run(*id, old));
                gone += 1;
            }
        }
        Ok(gone)
    }

    fn after_commit(&mut self, work: AfterFn) {
        self.undo.after.push(work);
    }
}
