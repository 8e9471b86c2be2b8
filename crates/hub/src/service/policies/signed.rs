//! Policies as bytes: made once per change and signed by the authority, verified whenever they come
//! out of the store, and sent as they are.

use std::sync::Arc;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::id::Generation;
use cortex_core::message::SignedPolicy;
use cortex_core::node::Node;
use cortex_core::policy::Policy;
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use cortex_store::{StoredPolicy, Tx, WriteError};
use cortex_wire::policy;

use crate::authority::Authority;
use crate::service::Context;

/// The row of a policy, signed.
///
/// # Errors
/// `policy_invalid` when it may not be set.
pub(crate) fn sign(
    authority: &Authority,
    generation: Generation,
    policy: &Policy,
    by: &str,
) -> Result<StoredPolicy, Refusal> {
    let document = policy::write(policy, generation)?.to_vec();
    let signature = authority.sign_policy(&document)?;
    Ok(StoredPolicy {
        node: policy.node,
        revision: policy.revision,
        document,
        signature,
        changed_by: by.to_owned(),
        changed_at: policy.changed_at,
    })
}

/// What a row says, when it is what the authority signed for this node and revision.
///
/// # Errors
/// `policy_invalid`.
pub(crate) fn read(authority: &Authority, stored: &StoredPolicy) -> Result<(Policy, Generation), Refusal> {
    let invalid = |message: &str| Refusal::new(Code::PolicyInvalid, message);
    if !authority.signed_policy(&stored.document, &stored.signature) {
        return Err(invalid("A stored policy is not what this hub's authority signed."));
    }
    let (policy, generation) = policy::read(&stored.document)?;
    if policy.node != stored.node || policy.revision != stored.revision {
        return Err(invalid("A stored policy is another node's, or another revision."));
    }
    Ok((policy, generation))
}

/// A row as nodes get it. One that does not verify goes out as it is, for its node to refuse, and
/// allows nothing here.
pub(crate) fn hold(authority: &Authority, stored: StoredPolicy) -> SignedPolicy {
    let policy = read(authority, &stored).map_or_else(
        |refusal| {
            let (node_id, revision) = (stored.node, stored.revision);
            tracing::error!(%node_id, %revision, %refusal, "a policy does not hold: nothing is allowed there");
            Policy { revision, ..Policy::unreadable(node_id) }
        },
        |(policy, _)| policy,
    );
    SignedPolicy {
        policy: Some(Box::new(policy)),
        document: stored.document.into(),
        signature: stored.signature.into(),
    }
}

/// The newest policy of a node, for a change to begin from.
pub(super) fn newest(tx: &dyn Tx, authority: &Authority, node: &Node) -> Result<Policy, WriteError> {
    let Some(stored) = tx.policy(node.id)? else { return Ok(Policy::strict(node.id, node.joined_at)) };
    let revision = stored.revision;
    let read = read(authority, &stored);
    Ok(read.map_or_else(|_| Policy { revision, ..Policy::unreadable(node.id) }, |(policy, _)| policy))
}

/// Brings the policies of all nodes into the directory at the start of the hub. A node without one
/// gets STRICT; one that was signed before the store was restored is signed anew, since nodes take
/// none of an earlier generation.
///
/// # Errors
/// `store_unavailable`.
pub async fn settle(context: &Context, authority: &Arc<Authority>) -> Result<(), Refusal> {
    let (now, authority) = (context.clock.wall(), Arc::clone(authority));
    let directory = context.directory.clone();
    let work = move |tx: &mut dyn Tx| {
        let generation = tx.generation()?;
        let nodes = tx.nodes()?;
        nodes.iter().map(|node| settle_one(tx, &authority, generation, node, now)).collect()
    };
    let put = move |all: &Vec<SignedPolicy>| all.iter().cloned().for_each(|one| directory.put_policy(one));
    context.commit(work, put).await.map(drop)
}

fn settle_one(
    tx: &mut dyn Tx,
    authority: &Authority,
    generation: Generation,
    node: &Node,
    now: WallTime,
) -> Result<SignedPolicy, WriteError> {
    let stored = tx.policy(node.id)?;
    let (policy, why) = match stored {
        Some(stored) => match read(authority, &stored) {
            Ok((policy, of)) if of != generation => {
                (Policy { revision: policy.revision.next(), ..policy }, "signed anew for a restored store")
            }
            Ok(_) | Err(_) => return Ok(hold(authority, stored)),
        },
        None => (Policy::strict(node.id, now), "STRICT, since the node had no policy"),
    };
    tracing::warn!(node = %node.name, revision = %policy.revision, "the policy is {why}");
    let stored = sign(authority, generation, &policy, "hub")?;
    tx.put_policy(&stored)?;
    let row = AuditRow::new(now, "hub", "policy.sign", Outcome::Allowed);
    append(tx, &policy, &stored, AuditRow { detail: Some(why.to_owned()), ..row })?;
    Ok(hold(authority, stored))
}

/// The audit row of a revision.
pub(super) fn append(
    tx: &mut dyn Tx,
    policy: &Policy,
    stored: &StoredPolicy,
    row: AuditRow,
) -> Result<(), WriteError> {
    tx.append_audit(&AuditRow {
        node: Some(policy.node),
        policy_revision: Some(policy.revision),
        policy_hash: Some(*blake3::hash(&stored.document).as_bytes()),
        ..row
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use cortex_core::id::{NodeId, Revision};

    use super::*;

    #[test]
    fn every_bit_of_a_stored_policy_is_verified() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let authority = Authority::open_or_create(dir.path()).expect("an authority");
        let node = NodeId::mint(1, &[1; 10]);
        let policy = Policy::from_profile(node, "permissive", Revision(7), WallTime(5)).expect("built in");
        let row = sign(&authority, Generation(3), &policy, "hub").expect("it may be set");
        assert_eq!(read(&authority, &row), Ok((policy.clone(), Generation(3))));
        let refused = |row: &StoredPolicy| {
            let held = hold(&authority, row.clone()).policy.expect("a policy");
            assert_eq!((held.profile.as_str(), held.revision), ("unreadable", row.revision));
        };
        for at in 0..row.document.len() * 8 {
            let mut flipped = row.clone();
            flipped.document[at / 8] ^= 1 << (at % 8);
            refused(&flipped);
        }
        for at in 0..row.signature.len() * 8 {
            let mut flipped = row.clone();
            flipped.signature[at / 8] ^= 1 << (at % 8);
            refused(&flipped);
        }
        refused(&StoredPolicy { revision: Revision(8), ..row.clone() });
        let other = StoredPolicy { node: NodeId::mint(2, &[2; 10]), ..row };
        assert_eq!(read(&authority, &other).map_err(|refusal| refusal.code), Err(Code::PolicyInvalid));
    }
}
