//! What the hub must know without asking the store: nodes, policies, tokens, users and their
//! grants. Loaded at start, changed only after the change is committed, read by every request.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use cortex_core::access::Who;
use cortex_core::consent::{Consent, ConsentRule, Standing};
use cortex_core::id::{ConsentId, GrantId, NodeId, TokenId, UserId};
use cortex_core::lock::Locks;
use cortex_core::message::SignedPolicy;
use cortex_core::name::Name;
use cortex_core::node::Node;
use cortex_core::policy::{Ceiling, Policy, Site};
use cortex_core::run::RunSpec;
use cortex_core::sandbox::{Ground, Level};
use cortex_core::time::WallTime;
use cortex_core::token::{Token, TokenKind};
use cortex_core::user::{RoleGrant, Subject, User};
use cortex_wire::policy::read_ceilings;
use tokio::sync::watch;

use crate::audit_watch::AuditWatch;
use crate::folders::Folders;

/// The maps. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    inner: Arc<RwLock<Maps>>,
    audit: Arc<AuditWatch>,
    folders: Folders,
    /// Questions that wait, and until when; told at each change of them and of lasting answers.
    questions: Arc<watch::Sender<BTreeMap<ConsentId, WallTime>>>,
    /// Raised when a token, a user, a grant, a lock or the labels of a node have changed.
    principals: Arc<watch::Sender<u64>>,
}

#[derive(Debug, Default)]
struct Maps {
    nodes: BTreeMap<NodeId, Arc<Node>>,
    names: BTreeMap<Name, NodeId>,
    policies: BTreeMap<NodeId, Held>,
    sites: BTreeMap<NodeId, Arc<Site>>,
    tokens: BTreeMap<[u8; 32], Arc<Token>>,
    users: BTreeMap<UserId, Arc<User>>,
    /// Live ones, by who has them: a request looks at its caller's alone.
    grants: BTreeMap<Subject, BTreeMap<GrantId, RoleGrant>>,
    /// Lasting answers that nobody has ended.
    lasting: BTreeMap<ConsentId, Arc<ConsentRule>>,
    /// Replaced whole.
    locks: Arc<Locks>,
}

/// A policy with the bytes that its node gets.
#[derive(Clone, Debug)]
struct Held {
    policy: Arc<Policy>,
    signed: Arc<SignedPolicy>,
    /// blake3 of the bytes, for audit rows.
    hash: [u8; 32],
}

impl Directory {
    /// The locks.
    pub fn locks(&self) -> Arc<Locks> {
        Arc::clone(&self.read().locks)
    }

    /// The locks as they stand after a commit.
    pub fn put_locks(&self, locks: Locks) {
        self.write().locks = Arc::new(locks);
        self.principals_changed();
    }

    /// The newest row of the audit log, and what does not fit it.
    pub fn audit(&self) -> &AuditWatch {
        &self.audit
    }

    /// Folders of nodes that are members of workspaces, and the locks of those.
    pub const fn folders(&self) -> &Folders {
        &self.folders
    }

    /// A live node by id.
    pub fn node(&self, id: NodeId) -> Option<Arc<Node>> {
        self.read().nodes.get(&id).cloned()
    }

    /// A live node by name.
    pub fn node_named(&self, name: &Name) -> Option<Arc<Node>> {
        let maps = self.read();
        maps.names.get(name).and_then(|id| maps.nodes.get(id)).cloned()
    }

    /// All live nodes by name.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        let maps = self.read();
        maps.names.values().filter_map(|id| maps.nodes.get(id)).cloned().collect()
    }

    /// The policy of a node: STRICT when none is set (ABUSE 37).
    pub fn policy(&self, node: NodeId, now: WallTime) -> Arc<Policy> {
        let held = self.read().policies.get(&node).map(|held| Arc::clone(&held.policy));
        held.unwrap_or_else(|| Arc::new(Policy::strict(node, now)))
    }

    /// The policy of a node as it is sent: without bytes, which allow nothing, when none is set.
    pub fn signed_policy(&self, node: NodeId) -> SignedPolicy {
        let held = self.read().policies.get(&node).map(|held| Arc::clone(&held.signed));
        held.map(|signed| SignedPolicy::clone(&signed)).unwrap_or_default()
    }

    /// blake3 of the bytes of a node's policy: what audit rows say of it.
    pub fn policy_hash(&self, node: NodeId) -> Option<[u8; 32]> {
        self.read().policies.get(&node).map(|held| held.hash)
    }

    /// What a node said of the machine that it is on, for judgements.
    pub fn site(&self, node: NodeId) -> Arc<Site> {
        self.read().sites.get(&node).cloned().unwrap_or_default()
    }

    /// All policies that are set.
    pub fn policies(&self) -> Vec<Arc<Policy>> {
        self.read().policies.values().map(|held| Arc::clone(&held.policy)).collect()
    }

    /// A token by the hash of its secret.
    pub fn token(&self, secret_hash: &[u8; 32]) -> Option<Arc<Token>> {
        self.read().tokens.get(secret_hash).cloned()
    }

    /// A token by id.
    pub fn token_of(&self, id: TokenId) -> Option<Arc<Token>> {
        self.read().tokens.values().find(|token| token.id == id).cloned()
    }

    /// All tokens.
    pub fn tokens(&self) -> Vec<Arc<Token>> {
        self.read().tokens.values().cloned().collect()
    }

    /// A live user by id.
    pub fn user(&self, id: UserId) -> Option<Arc<User>> {
        self.read().users.get(&id).cloned()
    }

    /// A live user by name.
    pub fn user_named(&self, name: &Name) -> Option<Arc<User>> {
        self.read().users.values().find(|user| user.name == *name).cloned()
    }

    /// A live user as somebody wrote it: by id, or by name.
    pub fn user_called(&self, text: &str) -> Option<Arc<User>> {
        let by_id = text.parse().ok().and_then(|id| self.user(id));
        by_id.or_else(|| self.user_named(&Name::parse(text).ok()?))
    }

    /// All live users, by name.
    pub fn users(&self) -> Vec<Arc<User>> {
        let mut users: Vec<_> = self.read().users.values().cloned().collect();
        users.sort_by(|a, b| a.name.cmp(&b.name));
        users
    }

    /// All live grants, oldest first.
    pub fn grants(&self) -> Vec<RoleGrant> {
        let maps = self.read();
        let mut grants: Vec<_> = maps.grants.values().flat_map(|held| held.values().cloned()).collect();
        grants.sort_by_key(|grant| (grant.created_at, grant.id));
        grants
    }

    /// The caller behind a token, as things are at this moment.
    pub fn who(&self, token: Arc<Token>) -> Who {
        let maps = self.read();
        let user = token.user.and_then(|id| maps.users.get(&id)).cloned();
        let Some(user) = user else { return Who { user: None, ..Who::of(token) } };
        let own = std::iter::once(Subject::User(user.id));
        let subjects = own.chain(user.groups.iter().cloned().map(Subject::Group));
        let grants = subjects.filter_map(|subject| maps.grants.get(&subject)).flat_map(BTreeMap::values);
        let grants = grants.cloned().collect();
        Who { token, user: Some(user), grants }
    }

    /// Tells when a token, a user, a grant, a lock or the labels of a node have changed: who holds something
    /// open for a caller asks anew whether it still may.
    pub fn principals(&self) -> watch::Receiver<u64> {
        self.principals.subscribe()
    }

    /// The questions that wait, and until when. Changes when one is asked, answered or ends, and when
    /// a lasting answer is given or ends.
    pub fn questions(&self) -> watch::Receiver<BTreeMap<ConsentId, WallTime>> {
        self.questions.subscribe()
    }

    /// The lasting answer to this command of this token on this node.
    pub fn lasting(
        &self,
        node: NodeId,
        token: TokenId,
        spec: &RunSpec,
        now: WallTime,
    ) -> Option<Arc<ConsentRule>> {
        self.read().lasting.values().find(|rule| rule.covers(node, token, spec, now)).cloned()
    }

    /// All lasting answers that nobody has ended, oldest first.
    pub fn consent_rules(&self) -> Vec<Arc<ConsentRule>> {
        self.read().lasting.values().cloned().collect()
    }

    /// A committed question; it leaves the map with its answer.
    pub fn put_consent(&self, consent: &Consent) {
        self.questions.send_modify(|waiting| {
            if consent.standing == Standing::Pending {
                waiting.insert(consent.id, consent.expires_at);
            } else {
                waiting.remove(&consent.id);
            }
        });
    }

    /// A committed lasting answer; one that was ended leaves the map.
    pub fn put_consent_rule(&self, rule: ConsentRule) {
        let mut maps = self.write();
        if rule.ended_at.is_some() {
            maps.lasting.remove(&rule.id);
        } else {
            maps.lasting.insert(rule.id, Arc::new(rule));
        }
        drop(maps);
        self.questions.send_modify(|_| ());
    }

    /// A committed node; a removed one leaves the maps.
    pub fn put_node(&self, node: Node) {
        let mut maps = self.write();
        let old = maps.nodes.get(&node.id).cloned();
        if let Some(old) = &old
            && maps.names.get(&old.name) == Some(&node.id)
        {
            maps.names.remove(&old.name);
        }
        let seen_by_others = old.is_some_and(|old| old.labels != node.labels || node.removed_at.is_some());
        if node.removed_at.is_some() {
            maps.nodes.remove(&node.id);
            maps.policies.remove(&node.id);
            maps.sites.remove(&node.id);
        } else {
            maps.sites.insert(node.id, Arc::new(site_of(&node)));
            maps.names.insert(node.name.clone(), node.id);
            maps.nodes.insert(node.id, Arc::new(node));
        }
        drop(maps);
        if seen_by_others {
            self.principals_changed();
        }
    }

    /// What a committed attach changed of a record, and nothing else: a rename that was committed
    /// after it may be here already. A node that is not live stays away.
    pub fn put_attached(&self, attached: &Node) {
        let mut maps = self.write();
        let Some(held) = maps.nodes.get_mut(&attached.id) else { return };
        if held.epoch <= attached.epoch {
            let held = Arc::make_mut(held);
            held.epoch = attached.epoch;
            held.facts = attached.facts.clone();
            held.ceiling.clone_from(&attached.ceiling);
            held.last_seen_at = attached.last_seen_at;
            held.audit_seen = attached.audit_seen;
            let site = Arc::new(site_of(held));
            maps.sites.insert(attached.id, site);
        }
    }

    /// Two machines use the identity of this node: it is shut out, and nothing else of its record
    /// changes.
    pub fn quarantine(&self, node: NodeId) {
        if let Some(held) = self.write().nodes.get_mut(&node) {
            Arc::make_mut(held).quarantined = true;
        }
    }

    /// A committed policy; an older revision than the held one is ignored.
    pub fn put_policy(&self, signed: SignedPolicy) {
        let Some(policy) = signed.policy.clone() else { return };
        let mut maps = self.write();
        if maps.policies.get(&policy.node).is_none_or(|held| held.policy.revision < policy.revision) {
            let node = policy.node;
            let hash = *blake3::hash(&signed.document).as_bytes();
            let held = Held { policy: Arc::from(policy), signed: Arc::new(signed), hash };
            maps.policies.insert(node, held);
        }
    }

    /// A committed token, also a revoked one. Sessions that have ended leave the maps: there are many.
    pub fn put_token(&self, token: Token) {
        let mut maps = self.write();
        if token.kind == TokenKind::Session {
            let ended = |held: &Token| held.expires_at.is_some_and(|end| end <= token.created_at);
            maps.tokens.retain(|_, held| held.kind != TokenKind::Session || !ended(held));
        }
        if token.kind == TokenKind::Session && token.revoked_at.is_some() {
            maps.tokens.remove(&token.secret_hash);
        } else {
            maps.tokens.insert(token.secret_hash, Arc::new(token));
        }
        drop(maps);
        self.principals_changed();
    }

    /// A committed user; a removed one leaves the maps, with the grants to it.
    pub fn put_user(&self, user: User) {
        let mut maps = self.write();
        if user.removed_at.is_some() {
            maps.users.remove(&user.id);
            maps.grants.remove(&Subject::User(user.id));
        } else {
            maps.users.insert(user.id, Arc::new(user));
        }
        drop(maps);
        self.principals_changed();
    }

    /// A committed grant; one that was taken back leaves the maps.
    pub fn put_grant(&self, grant: RoleGrant) {
        let mut maps = self.write();
        let held = maps.grants.entry(grant.subject.clone()).or_default();
        if grant.revoked_at.is_some() {
            held.remove(&grant.id);
        } else {
            held.insert(grant.id, grant.clone());
        }
        if held.is_empty() {
            maps.grants.remove(&grant.subject);
        }
        drop(maps);
        self.principals_changed();
    }

    fn principals_changed(&self) {
        self.principals.send_modify(|version| *version += 1);
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Maps> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Maps> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A machine as its node told it. A ceiling that cannot be read allows nothing there, nor here.
fn site_of(node: &Node) -> Site {
    let ceilings = match node.ceiling.as_deref().map(|text| read_ceilings(text.as_bytes())) {
        None => Vec::new(),
        Some(Ok(all)) => all.into_iter().map(|bounds| Ceiling::Bounds(Box::new(bounds))).collect(),
        Some(Err(_)) => vec![Ceiling::Unreadable],
    };
    let said = !node.facts.sandbox.is_empty();
    let level = said.then(|| Level::parse(&node.facts.sandbox).unwrap_or(Level::None));
    Site { ground: Ground { place: node.facts.place.clone(), level }, ceilings }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use cortex_core::id::{Epoch, TokenId};
    use cortex_core::name::Selector;
    use cortex_core::node::Facts;
    use cortex_core::rights::Right;
    use cortex_core::token::Role;

    use super::*;

    #[test]
    fn a_caller_is_known_by_what_was_committed_last() {
        let directory = Directory::default();
        let name = |text: &str| Name::parse(text).expect("a name");
        let user = User {
            id: UserId::mint(1, &[1; 10]),
            name: name("ada"),
            password: None,
            groups: BTreeSet::from([name("crew")]),
            created_at: WallTime(1),
            removed_at: None,
        };
        let grant = |n: u8, subject| RoleGrant {
            id: GrantId::mint(1, &[n; 10]),
            subject,
            role: Role::Viewer,
            selector: Selector::default(),
            created_by: "test".to_owned(),
            created_at: WallTime(1),
            revoked_at: None,
        };
        let token = Arc::new(Token {
            id: TokenId::mint(1, &[1; 10]),
            name: name("t"),
            role: Role::Admin,
            secret_hash: [0; 32],
            created_at: WallTime(1),
            expires_at: None,
            revoked_at: None,
            kind: TokenKind::Session,
            user: Some(user.id),
            rights: None,
            nodes: None,
            tools: None,
        });
        let may = || directory.who(Arc::clone(&token)).everywhere(Right::NodesRead);
        let changes = directory.principals();
        assert!(!may(), "nobody knows the user");
        directory.put_user(user.clone());
        directory.put_grant(grant(9, Subject::Group(name("other"))));
        assert!(!may(), "no grant is its own");
        let own = grant(1, Subject::User(user.id));
        directory.put_grant(own.clone());
        assert!(may() && changes.has_changed().expect("it is held"));
        directory.put_grant(RoleGrant { revoked_at: Some(WallTime(2)), ..own });
        assert!(!may(), "it was taken back");
        directory.put_grant(grant(2, Subject::Group(name("crew"))));
        assert!(may(), "its group has one");
        directory.put_user(User { removed_at: Some(WallTime(3)), ..user });
        assert!(!may() && directory.users().is_empty() && directory.grants().len() == 2);
    }

    #[test]
    fn an_attach_told_late_takes_no_rename_back() {
        let directory = Directory::default();
        let name = |text: &str| Name::parse(text).expect("a name");
        let node = Node::joined(NodeId::mint(1, &[1; 10]), name("old"), [0; 32], WallTime(1));
        directory.put_node(node.clone());
        let facts = Facts { os: "linux".to_owned(), ..Facts::default() };
        let attached = Node { epoch: Epoch(1), facts, ..node.clone() };
        directory.put_node(Node { name: name("new"), ..node });
        directory.put_attached(&attached);
        let held = directory.node(attached.id).expect("it is live");
        assert_eq!((held.name.as_str(), held.facts.os.as_str(), held.epoch), ("new", "linux", Epoch(1)));
        assert!(directory.node_named(&name("new")).is_some() && directory.node_named(&name("old")).is_none());
    }
}
