//! Joining: the authority is checked before the secret leaves.

use std::sync::Arc;

use cortex_core::invite::InviteText;
use cortex_core::{Code, Refusal};
use cortex_node::enrol::enrol;
use cortex_wire::error::refusal_into_status;
use rustls_pki_types::pem::PemObject as _;
use tokio::io::AsyncReadExt as _;
use tonic::Status;

use super::hub::{Hub, authority, node_id, server_identity};
use super::node::enrol_config;

#[tokio::test]
async fn a_node_joins_once_and_is_told_the_same_again() {
    let hub = Hub::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let config = enrol_config(&hub, folder.path().join("node"));
    let enrolled = enrol(config.clone()).await.expect("joined");
    assert_eq!((enrolled.node_id, enrolled.name.as_str()), (node_id(), "build-2"));
    assert_eq!(enrol(config.clone()).await.expect("the same invite"), enrolled);

    let other = InviteText { id: cortex_core::id::InviteId::mint(99, &[9; 10]), ..hub.invite() };
    let refusal = enrol(cortex_node::enrol::EnrolConfig { invite: other, ..config }).await.expect_err("held");
    assert_eq!(refusal.code, Code::Conflict);
}

#[tokio::test]
async fn a_join_whose_answer_was_lost_is_repeated_with_the_same_key() {
    use std::os::unix::fs::PermissionsExt as _;
    let hub = Hub::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let config = enrol_config(&hub, folder.path().join("node"));
    hub.answer_joins(Some(Status::unavailable("the answer is lost on its way")));
    enrol(config.clone()).await.expect_err("no answer came");
    let kept = config.data_dir.join("joining.key");
    assert_eq!(kept.metadata().expect("the key is kept").permissions().mode() & 0o777, 0o600);
    assert!(!config.data_dir.join("node.json").exists());
    hub.answer_joins(None);
    enrol(config.clone()).await.expect("joined");
    let keys = hub.requested_keys();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1], "the same key, so that it is the same join");
    assert!(!kept.exists(), "its place is node.key from here on");
    assert!(config.data_dir.join("node.key").exists());
}

#[tokio::test]
async fn the_key_of_a_join_goes_only_when_the_hub_itself_said_no() {
    let hub = Hub::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let config = enrol_config(&hub, folder.path().join("node"));
    let kept = config.data_dir.join("joining.key");
    let of_the_hub = |code| refusal_into_status(&Refusal::new(code, "no"));
    for unsure in [
        of_the_hub(Code::StoreUnavailable),
        of_the_hub(Code::RateLimited),
        of_the_hub(Code::Internal),
        Status::unavailable("a proxy, and nobody behind it"),
        Status::permission_denied("a proxy"),
        Status::unimplemented("a hub that is still starting"),
        Status::failed_precondition("anybody"),
        Status::resource_exhausted("anybody"),
    ] {
        hub.answer_joins(Some(unsure.clone()));
        enrol(config.clone()).await.expect_err("not joined");
        assert!(kept.exists(), "{unsure:?}");
    }
    // Somebody else answers at the hub's address for a while.
    let (addr, authority) = hub.stop().await;
    let foreign = Hub::start_at(addr, super::hub::authority()).await;
    let refusal = enrol(config.clone()).await.expect_err("not the hub");
    assert_eq!(refusal.code, Code::WrongAuthority);
    assert!(kept.exists(), "the hub itself was not asked");
    foreign.stop().await;
    let hub = Hub::start_at(addr, authority).await;
    hub.answer_joins(Some(of_the_hub(Code::InviteUsed)));
    enrol(config.clone()).await.expect_err("the hub said no");
    assert!(!kept.exists());
}

#[tokio::test]
async fn a_directory_that_joined_keeps_no_second_key() {
    let hub = Hub::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let config = enrol_config(&hub, folder.path().join("node"));
    enrol(config.clone()).await.expect("joined");
    // What a kill right before the end of joining leaves.
    let left = config.data_dir.join("joining.key");
    std::fs::copy(config.data_dir.join("node.key"), &left).expect("a copy");
    enrol(config.clone()).await.expect("told again");
    assert!(!left.exists());
}

#[tokio::test]
async fn a_refused_invite_leaves_nothing_behind() {
    let hub = Hub::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = enrol_config(&hub, folder.path().join("node"));
    config.invite.secret = [0; 32];
    let refusal = enrol(config.clone()).await.expect_err("a wrong secret");
    assert_eq!(refusal.code, Code::InviteUnknown);
    assert!(!config.data_dir.join("node.key").exists());
    assert!(!config.data_dir.join("joining.key").exists());
    assert!(!config.data_dir.join("node.json").exists());
}

#[tokio::test]
async fn a_foreign_hub_never_receives_a_byte_of_the_invite() {
    let real = Hub::start().await;
    let (chain, key) = server_identity(&authority());
    let chain = rustls_pki_types::CertificateDer::pem_slice_iter(chain.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("PEM");
    let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a pair");
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("bound");
    let foreign = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a caller");
        let mut heard = Vec::new();
        if let Ok(mut stream) = tokio_rustls::TlsAcceptor::from(Arc::new(tls)).accept(stream).await {
            // An error is the end of what was said.
            let _end = stream.read_to_end(&mut heard).await;
        }
        heard
    });
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = enrol_config(&real, folder.path().join("node"));
    config.hub = addr.to_string();
    let refusal = enrol(config).await.expect_err("not the hub");
    assert_eq!(refusal.code, Code::WrongAuthority, "{refusal}");
    assert_eq!(foreign.await.expect("it listened"), b"", "nothing is said after the handshake");
}

#[tokio::test]
async fn a_hub_that_is_not_there_is_named() {
    let hub = Hub::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let config = enrol_config(&hub, folder.path().join("node"));
    let (addr, _) = hub.stop().await;
    let refusal = enrol(config).await.expect_err("nobody listens");
    assert_eq!(refusal.code, Code::HubUnreachable);
    assert!(refusal.message.contains(&addr.to_string()));
}
