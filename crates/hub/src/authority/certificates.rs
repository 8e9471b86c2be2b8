//! What the hub's certificates say: names, usages and times. None of it comes from outside.

use std::time::{Duration, SystemTime};

use cortex_core::Refusal;
use cortex_core::id::NodeId;
use cortex_core::node::NODE_URN;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::{SERVER_NAME, internal};
use crate::clock::random;

/// Life of a node certificate.
const NODE_LIFE: Duration = Duration::from_secs(24 * 3_600);
/// Clocks of nodes may be behind the hub's own certificate by this much.
const SERVER_BACKDATED: Duration = Duration::from_secs(90 * 24 * 3_600);
/// Clocks of nodes may be behind by this much.
const BACKDATED: Duration = Duration::from_secs(600);
/// Life of the authority and of the server certificate, which is made anew at each start.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);
/// How the authority calls itself. It is part of every chain, so it must not change.
const AUTHORITY_NAME: &str = "Cortex Hub authority";

/// What the authority's certificate says.
pub(super) fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(AUTHORITY_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    live_for(&mut params, SystemTime::now(), BACKDATED, AUTHORITY_LIFE);
    params
}

/// What the certificate of a node says: its id, and that it is a client.
///
/// # Errors
/// `internal`.
pub(super) fn node_params(node: NodeId, now: SystemTime) -> Result<CertificateParams, Refusal> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&node.to_string());
    params.subject_alt_names = vec![SanType::URI(ia5(&format!("{NODE_URN}{node}"))?)];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    live_for(&mut params, now, BACKDATED, NODE_LIFE);
    Ok(params)
}

/// The hub's own key and certificate.
pub(super) fn mint_server(
    issuer: &Issuer<'static, KeyPair>,
) -> Result<(PrivatePkcs8KeyDer<'static>, CertificateDer<'static>), rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(vec![SERVER_NAME.to_owned(), "localhost".to_owned()])?;
    params.distinguished_name = named("Cortex Hub");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    // Made anew at each start: a hub whose clock is ahead then must not lock its nodes out.
    live_for(&mut params, SystemTime::now(), SERVER_BACKDATED, AUTHORITY_LIFE);
    let certificate = params.signed_by(&key, issuer)?;
    Ok((PrivatePkcs8KeyDer::from(key.serialize_der()), certificate.der().clone()))
}

fn live_for(params: &mut CertificateParams, now: SystemTime, backdated: Duration, life: Duration) {
    params.not_before = (now - backdated).into();
    params.not_after = (now + life).into();
    let mut serial = random::<16>();
    // A serial number is a positive integer.
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn ia5(text: &str) -> Result<rcgen::string::Ia5String, Refusal> {
    text.try_into().map_err(internal)
}
