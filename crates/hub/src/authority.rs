//! The hub's certificate authority: one key in the data directory, which signs node certificates
//! and the hub's own server certificate.
//!
//! Never here: names or usages taken from a request. What a node may call itself is decided by
//! the hub alone, and the key never leaves this file's types.

mod certificates;
mod lasting;
mod proof;

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use cortex_core::id::NodeId;
use cortex_core::limits::CERTIFICATE_GRACE_MS;
use cortex_core::node::NODE_URN;
use cortex_core::{Code, Refusal};
use cortex_wire::policy::SIGNED;
use rcgen::{Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SigningKey as _};
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};

use crate::clock::Clock;
use certificates::{authority_params, mint_server, node_params};
use lasting::Lasting;
pub use proof::{is_signed, p256_key, request_key_hash};
use proof::{read_request, verifies};

/// The DNS name that nodes ask for in the handshake, whatever the hub's address is.
pub const SERVER_NAME: &str = "hub.cortex.internal";
/// The authority. Printing it shows the certificate's fingerprint only.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    server_key: PrivatePkcs8KeyDer<'static>,
    server_certificate: CertificateDer<'static>,
    clock: Clock,
}

/// A certificate for a node.
#[derive(Clone, Debug)]
pub struct SignedNode {
    /// The node's certificate first, then the authority's; DER.
    pub chain_der: Vec<Vec<u8>>,
    /// blake3 of the node's public key (SubjectPublicKeyInfo, DER).
    pub key_hash: [u8; 32],
}

/// Who showed a certificate of this authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node that the certificate names.
    pub node: NodeId,
    /// blake3 of its public key.
    pub key_hash: [u8; 32],
    /// From when to when the certificate lasts, seconds since 1970.
    pub lasts: (i64, i64),
}

impl Authority {
    /// Reads the authority from `dir`, or makes it: `authority.key` (0600) and `authority.crt`. A
    /// key that is there is never replaced: its certificate is made anew when that is missing, and
    /// nodes go on trusting it.
    ///
    /// # Errors
    /// `bad_config` when the files cannot be read or written, or do not belong together.
    pub fn open_or_create(dir: &Path) -> Result<Self, Refusal> {
        Self::make_missing(dir)?;
        Self::open(dir)
    }

    /// Reads the authority from `dir`.
    ///
    /// # Errors
    /// `bad_config` when the files cannot be read, or do not belong together.
    pub fn open(dir: &Path) -> Result<Self, Refusal> {
        let (key_path, certificate_path) = paths(dir);
        let key = fs::read_to_string(&key_path).map_err(|e| unusable(&key_path, &e))?;
        let key = KeyPair::from_pem(&key).map_err(|e| unusable(&key_path, &e))?;
        let certificate = fs::read(&certificate_path).map_err(|e| unusable(&certificate_path, &e))?;
        let certificate =
            pem_to_der(&certificate).ok_or_else(|| unusable(&certificate_path, &"it is not PEM"))?;
        let public =
            key_hash_of(&certificate).ok_or_else(|| unusable(&certificate_path, &"it is not X.509"))?;
        if public != hash(&key.subject_public_key_info()) {
            return Err(unusable(&certificate_path, &"it does not belong to authority.key"));
        }
        let issuer = Issuer::new(authority_params(), key);
        let (server_key, server_certificate) = mint_server(&issuer).map_err(|e| unusable(dir, &e))?;
        Ok(Self { issuer, certificate, server_key, server_certificate, clock: Clock::default() })
    }

    /// The same, by another clock: it says how long certificates live from here on, and which of
    /// those that are shown have ended. The hub's own certificate was made by the one before.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Whether there is a key in `dir`.
    ///
    /// # Errors
    /// `bad_config` when that cannot be told.
    pub fn has_key(dir: &Path) -> Result<bool, Refusal> {
        there(&paths(dir).0)
    }

    fn make_missing(dir: &Path) -> Result<(), Refusal> {
        let (key_path, certificate_path) = paths(dir);
        if there(&certificate_path)? {
            return Ok(());
        }
        if there(&key_path)? {
            tracing::warn!("the authority's certificate is made anew; invites that are out are void");
        } else {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(internal)?;
            write_file(&key_path, key.serialize_pem().as_bytes(), 0o600)
                .map_err(|e| unusable(&key_path, &e))?;
        }
        certify(dir, &key_path, &certificate_path)
    }

    /// blake3 of the authority's certificate (DER): what an invite names.
    pub fn fingerprint(&self) -> [u8; 32] {
        hash(&self.certificate)
    }

    /// The authority's certificate (DER).
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Signs the key of a certificate request (PKCS #10, DER) for `node`. Names and usages of the
    /// request are ignored.
    ///
    /// # Errors
    /// `invalid_argument` when the request cannot be read, has another kind of key than P-256 or
    /// Ed25519, or is not signed by its own key.
    pub fn sign_node(&self, csr_der: &[u8], node: NodeId) -> Result<SignedNode, Refusal> {
        let key = read_request(csr_der)?;
        let params = node_params(node, self.clock.system())?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(internal)?;
        let chain_der = vec![certificate.der().to_vec(), self.certificate.to_vec()];
        Ok(SignedNode { chain_der, key_hash: hash(&key.subject_public_key_info()) })
    }

    /// Signs a statement with the authority's key: ECDSA P-256 with SHA-256, ASN.1.
    ///
    /// # Errors
    /// `internal`.
    pub fn sign(&self, statement: &[u8]) -> Result<Vec<u8>, Refusal> {
        self.issuer.key().sign(statement).map_err(internal)
    }

    /// Whether the certificate that somebody showed lets its node attach: in its own time, and for
    /// [`CERTIFICATE_GRACE_MS`] outside of it.
    ///
    /// # Errors
    /// `unauthenticated`: the node has its recovery key for that.
    pub fn lasts(&self, identity: &Identity) -> Result<(), Refusal> {
        let now = self.clock.wall().0.div_euclid(1_000);
        let grace = i64::try_from(CERTIFICATE_GRACE_MS / 1_000).unwrap_or(i64::MAX);
        let (from, to) = identity.lasts;
        if from.saturating_sub(grace) <= now && now <= to.saturating_add(grace) {
            return Ok(());
        }
        Err(Refusal::new(Code::Unauthenticated, "The node's certificate has ended, by the hub's clock.")
            .hint("Wait: the node recovers by its second key. Look with `cortex node recoveries NODE`."))
    }

    /// Signs the bytes of a policy (ECDSA P-256 with SHA-256, DER), under a prefix that says what the
    /// signature means.
    ///
    /// # Errors
    /// `internal`.
    pub fn sign_policy(&self, document: &[u8]) -> Result<Vec<u8>, Refusal> {
        self.issuer.key().sign(&[SIGNED, document].concat()).map_err(internal)
    }

    /// Whether the bytes of a policy are what this authority signed.
    pub fn signed_policy(&self, document: &[u8], signature: &[u8]) -> bool {
        verifies(self.issuer.key().der_bytes(), &[SIGNED, document].concat(), signature)
    }

    /// TLS of the node port: 1.3 only, HTTP/2 only; a client certificate is optional, since one
    /// who joins has none, and is checked against this authority when it is shown. It identifies its
    /// node outside its own time too: whether that may attach is decided then, by [`Self::lasts`] and
    /// its record.
    ///
    /// # Errors
    /// `internal` when the parts do not fit together.
    pub fn server_config(&self) -> Result<ServerConfig, Refusal> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).map_err(internal)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(internal)?;
        let verifier = Arc::new(Lasting(verifier));
        let chain = vec![self.server_certificate.clone(), self.certificate.clone()];
        let key = PrivateKeyDer::Pkcs8(self.server_key.clone_key());
        let mut config = ServerConfig::builder_with_details(provider, Arc::new(self.clock))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(internal)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(internal)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let since = self.system().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(UnixTime::since_unix_epoch(since))
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({}, key withheld)", cortex_core::invite::to_hex(&self.fingerprint()))
    }
}

/// The node that a certificate of this authority names. The handshake has verified the chain.
pub fn identity(certificate_der: &[u8]) -> Option<Identity> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate_der).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let node = names.value.general_names.iter().find_map(|name| {
        let x509_parser::extensions::GeneralName::URI(uri) = name else { return None };
        uri.strip_prefix(NODE_URN)?.parse().ok()
    })?;
    let validity = certificate.validity();
    let lasts = (validity.not_before.timestamp(), validity.not_after.timestamp());
    Some(Identity { node, key_hash: hash(certificate.public_key().raw), lasts })
}

fn paths(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join("authority.key"), dir.join("authority.crt"))
}

/// Whether a file is there. That it cannot be told is an error, and not a no.
fn there(path: &Path) -> Result<bool, Refusal> {
    path.try_exists().map_err(|e| unusable(path, &e))
}

/// Makes the certificate of the key. It comes last: its presence says that both are there.
fn certify(dir: &Path, key_path: &Path, certificate_path: &Path) -> Result<(), Refusal> {
    let key = fs::read_to_string(key_path).map_err(|e| unusable(key_path, &e))?;
    let key = KeyPair::from_pem(&key).map_err(|e| unusable(key_path, &e))?;
    let certificate = authority_params().self_signed(&key).map_err(internal)?;
    write_file(certificate_path, certificate.pem().as_bytes(), 0o644)
        .map_err(|e| unusable(certificate_path, &e))?;
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| unusable(dir, &e))?;
    tracing::info!("the authority's certificate is made");
    Ok(())
}

fn write_file(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let unfinished = path.with_extension("tmp");
    let _absent = fs::remove_file(&unfinished);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}

fn pem_to_der(pem: &[u8]) -> Option<CertificateDer<'static>> {
    use rustls_pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(pem).ok()
}

fn key_hash_of(certificate_der: &[u8]) -> Option<[u8; 32]> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate_der).ok()?;
    Some(hash(certificate.public_key().raw))
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

fn internal(error: impl std::fmt::Display) -> Refusal {
    tracing::error!(%error, "certificate authority failed");
    Refusal::new(Code::Internal, "The hub's certificate authority failed.")
}

fn unusable(path: &Path, error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(Code::BadConfig, format!("The hub's authority in {} cannot be used: {error}.", path.display()))
        .hint("Restore authority.key and authority.crt of the data directory from a backup; with a new authority all nodes must join again.")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa};
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::server::danger::ClientCertVerifier as _;

    use super::*;

    fn node() -> NodeId {
        NodeId::mint(1, &[7; 10])
    }

    #[test]
    fn the_authority_is_the_same_after_a_restart_and_its_key_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("temporary directory");
        let first = Authority::open_or_create(dir.path()).expect("created").fingerprint();
        let again = Authority::open_or_create(dir.path()).expect("opened").fingerprint();
        assert_eq!(first, again);
        let mode = fs::metadata(dir.path().join("authority.key")).expect("key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_without_its_certificate_is_kept_and_its_nodes_go_on_trusting_it() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (key_path, certificate_path) = paths(dir.path());
        let before = Authority::open_or_create(dir.path()).expect("created");
        let key = fs::read(&key_path).expect("a key");
        fs::remove_file(&certificate_path).expect("removed");
        let after = Authority::open_or_create(dir.path()).expect("opened");
        assert_eq!(fs::read(&key_path).expect("a key"), key);

        // What a node does: the old certificate is its root, the new one signs.
        let mut roots = RootCertStore::empty();
        roots.add(before.certificate.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let chain = [after.certificate.clone()];
        let name = SERVER_NAME.try_into().expect("a name");
        verifier
            .build()
            .expect("a verifier")
            .verify_server_cert(&after.server_certificate, &chain, &name, &[], UnixTime::now())
            .expect("trusted");
    }

    #[test]
    fn an_authority_that_cannot_be_looked_at_is_refused_and_left_alone() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().expect("temporary directory");
        Authority::open_or_create(dir.path()).expect("created");
        let (key_path, certificate_path) = paths(dir.path());
        let key = fs::read(&key_path).expect("a key");
        fs::remove_file(&certificate_path).expect("removed");
        // A loop: neither there nor not there, for root too.
        symlink(&certificate_path, &certificate_path).expect("a loop");
        let refusal = Authority::open_or_create(dir.path()).expect_err("refused");
        assert_eq!(refusal.code, Code::BadConfig);
        assert!(refusal.hint.contains("backup"));
        assert_eq!(fs::read(&key_path).expect("a key"), key);
    }

    #[test]
    fn a_certificate_identifies_its_node_for_ever_and_lets_it_in_for_the_grace_outside_its_time() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (authority, other) = (dir.path().join("a"), dir.path().join("b"));
        let [authority, other] = [authority, other].map(|dir| {
            fs::create_dir(&dir).expect("a directory");
            Authority::open_or_create(&dir).expect("created")
        });
        let key = KeyPair::generate().expect("key");
        let csr = CertificateParams::default().serialize_request(&key).expect("request");
        let chain = |of: &Authority| {
            let chain = of.sign_node(csr.der(), node()).expect("signed").chain_der;
            chain.into_iter().map(CertificateDer::from).collect::<Vec<_>>()
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let webpki = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let verifier = Lasting(webpki.expect("a verifier"));
        let day = Duration::from_secs(24 * 3_600);
        let judge = |chain: &[CertificateDer<'_>], days: u32| {
            let now = Clock::default().ahead(day * days).current_time().expect("a time");
            verifier.verify_client_cert(&chain[0], &chain[1..], now)
        };
        for days in [0, 2, 89, 2_000] {
            judge(&chain(&authority), days).unwrap_or_else(|error| panic!("{days} days: {error}"));
            judge(&chain(&other), days).expect_err("another authority");
        }
        let ahead = |days: u32| {
            let authority = Authority::open_or_create(&dir.path().join("a")).expect("opened");
            authority.with_clock(Clock::default().ahead(day * days))
        };
        let shown = identity(&chain(&authority)[0]).expect("an identity");
        for (days, lets_in) in [(0, true), (1, true), (7, true), (9, false), (400, false)] {
            let judged = ahead(days).lasts(&shown);
            assert_eq!(judged.is_ok(), lets_in, "{days} days");
            assert!(judged.err().is_none_or(|refusal| refusal.code == Code::Unauthenticated));
        }
        for (days, lets_in) in [(2, true), (6, true), (9, false)] {
            let early = chain(&ahead(days));
            judge(&early, 0).expect("signed while the clock was ahead");
            let shown = identity(&early[0]).expect("an identity");
            assert_eq!(authority.lasts(&shown).is_ok(), lets_in, "signed {days} days ahead");
        }
    }

    #[test]
    fn a_certificate_names_the_node_and_nothing_of_the_request() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let authority = Authority::open_or_create(dir.path()).expect("created");
        let key = KeyPair::generate().expect("key");
        let mut wish = CertificateParams::new(vec!["evil.example".to_owned()]).expect("params");
        wish.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let csr = wish.serialize_request(&key).expect("request");
        let signed = authority.sign_node(csr.der(), node()).expect("signed");
        let shown = identity(&signed.chain_der[0]).expect("identity");
        assert_eq!((shown.node, shown.key_hash), (node(), signed.key_hash));
        let (_, certificate) = x509_parser::parse_x509_certificate(&signed.chain_der[0]).expect("X.509");
        assert!(!certificate.is_ca());
        let usage = certificate.extended_key_usage().expect("readable").expect("present").value;
        assert!(usage.client_auth && !usage.server_auth);
    }

    #[test]
    fn a_request_with_any_byte_flipped_never_gets_a_certificate_for_another_key() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let authority = Authority::open_or_create(dir.path()).expect("created");
        let key = KeyPair::generate().expect("key");
        let csr = CertificateParams::default().serialize_request(&key).expect("request");
        let whole = authority.sign_node(csr.der(), node()).expect("signed").key_hash;
        let mut refused = 0;
        for at in 0..csr.der().len() {
            let mut bytes = csr.der().to_vec();
            bytes[at] ^= 0x10;
            match authority.sign_node(&bytes, node()) {
                // Outside the signed part the encoding has some freedom.
                Ok(signed) => assert_eq!(signed.key_hash, whole, "byte {at}"),
                Err(_) => refused += 1,
            }
        }
        assert!(refused + 4 > csr.der().len(), "{refused} of {} refused", csr.der().len());
    }
}
