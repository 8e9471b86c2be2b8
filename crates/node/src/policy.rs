//! The node's own check of its policy: the bytes that the hub's authority signed, for this node, of
//! this generation, kept on its disk. What does not verify allows nothing. Never here: what a
//! policy means (`cortex_core::policy`), and how its text is read (`cortex_wire::policy`).

use std::io;

use bytes::Bytes;
use cortex_core::id::{Generation, NodeId};
use cortex_core::limits::POLICY_BYTES_MAX;
use cortex_core::message::SignedPolicy;
use cortex_core::policy::Policy;
use cortex_core::{Code, Refusal};
use cortex_wire::policy;
use rustls_pki_types::CertificateDer;

use crate::identity::{DataDir, unusable};
use crate::proof;

/// The policy that was verified last, with its signature.
const POLICY: &str = "policy";
/// A signature of P-256 in DER is shorter.
const SIGNATURE_BYTES_MAX: usize = 80;

/// What the bytes say, when the authority signed them for this node and this generation.
///
/// # Errors
/// `policy_invalid`.
pub(crate) fn verify(
    authority: &CertificateDer<'_>,
    node: NodeId,
    generation: Generation,
    signed: &SignedPolicy,
) -> Result<Policy, Refusal> {
    let invalid = |message: &str| Refusal::new(Code::PolicyInvalid, message);
    let text = [policy::SIGNED, &signed.document].concat();
    if !proof::is_signed(authority, &text, &signed.signature) {
        return Err(invalid("The policy is not signed by the authority of this node's hub."));
    }
    let (policy, of) = policy::read(&signed.document)?;
    if policy.node != node {
        return Err(invalid("The policy is another node's."));
    }
    if of != generation {
        return Err(invalid("The policy is of another generation of the hub's store."));
    }
    Ok(policy)
}

impl DataDir {
    /// Keeps a policy that was verified; durable when this returns.
    pub(crate) fn write_policy(&self, signed: &SignedPolicy) -> Result<(), Refusal> {
        let length = u8::try_from(signed.signature.len()).unwrap_or(u8::MAX);
        self.replace(POLICY, &[&[length], signed.signature.as_ref(), signed.document.as_ref()].concat())
    }

    /// The policy that was kept, not verified; `None` when there is none, or none that has the form
    /// of one.
    pub(crate) fn kept_policy(&self) -> Result<Option<SignedPolicy>, Refusal> {
        let bytes = match std::fs::read(self.join(POLICY)) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(self.path(), &error)),
        };
        let length = bytes.first().copied().map_or(usize::MAX, usize::from);
        let bounded = length <= SIGNATURE_BYTES_MAX && bytes.len() <= 1 + length + POLICY_BYTES_MAX;
        if !bounded || bytes.len() <= length {
            return Ok(None);
        }
        let (signature, document) = (bytes.slice(1..=length), bytes.slice(1 + length..));
        Ok(Some(SignedPolicy { policy: None, document, signature }))
    }
}

#[cfg(test)]
mod tests {
    use cortex_core::id::Revision;
    use cortex_core::time::WallTime;
    use rcgen::{CertificateParams, KeyPair, SigningKey as _};

    use super::*;

    const GENERATION: Generation = Generation(3);

    fn node() -> NodeId {
        NodeId::mint(1, &[1; 10])
    }

    struct Authority {
        key: KeyPair,
        certificate: CertificateDer<'static>,
    }

    impl Authority {
        fn new() -> Self {
            let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
            let certificate = CertificateParams::default().self_signed(&key).expect("a certificate");
            Self { certificate: certificate.der().clone(), key }
        }

        fn sign(&self, policy: &Policy, generation: Generation) -> SignedPolicy {
            let document = policy::write(policy, generation).expect("it may be set");
            let signature = self.key.sign(&[policy::SIGNED, &document].concat()).expect("signed");
            SignedPolicy { policy: None, document, signature: signature.into() }
        }

        fn verify(&self, signed: &SignedPolicy) -> Result<Policy, Code> {
            verify(&self.certificate, node(), GENERATION, signed).map_err(|refusal| refusal.code)
        }
    }

    fn permissive() -> Policy {
        Policy::from_profile(node(), "permissive", Revision(7), WallTime(5)).expect("built in")
    }

    #[test]
    fn a_policy_holds_that_the_authority_signed_for_this_node_and_generation() {
        let authority = Authority::new();
        let signed = authority.sign(&permissive(), GENERATION);
        assert_eq!(authority.verify(&signed), Ok(permissive()));
        let others = Policy { node: NodeId::mint(2, &[2; 10]), ..permissive() };
        for foreign in [
            Authority::new().sign(&permissive(), GENERATION),
            authority.sign(&others, GENERATION),
            authority.sign(&permissive(), Generation(2)),
            authority.sign(&permissive(), Generation(4)),
            SignedPolicy::default(),
        ] {
            assert_eq!(authority.verify(&foreign), Err(Code::PolicyInvalid));
        }
        let bare = authority.key.sign(&signed.document).expect("signed");
        let without_purpose = SignedPolicy { signature: bare.into(), ..signed };
        assert_eq!(authority.verify(&without_purpose), Err(Code::PolicyInvalid));
    }

    #[test]
    fn every_bit_of_a_policy_on_the_wire_is_verified() {
        use prost::Message as _;
        let authority = Authority::new();
        let signed = authority.sign(&permissive(), GENERATION);
        let message = cortex_wire::mesh::Policy { document: signed.document, signature: signed.signature };
        let bytes = message.encode_to_vec();
        for at in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            let Ok(read) = cortex_wire::mesh::Policy::decode(flipped.as_slice()) else { continue };
            let signed = SignedPolicy { policy: None, document: read.document, signature: read.signature };
            assert_eq!(authority.verify(&signed), Err(Code::PolicyInvalid), "bit {at}");
        }
    }

    #[test]
    fn every_bit_of_a_policy_on_disk_is_verified() {
        let authority = Authority::new();
        let folder = tempfile::tempdir().expect("a temporary directory");
        let dir = DataDir::open(folder.path()).expect("a data directory");
        assert_eq!(dir.kept_policy(), Ok(None));
        dir.write_policy(&authority.sign(&permissive(), GENERATION)).expect("kept");
        let read = || dir.kept_policy().expect("readable");
        assert_eq!(authority.verify(&read().expect("it is there")), Ok(permissive()));
        let bytes = std::fs::read(dir.join(POLICY)).expect("kept");
        for at in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            std::fs::write(dir.join(POLICY), &flipped).expect("written");
            let verified = read().map(|signed| authority.verify(&signed));
            assert!(matches!(verified, None | Some(Err(Code::PolicyInvalid))), "bit {at}");
        }
        for length in 0..bytes.len() {
            std::fs::write(dir.join(POLICY), &bytes[..length]).expect("written");
            let verified = read().map(|signed| authority.verify(&signed));
            assert!(matches!(verified, None | Some(Err(Code::PolicyInvalid))), "{length} bytes");
        }
    }
}
