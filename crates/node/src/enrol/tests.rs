//! Show 5: every byte of what a hub answers to a join, and of a certificate, counts.

use cortex_core::id::InviteId;
use cortex_core::node::NODE_URN;
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rcgen::{SanType, SigningKey as _};

use super::*;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

fn node() -> NodeId {
    NodeId::mint(1, &[3; 10])
}

fn invite() -> InviteId {
    InviteId::mint(1, &[4; 10])
}

fn certificate(authority: &Authority, node: NodeId, key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::default();
    let urn = format!("{NODE_URN}{node}");
    params.subject_alt_names = vec![SanType::URI(urn.try_into().expect("a URN"))];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.signed_by(key, authority).expect("signed").der().to_vec()
}

fn answer(authority: &Authority, leaf: Vec<u8>, node: NodeId) -> mesh::EnrolResponse {
    let issuer = authority.der().to_vec();
    let hash = *blake3::hash(&[leaf.clone(), issuer.clone()].concat()).as_bytes();
    let said = JoinAnswer { node, name: "build-2", generation: Generation(1), recoveries_left: 5 };
    let proof = authority.key().sign(&join_statement(invite(), &said, &hash)).expect("signed");
    mesh::EnrolResponse {
        node_id: node.as_bytes().to_vec().into(),
        name: "build-2".to_owned(),
        certificate_chain_der: vec![leaf.into(), issuer.into()],
        generation: 1,
        recoveries_left: 5,
        proof: proof.into(),
    }
}

fn config() -> EnrolConfig {
    EnrolConfig {
        hub: "127.0.0.1:7441".to_owned(),
        invite: InviteText { authority: [0; 32], id: invite(), secret: [0; 32] },
        name: Name::parse("build-2").expect("a name"),
        data_dir: PathBuf::new(),
    }
}

#[test]
fn every_byte_of_an_answer_to_a_join_counts() {
    let (authority, key) = (authority(), KeyPair::generate().expect("a key"));
    let whole = answer(&authority, certificate(&authority, node(), &key), node());
    let pinned = authority.der().clone();
    outcome(&config(), whole.clone(), pinned.clone(), &key).expect("the whole answer is good");
    let bytes = whole.encode_to_vec();
    let (mut refused, mut same) = (0, Vec::new());
    for at in 0..bytes.len() {
        for bit in [0x01, 0x10, 0x80] {
            let mut flipped = bytes.clone();
            flipped[at] ^= bit;
            match mesh::EnrolResponse::decode(&flipped[..]) {
                Ok(decoded) if decoded == whole => same.push((at, bit)),
                Ok(decoded) => {
                    let judged = outcome(&config(), decoded, pinned.clone(), &key);
                    assert!(judged.is_err(), "byte {at} ^ {bit:#04x} of the answer was not noticed");
                    refused += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    println!("{} bytes, 3 flips each: {refused} refused, {same:?} decode to the same", bytes.len());
    assert!(same.is_empty(), "{same:?}");
}

#[test]
fn every_byte_of_a_certificate_counts() {
    let (authority, key) = (authority(), KeyPair::generate().expect("a key"));
    let leaf = certificate(&authority, node(), &key);
    let (issuer, spki) = (authority.der().clone(), key.subject_public_key_info());
    let judge = |leaf: &[u8], issuer: &[u8]| {
        let chain = [CertificateDer::from(leaf.to_vec()), CertificateDer::from(issuer.to_vec())];
        proof::own_chain(authority.der(), &chain, node(), &spki)
    };
    judge(&leaf, &issuer).expect("the whole chain is good");
    let flips = |whole: &[u8], judge: &dyn Fn(&[u8]) -> bool| {
        (0..whole.len())
            .flat_map(|at| [0x01, 0x10, 0x80].map(|bit| (at, bit)))
            .filter(|(at, bit)| {
                let mut flipped = whole.to_vec();
                flipped[*at] ^= bit;
                judge(&flipped)
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(flips(&leaf, &|leaf| judge(leaf, &issuer).is_ok()), [], "of {} bytes", leaf.len());
    assert_eq!(flips(&issuer, &|issuer| judge(&leaf, issuer).is_ok()), [], "of {} bytes", issuer.len());
}

#[test]
fn a_certificate_for_another_node_key_or_authority_is_not_kept() {
    let (ours, foreign) = (authority(), authority());
    let [key, other] = [KeyPair::generate(), KeyPair::generate()].map(|key| key.expect("a key"));
    let judge = |answer: mesh::EnrolResponse| {
        outcome(&config(), answer, ours.der().clone(), &key).map(drop).expect_err("refused").code
    };
    let elsewhere = NodeId::mint(1, &[9; 10]);
    for (what, answer) in [
        ("another key", answer(&ours, certificate(&ours, node(), &other), node())),
        ("another node", answer(&ours, certificate(&ours, elsewhere, &key), node())),
        ("another authority", answer(&foreign, certificate(&foreign, node(), &key), node())),
        ("signed by another authority", answer(&ours, certificate(&foreign, node(), &key), node())),
        (
            "no certificate",
            mesh::EnrolResponse { certificate_chain_der: vec![], ..answer(&ours, vec![], node()) },
        ),
    ] {
        assert_eq!(judge(answer), Code::WrongAuthority, "{what}");
    }
}
