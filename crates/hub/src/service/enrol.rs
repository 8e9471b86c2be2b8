//! Joining: an invite becomes a node, its certificate and its policy, in one transaction.
//!
//! Never here: an answer that tells a wrong secret from an unknown invite, a secret in a log or an
//! audit row, a certificate handed out for a join that is not committed.

pub mod recover;
mod tally;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::event::{Event, EventKind};
use cortex_core::id::{Generation, InviteId, NodeId, Revision};
use cortex_core::invite::{self, Invite};
use cortex_core::limits::{
    ATTACH_STORE_MS_MAX, ATTACHES_AT_ONCE_MAX, JOIN_FAILURES_WINDOW_MS, PROOF_BYTES_MAX, PROTOCOL,
    PROTOCOL_MIN, RECOVERIES_MAX,
};
use cortex_core::message::SignedPolicy;
use cortex_core::name::Name;
use cortex_core::node::{Node, Recovery};
use cortex_core::policy::Policy;
use cortex_core::recovery::{JoinAnswer, join_statement};
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use cortex_store::{StoreExt, Tx, WriteError};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::network::Sources;
use super::{Context, store_refusal, write_refusal};
use crate::authority::{self, Authority, SignedNode};
use crate::clock::new_node_id;
use crate::secret;
use crate::service::policies::signed;
use tally::Tally;

const DEADLINE: Duration = Duration::from_millis(ATTACH_STORE_MS_MAX);

/// The use case. Cheap to clone.
#[derive(Clone)]
pub struct Enrol {
    context: Context,
    authority: Arc<Authority>,
    sources: Arc<Mutex<Sources>>,
    at_once: Arc<Semaphore>,
    tally: Arc<Tally>,
}

/// A request to join.
#[derive(Clone)]
pub struct Joining {
    /// The invite's id, as it came.
    pub invite: Bytes,
    /// The invite's secret, as it came.
    pub secret: Bytes,
    /// The name that the node would like.
    pub name: String,
    /// The certificate request, DER.
    pub csr_der: Bytes,
    /// The protocol version that the node speaks.
    pub protocol: u32,
    /// The public half of its recovery key, as it came.
    pub recovery_key: Option<Bytes>,
}

/// A node that joined.
#[derive(Clone, Debug)]
pub struct Joined {
    /// Its id.
    pub node: NodeId,
    /// Its name in the hub's record.
    pub name: Name,
    /// Its certificate first, then the authority's; DER.
    pub chain_der: Vec<Vec<u8>>,
    /// The store's generation.
    pub generation: Generation,
    /// How often it may recover.
    pub recoveries_left: u32,
    /// What the authority signed of all this.
    pub proof: Vec<u8>,
}

/// What is kept of a join.
struct Kept {
    name: Name,
    recoveries_left: u32,
    generation: Generation,
}

/// A join whose parts could be read.
#[derive(Clone)]
struct Request {
    invite: InviteId,
    secret_hash: [u8; 32],
    name: Name,
    recovery_key: Option<Vec<u8>>,
}

/// What a transaction made of a join.
enum Committed {
    Joined(Joined),
    /// The same key joined with this invite before, as this node. Looking did not tell: that join
    /// was on its way through the store.
    Before(NodeId),
}

impl Enrol {
    /// The use case.
    pub fn new(context: Context, authority: Arc<Authority>) -> Self {
        let at_once = Arc::new(Semaphore::new(ATTACHES_AT_ONCE_MAX));
        let sources = Arc::new(Mutex::new(Sources::new("Too many failed joins came from this address.")));
        Self { context, authority, sources, at_once, tally: Arc::default() }
    }

    /// Redeems an invite for a node's certificate. `source` is the peer's address, whose failures
    /// are counted.
    ///
    /// # Errors
    /// `rate_limited`, `version_unsupported`, `invite_malformed`, `invite_unknown`, `invite_used`,
    /// `invite_expired`, `conflict` when the name is taken (the invite stays good),
    /// `invalid_argument`, `store_unavailable`.
    pub async fn join(&self, joining: Joining, source: Option<IpAddr>) -> Result<Joined, Refusal> {
        self.sources().check(source, self.context.clock.now())?;
        let _permit = self.at_once.try_acquire().map_err(|_| busy())?;
        let shown = InviteId::from_slice(&joining.invite);
        let (joined, counts): (_, fn(Code) -> bool) = match self.prove(&joining).await {
            Ok((request, before)) => {
                (self.join_proven(request, &joining.csr_der, before).await, is_of_the_invite)
            }
            // Before the secret is proven anybody may ask, so all of it counts.
            Err(refusal) => (Err(refusal), |code| code != Code::StoreUnavailable),
        };
        if let Err(refusal) = &joined {
            if counts(refusal.code) {
                self.sources().fail(source, self.context.clock.now());
            }
            self.audit_refusal(shown, refusal).await;
        }
        joined
    }

    /// Tells the audit log of the refused joins that had no row of their own, at the end of their
    /// minute, until `shutdown`.
    pub async fn run_tally(self, shutdown: CancellationToken) {
        loop {
            let clock = &self.context.clock;
            let over = async { tokio::time::sleep_until(clock.instant(self.tally.over().await)).await };
            tokio::select! {
                () = over => {}
                () = shutdown.cancelled() => {}
            }
            let more = self.tally.end(clock.now());
            if more > 0 {
                let row = AuditRow::new(clock.wall(), "invite:?", "node.join", Outcome::Denied);
                let reason = Some(Code::RateLimited.as_str().to_owned());
                let detail = Some(format!("{more} more within {} s", JOIN_FAILURES_WINDOW_MS / 1_000));
                self.append(AuditRow { reason, detail, ..row }).await;
            }
            if shutdown.is_cancelled() {
                return;
            }
        }
    }

    /// Entries of the map of addresses, for the counter tests.
    pub fn entries(&self) -> usize {
        self.sources().len()
    }

    /// The request of one who knows the secret of an invite that may be used, and the node that it
    /// made before.
    async fn prove(&self, joining: &Joining) -> Result<(Request, Option<NodeId>), Refusal> {
        let request = parse(joining)?;
        let joined_before = self.look(&request).await?;
        Ok((request, joined_before))
    }

    async fn join_proven(
        &self,
        request: Request,
        csr_der: &Bytes,
        joined_before: Option<NodeId>,
    ) -> Result<Joined, Refusal> {
        let mut id = joined_before.unwrap_or_else(|| new_node_id(&self.context.clock));
        loop {
            // Signed before the commit, so that a join that is committed has its certificate.
            let signed = self.sign(csr_der, id).await?;
            match self.commit(request.clone(), id, signed).await? {
                Committed::Joined(joined) => return Ok(joined),
                // Once at most: an invite joins one node, and `id` is that one from here on.
                Committed::Before(node) => id = node,
            }
        }
    }

    /// A certificate; on a thread that may be busy, and only for those who know the secret.
    async fn sign(&self, csr_der: &Bytes, id: NodeId) -> Result<SignedNode, Refusal> {
        let (csr, authority) = (csr_der.clone(), Arc::clone(&self.authority));
        tokio::task::spawn_blocking(move || authority.sign_node(&csr, id))
            .await
            .map_err(|_| Refusal::new(Code::Internal, "Signing the certificate failed."))?
    }

    /// Refuses what the transaction would refuse, before work is done for it. Of an invite that was
    /// used the node that may ask again for its answer; whether this is its key, its request tells.
    /// That an invite has expired is left to the transaction: a join that came in time may be on its
    /// way through the store, and is then asked for again.
    async fn look(&self, request: &Request) -> Result<Option<NodeId>, Refusal> {
        let (id, now) = (request.invite, self.context.clock.wall());
        let found = self.context.store.read(DEADLINE, move |view| {
            let invite = view.invite(id)?;
            let used_by = invite.as_ref().and_then(|invite| invite.used_by);
            let node = used_by.map(|id| view.node(id)).transpose()?.flatten();
            Ok((invite, node))
        });
        let (found, node) = found.await.map_err(store_refusal)?;
        // A stand-in is compared when there is none, so that both ways take the same time.
        let hash = found.as_ref().map_or([0; 32], |invite| invite.secret_hash);
        let same = secret::same(&hash, &request.secret_hash);
        let invite = found.filter(|_| same).ok_or_else(invite::unknown)?;
        if let Some(node) = node {
            invite::rejoin(&invite, &node, &node.key_hash, now)?;
            return Ok(Some(node.id));
        }
        match invite::redeem(invite, NodeId::new(uuid::Uuid::nil()), now) {
            Err(refusal) if refusal.code != Code::InviteExpired => Err(refusal),
            Ok(_) | Err(_) => Ok(None),
        }
    }

    async fn commit(&self, request: Request, id: NodeId, signed: SignedNode) -> Result<Committed, Refusal> {
        let now = self.context.clock.wall();
        let SignedNode { chain_der, key_hash } = signed;
        fail::fail_point!("hub::enrol_before_commit");
        let (directory, invite) = (self.context.directory.clone(), request.invite);
        let authority = Arc::clone(&self.authority);
        let written = self.context.store.write(DEADLINE, move |tx| {
            let invite = tx
                .invite(request.invite)?
                .filter(|invite| secret::same(&invite.secret_hash, &request.secret_hash))
                .ok_or_else(invite::unknown)?;
            let before = invite.used_by.map(|id| tx.node(id)).transpose()?.flatten();
            if let Some(node) = before {
                invite::rejoin(&invite, &node, &key_hash, now)?;
                if node.id != id {
                    return Ok(Err(node.id));
                }
                let node = again(tx, &invite, node, &request, now)?;
                let kept = kept(&node, tx.generation()?);
                tx.after_commit(Box::new(move || directory.put_node(node)));
                return Ok(Ok(kept));
            }
            let (node, policy) = redeem(tx, &authority, invite, &request, id, key_hash, now)?;
            let kept = kept(&node, tx.generation()?);
            // Also when the one who joins has gone away by then.
            tx.after_commit(Box::new(move || {
                directory.put_node(node);
                directory.put_policy(policy);
            }));
            Ok(Ok(kept))
        });
        let Kept { name, recoveries_left, generation } = match written.await.map_err(write_refusal)? {
            Ok(joined) => joined,
            Err(before) => return Ok(Committed::Before(before)),
        };
        fail::fail_point!("hub::enrol_after_commit");
        tracing::info!(node = %name, node_id = %id, "node joined");
        let answer = JoinAnswer { node: id, name: name.as_str(), generation, recoveries_left };
        let proof = self.authority.sign(&join_statement(invite, &answer, &hash_of_chain(&chain_der)))?;
        Ok(Committed::Joined(Joined { node: id, name, chain_der, generation, recoveries_left, proof }))
    }

    async fn audit_refusal(&self, invite: Option<InviteId>, refusal: &Refusal) {
        if refusal.code == Code::StoreUnavailable || !self.tally.count(self.context.clock.now()) {
            return;
        }
        let actor = invite.map_or_else(|| "invite:?".to_owned(), |id| format!("invite:{id}"));
        let mut row = AuditRow::new(self.context.clock.wall(), actor, "node.join", Outcome::Denied);
        row.reason = Some(refusal.code.as_str().to_owned());
        self.append(row).await;
    }

    async fn append(&self, row: AuditRow) {
        let written = self.context.store.write(DEADLINE, move |tx| {
            tx.append_audit(&row)?;
            Ok(())
        });
        if let Err(error) = written.await {
            tracing::error!(%error, "the refusal of a join is not in the audit log");
        }
    }

    fn sources(&self) -> std::sync::MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_protocol(protocol: u32) -> Result<(), Refusal> {
    if (PROTOCOL_MIN..=PROTOCOL).contains(&protocol) {
        return Ok(());
    }
    let message =
        format!("The node speaks protocol {protocol}; this hub speaks {PROTOCOL_MIN} to {PROTOCOL}.");
    Err(Refusal::new(Code::VersionUnsupported, message))
}

/// blake3 of certificates, one after the other.
fn hash_of_chain(chain_der: &[Vec<u8>]) -> [u8; 32] {
    *blake3::hash(&chain_der.concat()).as_bytes()
}

fn kept(node: &Node, generation: Generation) -> Kept {
    let recoveries_left = node.recovery.as_ref().map_or(0, |recovery| recovery.left);
    Kept { name: node.name.clone(), recoveries_left, generation }
}

fn parse(joining: &Joining) -> Result<Request, Refusal> {
    check_protocol(joining.protocol)?;
    let malformed = || Refusal::new(Code::InviteMalformed, "The invite's id or secret has the wrong length.");
    let invite = InviteId::from_slice(&joining.invite).ok_or_else(malformed)?;
    let secret: [u8; 32] = joining.secret.as_ref().try_into().map_err(|_| malformed())?;
    let recovery_key = joining.recovery_key.as_ref().map(|key| recovery_key(key)).transpose()?;
    Ok(Request {
        invite,
        secret_hash: secret::hash(&secret),
        name: Name::parse(&joining.name)?,
        recovery_key,
    })
}

fn recovery_key(key: &[u8]) -> Result<Vec<u8>, Refusal> {
    if key.len() <= PROOF_BYTES_MAX && authority::p256_key(key).is_some() {
        return Ok(key.to_vec());
    }
    Err(Refusal::new(Code::InvalidArgument, "The node's recovery key is no P-256 key."))
}

/// Whether the refusal tells that an invite is of no use: who shows such ones is slowed down.
const fn is_of_the_invite(code: Code) -> bool {
    matches!(code, Code::InviteUnknown | Code::InviteUsed | Code::InviteExpired)
}

/// The same join once more: its node is told what it was told before. It has the recovery key that it
/// shows now: the first one may have gone with its answer.
fn again(
    tx: &mut dyn Tx,
    invite: &Invite,
    mut node: Node,
    request: &Request,
    now: WallTime,
) -> Result<Node, WriteError> {
    let recovery = new_recovery(request);
    if node.recovery != recovery {
        node.recovery = recovery;
        tx.put_node(&node)?;
    }
    let mut row = AuditRow::new(now, format!("invite:{}", invite.id), "node.join", Outcome::Allowed);
    row.node = Some(node.id);
    row.detail = Some(format!("{} asked again for the answer to its join", node.name));
    tx.append_audit(&row)?;
    Ok(node)
}

fn new_recovery(request: &Request) -> Option<Recovery> {
    let key = request.recovery_key.clone()?;
    Some(Recovery { key, count: 0, left: RECOVERIES_MAX, last: None })
}

fn redeem(
    tx: &mut dyn Tx,
    authority: &Authority,
    invite: Invite,
    request: &Request,
    id: NodeId,
    key_hash: [u8; 32],
    now: WallTime,
) -> Result<(Node, SignedPolicy), WriteError> {
    let invite = invite::redeem(invite, id, now)?;
    if tx.node_named(&request.name)?.is_some() {
        let message = format!("There is a node named `{}` already.", request.name);
        return Err(Refusal::new(Code::Conflict, message)
            .hint("Choose another name with `--name`, or remove the old node with `cortex node rm`.")
            .into());
    }
    let node = new_node(&invite, request, id, key_hash, now);
    let policy = Policy::from_profile(id, &invite.profile, Revision(1), now)
        .unwrap_or_else(|| Policy::strict(id, now));
    tx.put_invite(&invite)?;
    tx.put_node(&node)?;
    let actor = format!("invite:{}", invite.id);
    let stored = signed::sign(authority, tx.generation()?, &policy, &actor)?;
    tx.put_policy(&stored)?;
    let mut row = AuditRow::new(now, actor.clone(), "node.join", Outcome::Allowed);
    row.node = Some(id);
    row.policy_revision = Some(policy.revision);
    row.policy_hash = Some(*blake3::hash(&stored.document).as_bytes());
    row.detail = Some(format!("{} joined with the profile {}", node.name, policy.profile));
    tx.append_audit(&row)?;
    let event = Event::new(EventKind::NodeJoined, now).node(id).actor(actor);
    tx.append_event(&event.subject(node.name.as_str()))?;
    Ok((node, signed::hold(authority, stored)))
}

fn new_node(invite: &Invite, request: &Request, id: NodeId, key_hash: [u8; 32], now: WallTime) -> Node {
    Node {
        labels: invite.labels.clone(),
        owner: invite.owner,
        recovery: new_recovery(request),
        ..Node::joined(id, request.name.clone(), key_hash, now)
    }
}

fn busy() -> Refusal {
    Refusal::new(Code::RateLimited, "Too many nodes join at this moment.").detail("retry_after_s", "1")
}

#[cfg(test)]
mod tests;
