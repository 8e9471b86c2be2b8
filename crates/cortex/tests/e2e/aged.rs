//! A node whose certificate has ended.

use std::path::Path;

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType,
};
use serde_json::Value;

use crate::world::World;

/// Puts a certificate that ended years ago in the place of the node's own: of the same authority, for
/// the same key and node.
pub(crate) fn age(world: &World, node_dir: &Path) {
    let read = |path: &Path| std::fs::read_to_string(path).expect("a file");
    let authority = world.path("hub");
    let mut issuer = CertificateParams::default();
    issuer.distinguished_name = DistinguishedName::new();
    issuer.distinguished_name.push(DnType::CommonName, "Cortex Hub authority");
    let issuer =
        Issuer::new(issuer, KeyPair::from_pem(&read(&authority.join("authority.key"))).expect("a key"));
    let identity: Value = serde_json::from_str(&read(&node_dir.join("node.json"))).expect("JSON");
    let urn = format!("urn:cortex:node:{}", identity["node_id"].as_str().expect("an id"));
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(urn.try_into().expect("a URN"))];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 1, 2);
    let key = KeyPair::from_pem(&read(&node_dir.join("node.key"))).expect("a key");
    let aged = params.signed_by(&key, &issuer).expect("signed");
    let chain = aged.pem() + &read(&authority.join("authority.crt"));
    std::fs::write(node_dir.join("node.crt"), chain).expect("written");
}
