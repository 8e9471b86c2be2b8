//! The maps and their indices. Each entity has one setter that keeps its indices right; undoing
//! a change is setting the old value again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use cortex_core::consent::{Consent, ConsentRule};
use cortex_core::event::Event;
use cortex_core::id::{
    ConsentId, Generation, GrantId, InviteId, LockId, NodeId, RunId, Seq, TokenId, UserId,
};
use cortex_core::invite::Invite;
use cortex_core::lock::Lock;
use cortex_core::name::Name;
use cortex_core::node::Node;
use cortex_core::run::Run;
use cortex_core::time::WallTime;
use cortex_core::token::Token;
use cortex_core::user::{RoleGrant, User};

use super::files::FileOps;
use super::pool::Pool;
use super::sync::Sync;
use crate::{LoggedAudit, LoggedEvent, StoredPolicy, StoredProfile};

/// Caller, node and idempotency key.
pub(super) type RunKey = (String, NodeId, String);

pub(super) struct State {
    pub(super) generation: Generation,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) live_nodes: BTreeMap<Name, NodeId>,
    pub(super) invites: BTreeMap<InviteId, Invite>,
    pub(super) tokens: BTreeMap<TokenId, Token>,
    pub(super) live_tokens: BTreeMap<Name, TokenId>,
    pub(super) users: BTreeMap<UserId, User>,
    pub(super) live_users: BTreeMap<Name, UserId>,
    pub(super) grants: BTreeMap<GrantId, RoleGrant>,
    pub(super) locks: BTreeMap<LockId, Lock>,
    pub(super) consents: BTreeMap<ConsentId, Consent>,
    pub(super) consent_rules: BTreeMap<ConsentId, ConsentRule>,
    /// Each with its newest revision last.
    pub(super) policies: BTreeMap<NodeId, Vec<StoredPolicy>>,
    pub(super) profiles: BTreeMap<Name, StoredProfile>,
    pub(super) runs: BTreeMap<RunId, Run>,
    pub(super) run_keys: BTreeMap<RunKey, RunId>,
    pub(super) runs_of_nodes: BTreeSet<(NodeId, RunId)>,
    pub(super) open_runs: BTreeSet<RunId>,
    pub(super) ended_runs: BTreeSet<(WallTime, RunId)>,
    /// The events that are kept; the first one has the number `events_trimmed + 1`.
    pub(super) events: VecDeque<Event>,
    pub(super) events_trimmed: u64,
    pub(super) audit: Vec<LoggedAudit>,
    pub(super) pool: Pool,
    pub(super) file_ops: FileOps,
    pub(super) sync: Sync,
}

impl Default for State {
    fn default() -> Self {
        Self {
            generation: Generation(1),
            nodes: BTreeMap::new(),
            live_nodes: BTreeMap::new(),
            invites: BTreeMap::new(),
            tokens: BTreeMap::new(),
            live_tokens: BTreeMap::new(),
            users: BTreeMap::new(),
            live_users: BTreeMap::new(),
            grants: BTreeMap::new(),
            locks: BTreeMap::new(),
            consents: BTreeMap::new(),
            consent_rules: BTreeMap::new(),
            policies: BTreeMap::new(),
            profiles: BTreeMap::new(),
            runs: BTreeMap::new(),
            run_keys: BTreeMap::new(),
            runs_of_nodes: BTreeSet::new(),
            open_runs: BTreeSet::new(),
            ended_runs: BTreeSet::new(),
            events: VecDeque::new(),
            events_trimmed: 0,
            audit: Vec::new(),
            pool: Pool::default(),
            file_ops: FileOps::default(),
            sync: Sync::default(),
        }
    }
}

impl State {
    /// The number that the next event gets.
    pub(super) fn next_event(&self) -> Seq {
        Seq(self.events_trimmed + self.events.len() as u64 + 1)
    }

    /// The kept events from `first` on.
    pub(super) fn iter_events(&self, first: Seq) -> impl Iterator<Item = LoggedEvent> + '_ {
        let oldest = self.events_trimmed + 1;
        let skip = first.0.saturating_sub(oldest).min(self.events.len() as u64);
        let rows = self.events.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX));
        (oldest + skip..).zip(rows).map(|(seq, event)| LoggedEvent { seq: Seq(seq), event: event.clone() })
    }

    pub(super) fn set_node(&mut self, id: NodeId, node: Option<Node>) -> Option<Node> {
        if let Some(name) = self.nodes.get(&id).and_then(live_node) {
            self.live_nodes.remove(name);
        }
        if let Some(name) = node.as_ref().and_then(live_node) {
            self.live_nodes.insert(name.clone(), id);
        }
        set(&mut self.nodes, id, node)
    }

    pub(super) fn set_token(&mut self, id: TokenId, token: Option<Token>) -> Option<Token> {
        if let Some(name) = self.tokens.get(&id).and_then(live_token) {
            self.live_tokens.remove(name);
        }
        if let Some(name) = token.as_ref().and_then(live_token) {
            self.live_tokens.insert(name.clone(), id);
        }
        set(&mut self.tokens, id, token)
    }

    pub(super) fn set_user(&mut self, id: UserId, user: Option<User>) -> Option<User> {
        if let Some(name) = self.users.get(&id).and_then(live_user) {
            self.live_users.remove(name);
        }
        if let Some(name) = user.as_ref().and_then(live_user) {
            self.live_users.insert(name.clone(), id);
        }
        set(&mut self.users, id, user)
    }

    pub(super) fn set_run(&mut self, id: RunId, run: Option<Run>) -> Option<Run> {
        let old = self.runs.remove(&id);
        if let Some(old) = &old {
            self.unindex_run(old);
        }
        if let Some(run) = run {
            self.index_run(&run);
            self.runs.insert(id, run);
        }
        old
    }

    fn unindex_run(&mut self, run: &Run) {
        if let Some(key) = run_key(run) {
            self.run_keys.remove(&key);
        }
        self.runs_of_nodes.remove(&(run.node, run.id));
        self.open_runs.remove(&run.id);
        if let Some(ended_at) = run.ended_at {
            self.ended_runs.remove(&(ended_at, run.id));
        }
    }

    fn index_run(&mut self, run: &Run) {
        if let Some(key) = run_key(run) {
            self.run_keys.insert(key, run.id);
        }
        self.runs_of_nodes.insert((run.node, run.id));
        if !run.state.is_final() {
            self.open_runs.insert(run.id);
        }
        if let Some(ended_at) = run.ended_at {
            self.ended_runs.insert((ended_at, run.id));
        }
    }
}

/// Sets or removes, and hands back what was there.
pub(super) fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> Option<V> {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    }
}

pub(super) fn run_key(run: &Run) -> Option<RunKey> {
    run.idempotency_key.as_ref().map(|key| (run.caller.clone(), run.node, key.clone()))
}

fn live_node(node: &Node) -> Option<&Name> {
    node.removed_at.is_none().then_some(&node.name)
}

fn live_token(token: &Token) -> Option<&Name> {
    token.revoked_at.is_none().then_some(&token.name)
}

fn live_user(user: &User) -> Option<&Name> {
    user.removed_at.is_none().then_some(&user.name)
}
