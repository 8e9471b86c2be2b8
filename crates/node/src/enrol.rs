//! Joining a hub: an invite and a fresh key become an identity in the data directory. Before the hub
//! has answered only the key is written: a join whose answer was lost is repeated with it, and is
//! then the same join. Never here: the life after joining (`node`).

use std::path::PathBuf;
use std::time::Duration;

use cortex_core::id::{Epoch, Generation, NodeId};
use cortex_core::invite::InviteText;
use cortex_core::name::Name;
use cortex_core::recovery::{JoinAnswer, join_statement};
use cortex_core::{Code, Refusal, limits};
use cortex_wire::mesh;
use cortex_wire::mesh::enrolment_service_client::EnrolmentServiceClient;
use rcgen::PublicKeyData as _;
use rustls_pki_types::CertificateDer;

use crate::identity::{Credentials, DataDir, Identity};
use crate::{channel, proof, tls};

/// Longest time that joining takes.
const DEADLINE: Duration = Duration::from_secs(15);

/// What joining needs.
#[derive(Clone, Debug)]
pub struct EnrolConfig {
    /// The hub's address for nodes: `host:port`.
    pub hub: String,
    /// The invite.
    pub invite: InviteText,
    /// The name that the node would like.
    pub name: Name,
    /// Where the identity is kept; made when it is missing.
    pub data_dir: PathBuf,
}

/// The outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// The new identity.
    pub node_id: NodeId,
    /// The name in the hub's record.
    pub name: String,
}

/// Joins, within 15 s. A directory that joined with the same invite before is left as it is and
/// told again; one that joined otherwise is refused with `conflict`.
pub async fn enrol(config: EnrolConfig) -> Result<Enrolled, Refusal> {
    match tokio::time::timeout(DEADLINE, enrol_now(config.clone())).await {
        Ok(result) => result,
        Err(_) => Err(tls::unreachable(&config.hub, &"joining did not end in time")),
    }
}

async fn enrol_now(config: EnrolConfig) -> Result<Enrolled, Refusal> {
    let path = config.data_dir.clone();
    let (dir, held) = blocking(move || {
        let dir = DataDir::open(&path)?;
        let held = dir.identity()?;
        if held.is_some() {
            // Left by a process that ended between the last two steps of joining.
            dir.forget_joining_key()?;
        }
        Ok((dir, held))
    })
    .await?;
    if let Some(identity) = held {
        return joined_before(&config, identity);
    }
    let (dir, (key, recovery)) = blocking(move || {
        let keys = joining_keys(&dir)?;
        Ok((dir, keys))
    })
    .await?;
    let csr = request(&key)?;
    let (answer, authority) = match redeem(&config, csr, recovery.subject_public_key_info()).await {
        Ok(answer) => answer,
        Err(NotJoined { refusal, for_good }) => {
            if for_good {
                blocking(move || dir.forget_joining_keys()).await?;
            }
            return Err(refusal);
        }
    };
    let (identity, credentials) = outcome(&config, answer, authority, &key)?;
    let enrolled = Enrolled { node_id: identity.node, name: identity.name.clone() };
    blocking(move || dir.write_all(&credentials, &identity)).await?;
    tracing::info!(node = %enrolled.name, node_id = %enrolled.node_id, "joined the hub");
    Ok(enrolled)
}

/// The keys of a join that was not answered, or fresh ones, which are kept first: that of the node, and
/// the second one.
fn joining_keys(dir: &DataDir) -> Result<(rcgen::KeyPair, rcgen::KeyPair), Refusal> {
    let kept = dir.recovery_key()?.and_then(|pem| rcgen::KeyPair::from_pem(&pem).ok());
    let recovery = match kept {
        Some(key) => key,
        None => {
            let key = rcgen::KeyPair::generate().map_err(|error| key_failed(&error))?;
            dir.write_recovery_key(&key.serialize_pem())?;
            key
        }
    };
    Ok((joining_key(dir)?, recovery))
}

fn joining_key(dir: &DataDir) -> Result<rcgen::KeyPair, Refusal> {
    if let Some(key) = dir.joining_key()?.and_then(|pem| rcgen::KeyPair::from_pem(&pem).ok()) {
        return Ok(key);
    }
    let key = rcgen::KeyPair::generate().map_err(|error| key_failed(&error))?;
    dir.write_joining_key(&key.serialize_pem())?;
    Ok(key)
}

/// Why a join did not end well.
struct NotJoined {
    refusal: Refusal,
    /// The hub itself said no: the key is of no more use. Otherwise an earlier try with this key may
    /// have joined, and only the key can ask for its answer.
    for_good: bool,
}

impl From<Refusal> for NotJoined {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, for_good: false }
    }
}

impl From<tonic::Status> for NotJoined {
    fn from(status: tonic::Status) -> Self {
        let for_good = cortex_wire::error::code_of(&status).is_some_and(is_no);
        Self { refusal: cortex_wire::error::refusal_from_status(&status), for_good }
    }
}

/// Whether the hub said no with this code, and not that it could not tell.
const fn is_no(code: Code) -> bool {
    !matches!(code, Code::StoreUnavailable | Code::Internal | Code::RateLimited | Code::Timeout)
}

/// A certificate request for the key; its names are ignored by the hub.
pub(crate) fn request(key: &rcgen::KeyPair) -> Result<Vec<u8>, Refusal> {
    let params = rcgen::CertificateParams::new(Vec::new()).map_err(|error| key_failed(&error))?;
    let request = params.serialize_request(key).map_err(|error| key_failed(&error))?;
    Ok(request.der().to_vec())
}

/// Runs file work on a blocking thread.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|error| Refusal::new(Code::Internal, format!("File work was cut off: {error}.")))?
}

fn joined_before(config: &EnrolConfig, identity: Identity) -> Result<Enrolled, Refusal> {
    if identity.invite == config.invite.id {
        return Ok(Enrolled { node_id: identity.node, name: identity.name });
    }
    Err(Refusal::new(
        Code::Conflict,
        format!(
            "The data directory {} belongs to node {} of the hub at {}.",
            config.data_dir.display(),
            identity.name,
            identity.hub
        ),
    )
    .hint("Start that node with `cortex node start`; to join anew, remove the directory or give another `--data-dir`."))
}

async fn redeem(
    config: &EnrolConfig,
    csr_der: Vec<u8>,
    recovery_key: Vec<u8>,
) -> Result<(mesh::EnrolResponse, CertificateDer<'static>), NotJoined> {
    let stream = tls::dial(&config.hub, tls::enrolment_config(config.invite.authority)?).await?;
    let authority = tls::authority_of(&stream, config.invite.authority).ok_or_else(|| {
        Refusal::new(Code::WrongAuthority, "The hub did not present the authority that the invite names.")
    })?;
    let mut client = EnrolmentServiceClient::new(channel::over(stream, &config.hub).await?);
    let request = mesh::EnrolRequest {
        invite_id: config.invite.id.as_bytes().to_vec().into(),
        secret: config.invite.secret.to_vec().into(),
        name: config.name.to_string(),
        csr_der: csr_der.into(),
        protocol: limits::PROTOCOL,
        recovery_key_der: recovery_key.into(),
    };
    Ok((client.enrol(request).await?.into_inner(), authority))
}

/// What the answer gives, once all of it is checked: nothing is kept before.
fn outcome(
    config: &EnrolConfig,
    answer: mesh::EnrolResponse,
    authority: CertificateDer<'static>,
    key: &rcgen::KeyPair,
) -> Result<(Identity, Credentials), Refusal> {
    let node = cortex_wire::convert::node_from(&answer.node_id)?;
    let chain: Vec<_> =
        answer.certificate_chain_der.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
    let generation = Generation(answer.generation);
    let said = JoinAnswer { node, name: &answer.name, generation, recoveries_left: answer.recoveries_left };
    let statement = join_statement(config.invite.id, &said, &proof::hash_of_chain(&chain));
    proof::signed(&authority, &statement, &answer.proof)?;
    proof::own_chain(&authority, &chain, node, &key.subject_public_key_info())?;
    let credentials = Credentials { key_pem: key.serialize_pem(), chain, authority };
    // What TLS would refuse later is refused here, before anything is kept.
    tls::attach_config(&credentials)?;
    let identity = Identity {
        node,
        name: answer.name,
        hub: config.hub.clone(),
        invite: config.invite.id,
        generation,
        epoch: Epoch(0),
        audit_head: None,
    };
    Ok((identity, credentials))
}

pub(crate) fn key_failed(error: &rcgen::Error) -> Refusal {
    Refusal::new(Code::Internal, format!("A key or certificate request could not be made: {error}."))
}

#[cfg(test)]
mod tests;
