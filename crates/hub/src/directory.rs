//! What the hub must know without asking the store: nodes, policies, tokens. Loaded at start,
//! changed only after the change is committed, read by every request.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use cortex_core::id::NodeId;
use cortex_core::lock::Locks;
use cortex_core::name::Name;
use cortex_core::node::Node;
use cortex_core::policy::Policy;
use cortex_core::time::WallTime;
use cortex_core::token::Token;
use tokio::sync::watch;

/// The maps, and the locks. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    inner: Arc<RwLock<Maps>>,
    /// Replaced whole, so that whoever serves a stream hears of a lock on its caller.
    locks: Arc<watch::Sender<Arc<Locks>>>,
}

#[derive(Debug, Default)]
struct Maps {
    nodes: BTreeMap<NodeId, Arc<Node>>,
    names: BTreeMap<Name, NodeId>,
    policies: BTreeMap<NodeId, Arc<Policy>>,
    tokens: BTreeMap<[u8; 32], Arc<Token>>,
}

impl Directory {
    /// Fills the maps at start.
    pub fn load(nodes: Vec<Node>, policies: Vec<Policy>, tokens: Vec<Token>) -> Self {
        let directory = Self::default();
        nodes.into_iter().for_each(|node| directory.put_node(node));
        policies.into_iter().for_each(|policy| directory.put_policy(policy));
        tokens.into_iter().for_each(|token| directory.put_token(token));
        directory
    }

    /// The locks.
    pub fn locks(&self) -> Arc<Locks> {
        self.locks.borrow().clone()
    }

    /// The locks as they stand after a commit.
    pub fn put_locks(&self, locks: Locks) {
        let _before = self.locks.send_replace(Arc::new(locks));
    }

    /// Hears of each change of who may do what: locks, and tokens that end.
    pub fn changes(&self) -> watch::Receiver<Arc<Locks>> {
        self.locks.subscribe()
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
        self.read().policies.get(&node).cloned().unwrap_or_else(|| Arc::new(Policy::strict(node, now)))
    }

    /// All policies that are set.
    pub fn policies(&self) -> Vec<Arc<Policy>> {
        self.read().policies.values().cloned().collect()
    }

    /// A token by the hash of its secret.
    pub fn token(&self, secret_hash: &[u8; 32]) -> Option<Arc<Token>> {
        self.read().tokens.get(secret_hash).cloned()
    }

    /// All tokens.
    pub fn tokens(&self) -> Vec<Arc<Token>> {
        self.read().tokens.values().cloned().collect()
    }

    /// A committed node; a removed one leaves the maps.
    pub fn put_node(&self, node: Node) {
        let mut maps = self.write();
        let old_name = maps.nodes.get(&node.id).map(|old| old.name.clone());
        if let Some(old) = old_name
            && maps.names.get(&old) == Some(&node.id)
        {
            maps.names.remove(&old);
        }
        if node.removed_at.is_some() {
            maps.nodes.remove(&node.id);
            maps.policies.remove(&node.id);
            return;
        }
        maps.names.insert(node.name.clone(), node.id);
        maps.nodes.insert(node.id, Arc::new(node));
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
            held.last_seen_at = attached.last_seen_at;
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
    pub fn put_policy(&self, policy: Policy) {
        let mut maps = self.write();
        if maps.policies.get(&policy.node).is_none_or(|held| held.revision < policy.revision) {
            maps.policies.insert(policy.node, Arc::new(policy));
        }
    }

    /// A committed token, also a revoked one.
    pub fn put_token(&self, token: Token) {
        self.write().tokens.insert(token.secret_hash, Arc::new(token));
        // The locks are the same; those who serve streams look at the token again.
        self.locks.send_modify(|_| ());
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Maps> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Maps> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use cortex_core::id::Epoch;
    use cortex_core::name::Labels;
    use cortex_core::node::Facts;

    use super::*;

    #[test]
    fn an_attach_told_late_takes_no_rename_back() {
        let directory = Directory::default();
        let name = |text: &str| Name::parse(text).expect("a name");
        let node = Node {
            id: NodeId::mint(1, &[1; 10]),
            name: name("old"),
            labels: Labels::new(),
            facts: Facts::default(),
            key_hash: [0; 32],
            epoch: Epoch(0),
            joined_at: WallTime(1),
            last_seen_at: None,
            quarantined: false,
            removed_at: None,
            owner: None,
            recovery: None,
            audit_seen: None,
            ceiling: None,
        };
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
