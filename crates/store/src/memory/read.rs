//! Reading the maps, alike for a view and within a transaction.

use std::ops::{Bound, Deref};

use cortex_core::consent::{Consent, ConsentRule, Standing};
use cortex_core::id::{
    ConsentId, Generation, InviteId, LockId, NodeId, Revision, RunId, Seq, TokenId, UserId,
};
use cortex_core::invite::Invite;
use cortex_core::lock::Lock;
use cortex_core::name::Name;
use cortex_core::node::{AuditHead, Node};
use cortex_core::run::Run;
use cortex_core::time::WallTime;
use cortex_core::token::Token;
use cortex_core::user::{RoleGrant, User};

use super::state::State;
use crate::chain::CHAIN_START;
use crate::{
    AuditFilter, ConsentFilter, LoggedAudit, LoggedEvent, Read, RunFilter, StoreError, StoredPolicy,
    StoredProfile,
};

/// Below and above every id, for ranges over one node.
const FIRST_RUN: RunId = RunId::new(uuid::Uuid::nil());
const LAST_RUN: RunId = RunId::new(uuid::Uuid::max());

/// The state, held for reading (`S` is `&State`, `U` nothing) or for a transaction (`&mut State`
/// and its undo log).
pub(super) struct Held<S, U> {
    pub(super) state: S,
    pub(super) undo: U,
}

impl<S: Deref<Target = State>, U> Held<S, U> {
    pub(super) const fn new(state: S, undo: U) -> Self {
        Self { state, undo }
    }
}

impl<S: Deref<Target = State>, U> Read for Held<S, U> {
    fn generation(&self) -> Result<Generation, StoreError> {
        Ok(self.state.generation)
    }

    fn node(&self, id: NodeId) -> Result<Option<Node>, StoreError> {
        Ok(self.state.nodes.get(&id).cloned())
    }

    fn node_named(&self, name: &Name) -> Result<Option<Node>, StoreError> {
        Ok(self.state.live_nodes.get(name).and_then(|id| self.state.nodes.get(id)).cloned())
    }

    fn nodes(&self) -> Result<Vec<Node>, StoreError> {
        Ok(self.state.live_nodes.values().filter_map(|id| self.state.nodes.get(id)).cloned().collect())
    }

    fn invite(&self, id: InviteId) -> Result<Option<Invite>, StoreError> {
        Ok(self.state.invites.get(&id).cloned())
    }

    fn invite_of(&self, node: NodeId) -> Result<Option<Invite>, StoreError> {
        Ok(self.state.invites.values().find(|invite| invite.used_by == Some(node)).cloned())
    }

    fn invites(&self, limit: usize) -> Result<Vec<Invite>, StoreError> {
        Ok(self.state.invites.values().rev().take(limit).cloned().collect())
    }

    fn token(&self, id: TokenId) -> Result<Option<Token>, StoreError> {
        Ok(self.state.tokens.get(&id).cloned())
    }

    fn tokens(&self) -> Result<Vec<Token>, StoreError> {
        Ok(self.state.tokens.values().rev().cloned().collect())
    }

    fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        Ok(self.state.users.get(&id).cloned())
    }

    fn user_named(&self, name: &Name) -> Result<Option<User>, StoreError> {
        Ok(self.state.live_users.get(name).and_then(|id| self.state.users.get(id)).cloned())
    }

    fn users(&self) -> Result<Vec<User>, StoreError> {
        Ok(self.state.live_users.values().filter_map(|id| self.state.users.get(id)).cloned().collect())
    }

    fn grants(&self) -> Result<Vec<RoleGrant>, StoreError> {
        Ok(self.state.grants.values().filter(|grant| grant.revoked_at.is_none()).cloned().collect())
    }

    fn lock(&self, id: LockId) -> Result<Option<Lock>, StoreError> {
        Ok(self.state.locks.get(&id).cloned())
    }

    fn locks(&self) -> Result<Vec<Lock>, StoreError> {
        Ok(self.state.locks.values().filter(|lock| lock.lifted_at.is_none()).cloned().collect())
    }

    fn consent(&self, id: ConsentId) -> Result<Option<Consent>, StoreError> {
        Ok(self.state.consents.get(&id).cloned())
    }

    fn consents(&self, filter: &ConsentFilter, limit: usize) -> Result<Vec<Consent>, StoreError> {
        let upto = filter.before.map_or(Bound::Unbounded, Bound::Excluded);
        let all = self.state.consents.range((Bound::Unbounded, upto)).rev().map(|(_, consent)| consent);
        let standing = |one: &Consent| filter.standing.is_none_or(|standing| one.standing == standing);
        let of_token = |one: &Consent| filter.token.is_none_or(|token| one.token == token);
        let wanted = all.filter(|consent| standing(consent) && of_token(consent));
        Ok(wanted.take(limit).cloned().collect())
    }

    fn consent_by_key(&self, caller: &str, node: NodeId, key: &str) -> Result<Option<Consent>, StoreError> {
        let is_it =
            |one: &&Consent| one.caller == caller && one.node == node && one.key.as_deref() == Some(key);
        Ok(self.state.consents.values().rev().find(is_it).cloned())
    }

    fn consents_pending(&self) -> Result<usize, StoreError> {
        let pending = |one: &&Consent| one.standing == Standing::Pending;
        Ok(self.state.consents.values().filter(pending).count())
    }

    fn consents_alike(&self, node: NodeId, program: &str, limit: usize) -> Result<Vec<Consent>, StoreError> {
        let answered = |one: &&Consent| matches!(one.standing, Standing::Approved | Standing::Denied);
        let alike =
            |one: &&Consent| one.node == node && one.spec.argv.first().is_some_and(|first| first == program);
        let all = self.state.consents.values().rev();
        Ok(all.filter(answered).filter(alike).take(limit).cloned().collect())
    }

    fn consent_rules(&self) -> Result<Vec<ConsentRule>, StoreError> {
        Ok(self.state.consent_rules.values().filter(|rule| rule.ended_at.is_none()).cloned().collect())
    }

    fn policy(&self, node: NodeId) -> Result<Option<StoredPolicy>, StoreError> {
        Ok(self.state.policies.get(&node).and_then(|revisions| revisions.last()).cloned())
    }

    fn policies(&self) -> Result<Vec<StoredPolicy>, StoreError> {
        let live = |id: &NodeId| self.state.nodes.get(id).is_some_and(|node| node.removed_at.is_none());
        let all = self.state.policies.iter().filter(|(id, _)| live(id));
        Ok(all.filter_map(|(_, revisions)| revisions.last()).cloned().collect())
    }

    fn policy_history(
        &self,
        node: NodeId,
        before: Option<Revision>,
        limit: usize,
    ) -> Result<Vec<StoredPolicy>, StoreError> {
        let revisions = self.state.policies.get(&node).into_iter().flatten().rev();
        let older = revisions.filter(|one| before.is_none_or(|before| one.revision < before));
        Ok(older.take(limit).cloned().collect())
    }

    fn profiles(&self) -> Result<Vec<StoredProfile>, StoreError> {
        Ok(self.state.profiles.values().cloned().collect())
    }

    fn run(&self, id: RunId) -> Result<Option<Run>, StoreError> {
        Ok(self.state.runs.get(&id).cloned())
    }

    fn run_by_key(&self, caller: &str, node: NodeId, key: &str) -> Result<Option<Run>, StoreError> {
        let id = self.state.run_keys.get(&(caller.to_owned(), node, key.to_owned()));
        Ok(id.and_then(|id| self.state.runs.get(id)).cloned())
    }

    fn runs(&self, filter: &RunFilter, limit: usize) -> Result<Vec<Run>, StoreError> {
        let wanted = |run: &&Run| filter.states.is_empty() || filter.states.contains(&run.state);
        let upto = filter.before.map_or(Bound::Unbounded, Bound::Excluded);
        let Some(node) = filter.node else {
            let runs = self.state.runs.range((Bound::Unbounded, upto)).rev().map(|(_, run)| run);
            return Ok(runs.filter(wanted).take(limit).cloned().collect());
        };
        let last = filter.before.map_or(Bound::Included((node, LAST_RUN)), |id| Bound::Excluded((node, id)));
        let ids = self.state.runs_of_nodes.range((Bound::Included((node, FIRST_RUN)), last)).rev();
        let runs = ids.filter_map(|(_, id)| self.state.runs.get(id));
        Ok(runs.filter(wanted).take(limit).cloned().collect())
    }

    fn open_runs(&self) -> Result<Vec<Run>, StoreError> {
        Ok(self.state.open_runs.iter().filter_map(|id| self.state.runs.get(id)).cloned().collect())
    }

    fn ended_runs(&self, limit: usize) -> Result<Vec<(RunId, WallTime)>, StoreError> {
        let ended = self.state.ended_runs.iter().filter(|(_, id)| !self.state.open_runs.contains(id));
        Ok(ended.take(limit).map(|(at, id)| (*id, *at)).collect())
    }

    fn ended_count(&self) -> Result<u64, StoreError> {
        Ok(self.state.ended_runs.len() as u64)
    }

    fn events(&self, after: Seq, limit: usize) -> Result<Vec<LoggedEvent>, StoreError> {
        Ok(self.state.iter_events(Seq(after.0.saturating_add(1))).take(limit).collect())
    }

    fn events_span(&self) -> Result<(Seq, Seq), StoreError> {
        Ok((Seq(self.state.events_trimmed + 1), Seq(self.state.next_event().0 - 1)))
    }

    fn audit(&self, filter: &AuditFilter, limit: usize) -> Result<Vec<LoggedAudit>, StoreError> {
        let skip = usize::try_from(filter.after.0).unwrap_or(usize::MAX).min(self.state.audit.len());
        let wanted = |logged: &&LoggedAudit| {
            filter.node.is_none_or(|node| logged.row.node == Some(node))
                && filter.actor.as_ref().is_none_or(|actor| logged.row.actor == *actor)
        };
        let rows = self.state.audit.get(skip..).unwrap_or_default().iter().filter(wanted);
        if !filter.newest {
            return Ok(rows.take(limit).cloned().collect());
        }
        let mut newest: Vec<LoggedAudit> = rows.rev().take(limit).cloned().collect();
        newest.reverse();
        Ok(newest)
    }

    fn audit_head(&self) -> Result<AuditHead, StoreError> {
        let newest = self.state.audit.last().map(|logged| AuditHead { seq: logged.seq, hash: logged.hash });
        Ok(newest.unwrap_or(AuditHead { seq: Seq(0), hash: CHAIN_START }))
    }
}
