//! The port's two views of a connection: [`Read`] over any, [`Tx`] over the writer's.

mod files;
mod pool;
mod sync;

use cortex_core::audit::AuditRow;
use cortex_core::consent::{Consent, ConsentRule};
use cortex_core::event::Event;
use cortex_core::id::{
    ConsentId, Epoch, Generation, InviteId, LockId, NodeId, Revision, RunId, Seq, TokenId, UserId,
};
use cortex_core::invite::Invite;
use cortex_core::lock::Lock;
use cortex_core::name::Name;
use cortex_core::node::{AuditHead, Node};
use cortex_core::run::Run;
use cortex_core::time::WallTime;
use cortex_core::token::Token;
use cortex_core::user::{RoleGrant, User};
use rusqlite::Connection;

use self::pool::Beside;
use super::codec::one;
use super::ledger::Ledger;
use super::rows::{
    audit, consents, events, grants, invites, locks, nodes, policies, profiles, runs, tokens, users,
};
use crate::chain::chain_hash;
use crate::{
    AfterFn, AuditFilter, ConsentFilter, LoggedAudit, LoggedEvent, Read, RunFilter, StoreError, StoredPolicy,
    StoredProfile, Tx, WriteError,
};

const GENERATION: &str = "SELECT value FROM numbers WHERE name = 'generation'";

/// Ends of the two logs, so that appending needs no query. True of the connection's transaction.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    event: Seq,
    audit: Seq,
    audit_hash: [u8; 32],
}

impl Heads {
    /// As they are stored.
    pub(super) fn load(conn: &Connection) -> Result<Self, StoreError> {
        let (_, event) = events::span(conn)?;
        let (audit, audit_hash) = audit::head(conn)?;
        Ok(Self { event, audit, audit_hash })
    }

    /// The newest audit row, unless it is the one of `before`.
    pub(super) fn audit_since(&self, before: &Self) -> Option<AuditHead> {
        (self.audit != before.audit).then_some(AuditHead { seq: self.audit, hash: self.audit_hash })
    }
}

/// What a transaction has done to the logs, what is to be called once it is committed, and what
/// the writer knows of the pool.
pub(super) struct Logs<'l> {
    pub(super) heads: Heads,
    pub(super) events: Vec<LoggedEvent>,
    pub(super) after: Vec<AfterFn>,
    ledger: &'l mut Ledger,
}

impl<'l> Logs<'l> {
    /// Nothing so far.
    pub(super) const fn new(heads: Heads, ledger: &'l mut Ledger) -> Self {
        Self { heads, events: Vec::new(), after: Vec::new(), ledger }
    }
}

/// A connection within a transaction; `L` is nothing for reading and [`Logs`] for writing.
pub(super) struct View<'c, L> {
    conn: &'c Connection,
    pub(super) logs: L,
}

impl<'c, L> View<'c, L> {
    pub(super) const fn new(conn: &'c Connection, logs: L) -> Self {
        Self { conn, logs }
    }
}

impl<L: Beside> Read for View<'_, L> {
    fn generation(&self) -> Result<Generation, StoreError> {
        let generation = one(self.conn, GENERATION, [], |row| row.number().map(Generation))?;
        generation.ok_or_else(|| StoreError::Damaged("the number `generation` is missing".to_owned()))
    }

    fn node(&self, id: NodeId) -> Result<Option<Node>, StoreError> {
        nodes::get(self.conn, id)
    }

    fn node_named(&self, name: &Name) -> Result<Option<Node>, StoreError> {
        nodes::named(self.conn, name)
    }

    fn nodes(&self) -> Result<Vec<Node>, StoreError> {
        nodes::live(self.conn)
    }

    fn invite(&self, id: InviteId) -> Result<Option<Invite>, StoreError> {
        invites::get(self.conn, id)
    }

    fn invite_of(&self, node: NodeId) -> Result<Option<Invite>, StoreError> {
        invites::of(self.conn, node)
    }

    fn invites(&self, limit: usize) -> Result<Vec<Invite>, StoreError> {
        invites::newest(self.conn, limit)
    }

    fn token(&self, id: TokenId) -> Result<Option<Token>, StoreError> {
        tokens::get(self.conn, id)
    }

    fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        tokens::newest(self.conn)
    }

    fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        users::get(self.conn, id)
    }

    fn user_named(&self, name: &Name) -> Result<Option<User>, StoreError> {
        users::named(self.conn, name)
    }

    fn users(&self) -> Result<Vec<User>, StoreError> {
        users::live(self.conn)
    }

    fn grants(&self) -> Result<Vec<RoleGrant>, StoreError> {
        grants::live(self.conn)
    }

    fn lock(&self, id: LockId) -> Result<Option<Lock>, StoreError> {
        locks::get(self.conn, id)
    }

    fn locks(&self) -> Result<Vec<Lock>, StoreError> {
        locks::live(self.conn)
    }

    fn consent(&self, id: ConsentId) -> Result<Option<Consent>, StoreError> {
        consents::get(self.conn, id)
    }

    fn consents(&self, filter: &ConsentFilter, limit: usize) -> Result<Vec<Consent>, StoreError> {
        consents::list(self.conn, filter, limit)
    }

    fn consent_by_key(&self, caller: &str, node: NodeId, key: &str) -> Result<Option<Consent>, StoreError> {
        consents::by_key(self.conn, caller, node, key)
    }

    fn consents_pending(&self) -> Result<usize, StoreError> {
        consents::pending(self.conn)
    }

    fn consents_alike(&self, node: NodeId, program: &str, limit: usize) -> Result<Vec<Consent>, StoreError> {
        consents::alike(self.conn, node, program, limit)
    }

    fn consent_rules(&self) -> Result<Vec<ConsentRule>, StoreError> {
        consents::rules(self.conn)
    }

    fn policy(&self, node: NodeId) -> Result<Option<StoredPolicy>, StoreError> {
        policies::get(self.conn, node)
    }

    fn policies(&self) -> Result<Vec<StoredPolicy>, StoreError> {
        policies::live(self.conn)
    }

    fn policy_history(
        &self,
        node: NodeId,
        before: Option<Revision>,
        limit: usize,
    ) -> Result<Vec<StoredPolicy>, StoreError> {
        policies::history(self.conn, node, before, limit)
    }

    fn profiles(&self) -> Result<Vec<StoredProfile>, StoreError> {
        profiles::all(self.conn)
    }

    fn run(&self, id: RunId) -> Result<Option<Run>, StoreError> {
        runs::get(self.conn, id)
    }

    fn run_by_key(&self, caller: &str, node: NodeId, key: &str) -> Result<Option<Run>, StoreError> {
        runs::by_key(self.conn, caller, node, key)
    }

    fn runs(&self, filter: &RunFilter, limit: usize) -> Result<Vec<Run>, StoreError> {
        runs::list(self.conn, filter, limit)
    }

    fn open_runs(&self) -> Result<Vec<Run>, StoreError> {
        runs::open(self.conn)
    }

    fn ended_runs(&self, limit: usize) -> Result<Vec<(RunId, WallTime)>, StoreError> {
        runs::ended(self.conn, limit)
    }

    fn ended_count(&self) -> Result<u64, StoreError> {
        runs::ended_count(self.conn)
    }

    fn events(&self, after: Seq, limit: usize) -> Result<Vec<LoggedEvent>, StoreError> {
        events::after(self.conn, after, limit)
    }

    fn events_span(&self) -> Result<(Seq, Seq), StoreError> {
        events::span(self.conn)
    }

    fn audit(&self, filter: &AuditFilter, limit: usize) -> Result<Vec<LoggedAudit>, StoreError> {
        audit::list(self.conn, filter, limit)
    }

    fn audit_head(&self) -> Result<AuditHead, StoreError> {
        let (seq, hash) = audit::head(self.conn)?;
        Ok(AuditHead { seq, hash })
    }
}

impl Tx for View<'_, Logs<'_>> {
    fn put_node(&mut self, node: &Node) -> Result<(), WriteError> {
        nodes::put(self.conn, node)
    }

    fn next_epoch(&mut self, id: NodeId) -> Result<Option<Epoch>, StoreError> {
        nodes::next_epoch(self.conn, id)
    }

    fn observe_nodes(&mut self, seen: &[(NodeId, WallTime)]) -> Result<(), StoreError> {
        nodes::observe(self.conn, seen)
    }

    fn put_invite(&mut self, invite: &Invite) -> Result<(), StoreError> {
        invites::put(self.conn, invite)
    }

    fn put_token(&mut self, token: &Token) -> Result<(), WriteError> {
        tokens::put(self.conn, token)
    }

    fn trim_sessions(&mut self, before: WallTime, batch: usize) -> Result<u64, StoreError> {
        tokens::trim(self.conn, before, batch)
    }

    fn put_user(&mut self, user: &User) -> Result<(), WriteError> {
        users::put(self.conn, user)
    }

    fn put_grant(&mut self, grant: &RoleGrant) -> Result<(), StoreError> {
        grants::put(self.conn, grant)
    }

    fn put_lock(&mut self, lock: &Lock) -> Result<(), StoreError> {
        locks::put(self.conn, lock)
    }

    fn put_consent(&mut self, consent: &Consent) -> Result<(), StoreError> {
        consents::put(self.conn, consent)
    }

    fn put_consent_rule(&mut self, rule: &ConsentRule) -> Result<(), StoreError> {
        consents::put_rule(self.conn, rule)
    }

    fn trim_consents(&mut self, before: WallTime, batch: usize) -> Result<u64, StoreError> {
        consents::trim(self.conn, before, batch)
    }

    fn observe_audit(&mut self, node: NodeId, head: AuditHead) -> Result<(), StoreError> {
        nodes::observe_audit(self.conn, node, head)
    }

    fn put_policy(&mut self, policy: &StoredPolicy) -> Result<(), WriteError> {
        policies::put(self.conn, policy)
    }

    fn put_profile(&mut self, profile: &StoredProfile) -> Result<(), StoreError> {
        profiles::put(self.conn, profile)
    }

    fn remove_profile(&mut self, name: &Name) -> Result<bool, StoreError> {
        profiles::remove(self.conn, name)
    }

    fn put_run(&mut self, run: &Run) -> Result<(), WriteError> {
        runs::put(self.conn, run)
    }

    fn append_event(&mut self, event: &Event) -> Result<Seq, StoreError> {
        let seq = self.logs.heads.event.next();
        events::append(self.conn, seq, event)?;
        self.logs.heads.event = seq;
        self.logs.events.push(LoggedEvent { seq, event: event.clone() });
        Ok(seq)
    }

    fn append_audit(&mut self, row: &AuditRow) -> Result<Seq, StoreError> {
        let seq = self.logs.heads.audit.next();
        let hash = chain_hash(&self.logs.heads.audit_hash, seq, row);
        audit::append(self.conn, seq, row, &hash)?;
        (self.logs.heads.audit, self.logs.heads.audit_hash) = (seq, hash);
        Ok(seq)
    }

    fn trim_events(&mut self, keep: u64, batch: u64) -> Result<u64, StoreError> {
        events::trim(self.conn, keep, batch)
    }

    fn remove_runs(&mut self, runs: &[RunId]) -> Result<usize, StoreError> {
        runs::remove(self.conn, runs)
    }

    fn after_commit(&mut self, work: AfterFn) {
        self.logs.after.push(work);
    }
}
