//! What others signed: certificate requests, and statements by keys that the hub knows.
//!
//! Never here: a key that is believed before its signature is.

use cortex_core::{Code, Refusal};
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData, SignatureAlgorithm};
use rustls_pki_types::alg_id;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::hash;

/// The object identifiers of a key on an elliptic curve, and of P-256.
const EC_KEY: &str = "1.2.840.10045.2.1";
const P256: &str = "1.2.840.10045.3.1.7";
/// No request for a P-256 or Ed25519 key comes near this.
const CSR_BYTES_MAX: usize = 8 * 1_024;

/// Checks an ECDSA P-256 signature with SHA-256 (ASN.1) over a statement, by a public key in
/// SubjectPublicKeyInfo (DER).
pub fn is_signed(key_der: &[u8], statement: &[u8], signature: &[u8]) -> bool {
    p256_key(key_der).is_some_and(|key| verifies(&key, statement, signature))
}

/// The point of a P-256 key in SubjectPublicKeyInfo (DER); `None` for anything else.
pub fn p256_key(key_der: &[u8]) -> Option<Vec<u8>> {
    let (rest, key) = SubjectPublicKeyInfo::from_der(key_der).ok()?;
    let curve = key.algorithm.parameters.as_ref()?.as_oid().ok()?.to_id_string();
    let kind = key.algorithm.algorithm.to_id_string();
    let point = key.subject_public_key.data.to_vec();
    let good = rest.is_empty() && kind == EC_KEY && curve == P256 && point.len() == 65;
    good.then_some(point)
}

/// The same by the point of a key.
pub(super) fn verifies(point: &[u8], statement: &[u8], signature: &[u8]) -> bool {
    verifier(alg_id::ECDSA_P256, alg_id::ECDSA_SHA256)
        .is_some_and(|verifier| verifier.verify_signature(point, statement, signature).is_ok())
}

fn verifier(
    key: rustls_pki_types::AlgorithmIdentifier,
    signature: rustls_pki_types::AlgorithmIdentifier,
) -> Option<&'static dyn rustls_pki_types::SignatureVerificationAlgorithm> {
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.all;
    let fits = |one: &&&'static dyn rustls_pki_types::SignatureVerificationAlgorithm| {
        one.public_key_alg_id() == key && one.signature_alg_id() == signature
    };
    algorithms.iter().find(fits).copied()
}

/// blake3 of the public key in a certificate request, without judging the request.
pub fn request_key_hash(csr_der: &[u8]) -> Option<[u8; 32]> {
    let (_, csr) = X509CertificationRequest::from_der(csr_der).ok()?;
    Some(hash(csr.certification_request_info.subject_pki.raw))
}

/// The public key of a request that its owner signed.
pub(super) struct RequestKey {
    algorithm: &'static SignatureAlgorithm,
    bytes: Vec<u8>,
}

impl PublicKeyData for RequestKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

/// The key of a request, when that can be read and is signed by it. Its names and usages are not looked at.
///
/// # Errors
/// `invalid_argument`, `too_large`.
pub(super) fn read_request(csr_der: &[u8]) -> Result<RequestKey, Refusal> {
    let invalid = |why: &str| Refusal::new(Code::InvalidArgument, format!("The certificate request {why}."));
    if csr_der.len() > CSR_BYTES_MAX {
        return Err(Refusal::new(
            Code::TooLarge,
            format!("The certificate request is above {CSR_BYTES_MAX} bytes."),
        ));
    }
    let (rest, csr) =
        X509CertificationRequest::from_der(csr_der).map_err(|_| invalid("is not PKCS #10 in DER"))?;
    if !rest.is_empty() {
        return Err(invalid("has bytes after its end"));
    }
    let key = &csr.certification_request_info.subject_pki;
    let curve = key.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok()).map(|o| o.to_id_string());
    let kind = (key.algorithm.algorithm.to_id_string(), csr.signature_algorithm.algorithm.to_id_string());
    let (algorithm, key_id, signature_id) = match (kind.0.as_str(), kind.1.as_str(), curve.as_deref()) {
        (EC_KEY, "1.2.840.10045.4.3.2", Some(P256)) => {
            (&PKCS_ECDSA_P256_SHA256, alg_id::ECDSA_P256, alg_id::ECDSA_SHA256)
        }
        ("1.3.101.112", "1.3.101.112", None) => (&PKCS_ED25519, alg_id::ED25519, alg_id::ED25519),
        _ => return Err(invalid("has a kind of key other than P-256 with SHA-256, or Ed25519")),
    };
    let bytes = key.subject_public_key.data.to_vec();
    let signed = csr.certification_request_info.raw;
    verifier(key_id, signature_id)
        .ok_or_else(|| invalid("has a kind of signature that cannot be checked"))?
        .verify_signature(&bytes, signed, &csr.signature_value.data)
        .map_err(|_| invalid("is not signed by its own key"))?;
    Ok(RequestKey { algorithm, bytes })
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, SigningKey as _};

    use super::*;

    #[test]
    fn a_signature_holds_for_its_key_and_statement_alone() {
        let keys = [KeyPair::generate(), KeyPair::generate()].map(|key| key.expect("a key"));
        let [key, other] = keys.each_ref().map(KeyPair::subject_public_key_info);
        let signature = keys[0].sign(b"statement").expect("signed");
        assert!(is_signed(&key, b"statement", &signature));
        assert!(!is_signed(&other, b"statement", &signature) && !is_signed(&key, b"statemenu", &signature));
        assert!(!is_signed(&key, b"statement", b"") && !is_signed(b"", b"statement", &signature));
        let ed25519 = KeyPair::generate_for(&PKCS_ED25519).expect("a key").subject_public_key_info();
        assert!(p256_key(&ed25519).is_none() && p256_key(&[&key[..], b"x"].concat()).is_none());
    }
}
