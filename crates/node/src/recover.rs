//! Coming back after the certificate has ended: the recovery key, made at joining, asks for another
//! one. The fresh key is kept before it is sent, so that an answer that is lost can be asked for again.
//!
//! Never here: when to do that (`actor`).

use std::sync::Arc;
use std::time::Duration;

use cortex_core::recovery::{answer_statement, request_statement};
use cortex_core::{Code, Refusal, limits};
use cortex_wire::mesh;
use cortex_wire::mesh::enrolment_service_client::EnrolmentServiceClient;
use rcgen::{PublicKeyData as _, SigningKey as _};
use rustls_pki_types::CertificateDer;

use crate::enrol::{blocking, key_failed, request};
use crate::identity::{Credentials, DataDir, Identity};
use crate::{channel, link, proof, tls};

/// Longest time that it takes.
const DEADLINE: Duration = Duration::from_secs(15);

/// What is asked, and with what.
struct Asked {
    identity: Identity,
    authority: CertificateDer<'static>,
    key: rcgen::KeyPair,
    request: mesh::RecoverRequest,
}

/// Gets another certificate, for a fresh key, and keeps both.
///
/// # Errors
/// What the hub says: `node_revoked`, `cloned_identity`, `locked`, `recoveries_exhausted`,
/// `unauthenticated`; `wrong_authority` for an answer that is not whole; `hub_unreachable`.
pub(crate) async fn recover(dir: &Arc<DataDir>, hub: &str) -> Result<(), Refusal> {
    match tokio::time::timeout(DEADLINE, recover_now(dir, hub)).await {
        Ok(result) => result,
        Err(_) => Err(tls::unreachable(hub, &"recovering did not end in time")),
    }
}

async fn recover_now(dir: &Arc<DataDir>, hub: &str) -> Result<(), Refusal> {
    let from = Arc::clone(dir);
    let asked = blocking(move || ask(&from)).await?;
    tracing::info!(counter = asked.request.counter, "the certificate has ended; it is recovered");
    let stream = tls::dial(hub, tls::stored_config(&asked.authority)?).await?;
    let mut client = EnrolmentServiceClient::new(channel::over(stream, hub).await?);
    let answer = client.recover(asked.request.clone()).await;
    let answer = answer.map_err(|status| link::refused(hub, &status))?.into_inner();
    let left = answer.recoveries_left;
    let credentials = outcome(&asked, answer)?;
    let (to, counter) = (Arc::clone(dir), asked.request.counter.saturating_add(1));
    blocking(move || to.write_recovered(&credentials, counter)).await?;
    tracing::info!(counter, left, "recovered");
    Ok(())
}

fn ask(dir: &DataDir) -> Result<Asked, Refusal> {
    let identity = dir.identity()?.ok_or_else(|| no_key(dir))?;
    let authority = dir.authority()?;
    let recovery = dir.recovery_key()?.ok_or_else(|| no_key(dir))?;
    let recovery = rcgen::KeyPair::from_pem(&recovery).map_err(|error| key_failed(&error))?;
    let key = fresh_key(dir)?;
    let csr = request(&key)?;
    let counter = dir.recoveries()?;
    let fingerprint = *blake3::hash(&authority).as_bytes();
    let statement = request_statement(&fingerprint, identity.node, counter, blake3::hash(&csr).as_bytes());
    let signature = recovery.sign(&statement).map_err(|error| key_failed(&error))?;
    let request = mesh::RecoverRequest {
        node_id: identity.node.as_bytes().to_vec().into(),
        csr_der: csr.into(),
        counter,
        signature: signature.into(),
        protocol: limits::PROTOCOL,
    };
    Ok(Asked { identity, authority, key, request })
}

/// The key of a recovery that was not answered, or a fresh one, which is kept first.
fn fresh_key(dir: &DataDir) -> Result<rcgen::KeyPair, Refusal> {
    if let Some(key) = dir.recovering_key()?.and_then(|pem| rcgen::KeyPair::from_pem(&pem).ok()) {
        return Ok(key);
    }
    let key = rcgen::KeyPair::generate().map_err(|error| key_failed(&error))?;
    dir.write_recovering_key(&key.serialize_pem())?;
    Ok(key)
}

/// What the answer gives, once all of it is checked.
fn outcome(asked: &Asked, answer: mesh::RecoverResponse) -> Result<Credentials, Refusal> {
    let chain: Vec<_> =
        answer.certificate_chain_der.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
    let (node, hash) = (asked.identity.node, proof::hash_of_chain(&chain));
    let statement = answer_statement(node, answer.counter, answer.recoveries_left, &hash);
    proof::signed(&asked.authority, &statement, &answer.proof)?;
    proof::own_chain(&asked.authority, &chain, node, &asked.key.subject_public_key_info())?;
    if answer.counter != asked.request.counter.saturating_add(1) {
        let message = "The hub's answer counts recoveries otherwise than this node; nothing of it was kept.";
        return Err(Refusal::new(Code::WrongAuthority, message));
    }
    Ok(Credentials { key_pem: asked.key.serialize_pem(), chain, authority: asked.authority.clone() })
}

fn no_key(dir: &DataDir) -> Refusal {
    let message = format!("There is no recovery key in {}.", dir.path().display());
    Refusal::new(Code::Unauthenticated, message)
        .hint("Restore the data directory, or remove it and join again with a new invite.")
}
