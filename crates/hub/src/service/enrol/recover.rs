//! Recovery: a node whose certificate has ended gets another one by its second key, and a copy of its
//! disk is noticed by the count. Shares with joining what slows down those who guess.
//!
//! Never here: a question to the store before the recovery key has signed.

use std::net::IpAddr;

use bytes::Bytes;
use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::event::{Event, EventKind};
use cortex_core::id::NodeId;
use cortex_core::limits::PROOF_BYTES_MAX;
use cortex_core::lock::Locks;
use cortex_core::node::{Node, Recovery};
use cortex_core::recovery::{Recovered, answer_statement, recover, request_statement, without_key};
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use cortex_store::{StoreExt, Tx, WriteError};

use super::{DEADLINE, Enrol, busy, check_protocol, hash_of_chain};
use crate::authority::{self, SignedNode};
use crate::mesh::{Mesh, put_quarantine};
use crate::service::write_refusal;

/// The use case. Cheap to clone.
#[derive(Clone)]
pub struct Recover {
    enrol: Enrol,
    mesh: Mesh,
}

/// A request to recover, as it came.
#[derive(Clone, Debug)]
pub struct Recovering {
    /// The node's id.
    pub node: Bytes,
    /// A certificate request for a fresh key, DER.
    pub csr_der: Bytes,
    /// How often the node has recovered.
    pub counter: u32,
    /// By its recovery key.
    pub signature: Bytes,
    /// The protocol version that the node speaks.
    pub protocol: u32,
}

/// A node that recovered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its certificate first, then the authority's; DER.
    pub chain_der: Vec<Vec<u8>>,
    /// How often it has recovered.
    pub counter: u32,
    /// How often it may yet.
    pub left: u32,
    /// By the authority.
    pub proof: Vec<u8>,
}

impl Recover {
    /// The use case beside joining.
    pub const fn new(enrol: Enrol, mesh: Mesh) -> Self {
        Self { enrol, mesh }
    }

    /// Gives a node another certificate. `source` is the peer's address, whose failures are counted.
    ///
    /// # Errors
    /// `rate_limited`, `version_unsupported`, `unauthenticated`, `node_revoked`, `cloned_identity`,
    /// `locked`, `recoveries_exhausted`, `invalid_argument`, `store_unavailable`.
    pub async fn recover(&self, asked: Recovering, source: Option<IpAddr>) -> Result<Answer, Refusal> {
        self.enrol.sources().check(source, self.enrol.context.clock.now())?;
        let _permit = self.enrol.at_once.try_acquire().map_err(|_| busy())?;
        let answer = self.recover_now(&asked).await;
        if let Err(refusal) = &answer
            && refusal.code != Code::StoreUnavailable
        {
            self.enrol.sources().fail(source, self.enrol.context.clock.now());
            self.tell(&asked, refusal).await;
        }
        answer
    }

    async fn recover_now(&self, asked: &Recovering) -> Result<Answer, Refusal> {
        let id = self.prove(asked)?;
        // Signed before the commit, so that a recovery that is committed has its certificate.
        let SignedNode { chain_der, key_hash } = self.enrol.sign(&asked.csr_der, id).await?;
        fail::fail_point!("hub::recover_before_commit");
        let recovery = self.commit(id, asked.counter, key_hash).await?;
        fail::fail_point!("hub::recover_after_commit");
        let (counter, left) = (recovery.count, recovery.left);
        let statement = answer_statement(id, counter, left, &hash_of_chain(&chain_der));
        let proof = self.enrol.authority.sign(&statement)?;
        tracing::info!(node_id = %id, counter, left, "a node recovered its identity");
        Ok(Answer { chain_der, counter, left, proof })
    }

    /// The node whose recovery key signed the request.
    fn prove(&self, asked: &Recovering) -> Result<NodeId, Refusal> {
        check_protocol(asked.protocol)?;
        let unknown = || Refusal::new(Code::NodeRevoked, "This node was removed, or the hub never knew it.");
        let id = NodeId::from_slice(&asked.node).ok_or_else(unknown)?;
        let node = self.enrol.context.directory.node(id).ok_or_else(unknown)?;
        let recovery = node.recovery.as_ref().ok_or_else(without_key)?;
        let csr = *blake3::hash(&asked.csr_der).as_bytes();
        let statement = request_statement(&self.enrol.authority.fingerprint(), id, asked.counter, &csr);
        let signature = &asked.signature;
        if signature.len() <= PROOF_BYTES_MAX && authority::is_signed(&recovery.key, &statement, signature) {
            return Ok(id);
        }
        Err(Refusal::new(Code::Unauthenticated, "The request is not signed by the node's recovery key.")
            .hint("Join again with a new invite; `cortex invite` on the hub makes one."))
    }

    /// The decision, in one transaction with its rows. A copy of an identity is shut out by it.
    async fn commit(&self, id: NodeId, counter: u32, key: [u8; 32]) -> Result<Recovery, Refusal> {
        let now = self.enrol.context.clock.wall();
        let (directory, mesh) = (self.enrol.context.directory.clone(), self.mesh.clone());
        let runtime = tokio::runtime::Handle::current();
        let work = move |tx: &mut dyn Tx| {
            let unknown = || Refusal::new(Code::NodeRevoked, "This node was removed from the hub.");
            let node = tx.node(id)?.ok_or_else(unknown)?;
            let locks = Locks::new(tx.locks()?);
            match recover(&node, locks.on_node(id, &node.labels, now), counter, key) {
                Ok(Recovered::Again(recovery)) => {
                    record(tx, &node, "asked again for the answer to its recovery".to_owned(), now)?;
                    Ok(Ok(recovery))
                }
                Ok(Recovered::Anew(recovery)) => {
                    let detail =
                        format!("recovered for the {}. time; {} left", recovery.count, recovery.left);
                    record(tx, &node, detail, now)?;
                    let node = Node { key_hash: key, recovery: Some(recovery.clone()), ..node };
                    tx.put_node(&node)?;
                    tx.after_commit(Box::new(move || directory.put_node(node)));
                    Ok(Ok(recovery))
                }
                Err(refusal) if refusal.code == Code::ClonedIdentity && !node.quarantined => {
                    put_quarantine(tx, node, now)?;
                    let told = refusal.clone();
                    tx.after_commit(Box::new(move || {
                        let _runtime = runtime.enter();
                        directory.quarantine(id);
                        mesh.close_node(id, told);
                    }));
                    Ok(Err(refusal))
                }
                Err(refusal) => Err(refusal.into()),
            }
        };
        self.enrol.context.store.write(DEADLINE, work).await.map_err(write_refusal)?
    }

    async fn tell(&self, asked: &Recovering, refusal: &Refusal) {
        if !self.enrol.tally.count(self.enrol.context.clock.now()) {
            return;
        }
        let id = NodeId::from_slice(&asked.node);
        let name = id.and_then(|id| self.enrol.context.directory.node(id)).map(|node| node.name.to_string());
        let actor = format!("node:{}", name.as_deref().unwrap_or("?"));
        let row = AuditRow::new(self.enrol.context.clock.wall(), actor, "node.recover", Outcome::Denied);
        let node = id.filter(|_| name.is_some());
        self.enrol.append(AuditRow { node, reason: Some(refusal.code.as_str().to_owned()), ..row }).await;
    }
}

fn record(tx: &mut dyn Tx, node: &Node, detail: String, now: WallTime) -> Result<(), WriteError> {
    let actor = format!("node:{}", node.name);
    let event = Event::new(EventKind::NodeChanged, now).node(node.id).actor(actor.as_str());
    tx.append_event(&event.subject(node.name.as_str()).detail(detail.as_str()))?;
    let row = AuditRow::new(now, actor, "node.recover", Outcome::Allowed);
    tx.append_audit(&AuditRow { node: Some(node.id), detail: Some(detail), ..row })?;
    Ok(())
}
