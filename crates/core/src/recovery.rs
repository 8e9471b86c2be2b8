//! How a node whose certificate has ended comes back: by a second key, a counted number of times.
//! Also the exact bytes that are signed at this door, so that both ends mean the same.
//!
//! Hub and node count together. A copy of an older disk counts less than the hub does, and is found
//! out by it; the same request again, for an answer that was lost, is told apart by its key.

use crate::error::{Code, Refusal};
use crate::id::{Generation, InviteId, NodeId};
use crate::lock::Lock;
use crate::node::{Node, Recovery};

/// What a recovery led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovered {
    /// The node gets a certificate; this is what the hub keeps of it.
    Anew(Recovery),
    /// The answer was lost, and is given again: nothing changes.
    Again(Recovery),
}

/// Judges a recovery that the recovery key has signed. `key` is the fingerprint (blake3) of the key
/// that it asks a certificate for, `lock` the lock that holds on the node.
///
/// # Errors
/// `node_revoked`, `cloned_identity` (when the node is not quarantined yet, it is to be now),
/// `unauthenticated` for a node that has no recovery key, `locked`, `recoveries_exhausted`.
pub fn recover(node: &Node, lock: Option<&Lock>, counter: u32, key: [u8; 32]) -> Result<Recovered, Refusal> {
    if node.removed_at.is_some() {
        return Err(Refusal::new(Code::NodeRevoked, "This node was removed from the hub."));
    }
    if node.quarantined {
        return Err(cloned(node));
    }
    let recovery = node.recovery.clone().ok_or_else(without_key)?;
    if let Some(lock) = lock {
        return Err(lock.refusal());
    }
    if counter.checked_add(1) == Some(recovery.count) && recovery.last == Some(key) {
        return Ok(Recovered::Again(recovery));
    }
    if counter < recovery.count {
        return Err(cloned(node));
    }
    let Some(left) = recovery.left.checked_sub(1) else {
        return Err(Refusal::new(Code::RecoveriesExhausted, "This node has used up its recoveries."));
    };
    // One that counts further than the hub met a hub that was restored from a backup since.
    Ok(Recovered::Anew(Recovery { count: counter.saturating_add(1), left, last: Some(key), ..recovery }))
}

/// The refusal of a node that never gave a recovery key.
pub fn without_key() -> Refusal {
    Refusal::new(Code::Unauthenticated, "This node has no recovery key.")
        .hint("Remove it with `cortex node rm`, and join it again with a new invite.")
}

fn cloned(node: &Node) -> Refusal {
    let message = format!("Two machines use the identity of {}; it is shut out.", node.name);
    Refusal::new(Code::ClonedIdentity, message)
}

/// What the recovery key signs: `authority` is the blake3 of the hub's authority, `csr` that of the
/// certificate request.
pub fn request_statement(authority: &[u8; 32], node: NodeId, counter: u32, csr: &[u8; 32]) -> Vec<u8> {
    Statement::new(b"cortex recover 1\0")
        .bytes(authority)
        .bytes(node.as_bytes())
        .number(counter.into())
        .bytes(csr)
        .0
}

/// What the authority signs of its answer to a join; `chain` is the blake3 of the certificates, one
/// after the other.
pub fn join_statement(invite: InviteId, answer: &JoinAnswer<'_>, chain: &[u8; 32]) -> Vec<u8> {
    Statement::new(b"cortex join 1\0")
        .bytes(invite.as_bytes())
        .bytes(answer.node.as_bytes())
        .bytes(answer.name.as_bytes())
        .number(answer.generation.0)
        .number(answer.recoveries_left.into())
        .bytes(chain)
        .0
}

/// The parts of an answer to a join beside the certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinAnswer<'a> {
    /// The node.
    pub node: NodeId,
    /// Its name in the hub's record.
    pub name: &'a str,
    /// The store's generation.
    pub generation: Generation,
    /// How often it may recover.
    pub recoveries_left: u32,
}

/// What the authority signs of its answer to a recovery.
pub fn answer_statement(node: NodeId, counter: u32, left: u32, chain: &[u8; 32]) -> Vec<u8> {
    Statement::new(b"cortex recovered 1\0")
        .bytes(node.as_bytes())
        .number(counter.into())
        .number(left.into())
        .bytes(chain)
        .0
}

/// Parts with their lengths in front, so that no two lists of parts are the same bytes.
struct Statement(Vec<u8>);

impl Statement {
    fn new(what: &[u8]) -> Self {
        Self(what.to_vec())
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    fn number(mut self, number: u64) -> Self {
        self.0.extend_from_slice(&number.to_le_bytes());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, LockId};
    use crate::lock::Target;
    use crate::name::Name;
    use crate::time::WallTime;

    const KEY: [u8; 32] = [1; 32];
    const OTHER: [u8; 32] = [2; 32];

    fn recovery(count: u32, left: u32, last: Option<[u8; 32]>) -> Recovery {
        Recovery { key: vec![4], count, left, last }
    }

    fn node(recovery: Option<Recovery>) -> Node {
        let (id, name) = (NodeId::mint(1, &[1; 10]), Name::parse("laptop").expect("a name"));
        Node { epoch: Epoch(7), recovery, ..Node::joined(id, name, [0; 32], WallTime(0)) }
    }

    fn code(node: &Node, counter: u32, key: [u8; 32]) -> Code {
        recover(node, None, counter, key).expect_err("refused").code
    }

    #[test]
    fn each_recovery_is_counted_on_both_sides_until_none_is_left() {
        let mut held = node(Some(recovery(0, 3, None)));
        for counter in 0..3 {
            let key = [u8::try_from(counter).expect("small") + 10; 32];
            let Ok(Recovered::Anew(next)) = recover(&held, None, counter, key) else { panic!("{counter}") };
            assert_eq!((next.count, next.left, next.last), (counter + 1, 2 - counter, Some(key)));
            held.recovery = Some(next);
        }
        assert_eq!(code(&held, 3, OTHER), Code::RecoveriesExhausted);
        let raised = node(Some(recovery(3, 5, Some(KEY))));
        assert!(matches!(recover(&raised, None, 3, OTHER), Ok(Recovered::Anew(next)) if next.left == 4));
    }

    #[test]
    fn a_lost_answer_is_given_again_to_the_same_key_alone_and_costs_nothing() {
        let held = node(Some(recovery(2, 0, Some(KEY))));
        assert_eq!(recover(&held, None, 1, KEY), Ok(Recovered::Again(recovery(2, 0, Some(KEY)))));
        assert_eq!(code(&held, 1, OTHER), Code::ClonedIdentity);
        assert_eq!(code(&held, 0, KEY), Code::ClonedIdentity, "two behind is no lost answer");
    }

    #[test]
    fn an_older_copy_is_noticed_and_a_restored_hub_is_not_taken_for_one() {
        let held = node(Some(recovery(3, 5, Some(KEY))));
        for counter in 0..3 {
            assert_eq!(code(&held, counter, OTHER), Code::ClonedIdentity, "{counter}");
        }
        let Ok(Recovered::Anew(next)) = recover(&held, None, 9, OTHER) else { panic!("the hub is behind") };
        assert_eq!((next.count, next.left), (10, 4));
    }

    #[test]
    fn who_is_shut_out_does_not_recover() {
        let good = node(Some(recovery(0, 5, None)));
        let removed = Node { removed_at: Some(WallTime(1)), ..good.clone() };
        let quarantined = Node { quarantined: true, ..good.clone() };
        assert_eq!(code(&removed, 0, KEY), Code::NodeRevoked);
        assert_eq!(code(&quarantined, 0, KEY), Code::ClonedIdentity);
        assert_eq!(code(&node(None), 0, KEY), Code::Unauthenticated);
        let lock = Lock {
            id: LockId::mint(1, &[1; 10]),
            target: Target::Node(good.id),
            message: String::new(),
            created_by: "token:admin".to_owned(),
            created_at: WallTime(0),
            expires_at: None,
            lifted_at: None,
            lifted_by: None,
        };
        assert_eq!(recover(&good, Some(&lock), 0, KEY).expect_err("locked").code, Code::Locked);
        assert_eq!(
            code(&node(Some(recovery(u32::MAX, 0, Some(KEY)))), u32::MAX, KEY),
            Code::RecoveriesExhausted
        );
    }

    #[test]
    fn no_two_answers_are_signed_by_the_same_bytes() {
        let invite = InviteId::mint(1, &[1; 10]);
        let answer = |name, generation, recoveries_left| JoinAnswer {
            node: NodeId::mint(1, &[1; 10]),
            name,
            generation: Generation(generation),
            recoveries_left,
        };
        let of = |answer: &JoinAnswer<'_>, chain| join_statement(invite, answer, chain);
        let mut all = vec![
            of(&answer("ab", 1, 5), &KEY),
            of(&answer("a", 1, 5), &KEY),
            of(&answer("ab", 2, 5), &KEY),
            of(&answer("ab", 1, 4), &KEY),
            of(&answer("ab", 1, 5), &OTHER),
            answer_statement(NodeId::mint(1, &[1; 10]), 1, 5, &KEY),
            answer_statement(NodeId::mint(1, &[1; 10]), 5, 1, &KEY),
            request_statement(&KEY, NodeId::mint(1, &[1; 10]), 1, &OTHER),
            request_statement(&OTHER, NodeId::mint(1, &[1; 10]), 1, &KEY),
        ];
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
