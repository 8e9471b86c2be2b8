//! What a node checks of the hub's word before it keeps it: certificates of its own, and what the
//! authority signed. TLS has told who speaks; this tells that what came is whole and meant for here.

use std::sync::Arc;

use cortex_core::id::NodeId;
use cortex_core::node::NODE_URN;
use cortex_core::{Code, Refusal};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, UnixTime, alg_id};
use x509_parser::extensions::GeneralName;

/// Refuses certificates unless they are one for this node and this key (SubjectPublicKeyInfo, DER),
/// and the authority's own that signed it. Of its time nothing is judged: clocks differ.
///
/// # Errors
/// `wrong_authority`.
pub(crate) fn own_chain(
    authority: &CertificateDer<'_>,
    chain: &[CertificateDer<'_>],
    node: NodeId,
    key: &[u8],
) -> Result<(), Refusal> {
    let [leaf, issuer] = chain else { return Err(wrong("is not two certificates")) };
    if issuer != authority {
        return Err(wrong("holds another authority"));
    }
    let (rest, parsed) = x509_parser::parse_x509_certificate(leaf)
        .map_err(|_| wrong("holds no certificate that can be read"))?;
    let end = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).map_err(|_| wrong("holds an authority that cannot sign"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    let verifier = verifier.map_err(|_| wrong("cannot be checked"))?;
    let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(end));
    verifier.verify_client_cert(leaf, &[], at).map_err(|_| wrong("is not signed by the hub's authority"))?;
    if !rest.is_empty() || parsed.public_key().raw != key {
        return Err(wrong("is for another key"));
    }
    let urn = format!("{NODE_URN}{node}");
    let names = parsed.subject_alternative_name().ok().flatten();
    let named = names.is_some_and(|names| names.value.general_names == [GeneralName::URI(&urn)]);
    if named { Ok(()) } else { Err(wrong("is for another node")) }
}

/// Refuses a statement that the authority has not signed.
///
/// # Errors
/// `wrong_authority`.
pub(crate) fn signed(
    authority: &CertificateDer<'_>,
    statement: &[u8],
    signature: &[u8],
) -> Result<(), Refusal> {
    if is_signed(authority, statement, signature) {
        return Ok(());
    }
    Err(wrong("is not the one that the hub's authority signed"))
}

/// Whether the authority has signed these bytes.
pub(crate) fn is_signed(authority: &CertificateDer<'_>, text: &[u8], signature: &[u8]) -> bool {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(authority) else { return false };
    let key = &parsed.public_key().subject_public_key.data;
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.all;
    let verifier = algorithms.iter().find(|one| {
        one.public_key_alg_id() == alg_id::ECDSA_P256 && one.signature_alg_id() == alg_id::ECDSA_SHA256
    });
    verifier.is_some_and(|verifier| verifier.verify_signature(key, text, signature).is_ok())
}

/// blake3 of certificates, one after the other.
pub(crate) fn hash_of_chain(chain: &[CertificateDer<'_>]) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    for certificate in chain {
        hash.update(certificate);
    }
    *hash.finalize().as_bytes()
}

fn wrong(why: &str) -> Refusal {
    Refusal::new(Code::WrongAuthority, format!("The hub's answer {why}; nothing of it was kept."))
}
