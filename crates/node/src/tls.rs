//! TLS 1.3 to the hub, whose certificate is always for `hub.cortex.internal` whatever its address.
//! At joining the authority is the one named by the invite, checked in the handshake, before the
//! secret leaves; later it is the stored one. Never here: a trust store of the system.

use std::sync::Arc;
use std::time::Duration;

use cortex_core::{Code, Refusal, limits};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WantsClientCert, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::identity::Credentials;

/// The name that every hub's certificate carries.
pub const HUB_NAME: &str = "hub.cortex.internal";
/// Time to reach the hub's port.
const CONNECT: Duration = Duration::from_secs(5);

/// For joining: trusts the authority whose certificate has this blake3, when it is presented.
pub(crate) fn enrolment_config(authority: [u8; 32]) -> Result<ClientConfig, Refusal> {
    let provider = provider();
    let verifier = Arc::new(PinnedAuthority { authority, provider: Arc::clone(&provider) });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| internal(&error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// For recovering: trusts the stored authority, and shows no certificate.
pub(crate) fn stored_config(authority: &CertificateDer<'static>) -> Result<ClientConfig, Refusal> {
    let mut config = trusting(authority)?.with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// For attaching: trusts the stored authority, and shows the node's certificate.
pub(crate) fn attach_config(credentials: &Credentials) -> Result<ClientConfig, Refusal> {
    let key = PrivateKeyDer::from_pem_slice(credentials.key_pem.as_bytes())
        .map_err(|error| internal(&format!("{error:?}")))?;
    let mut config = trusting(&credentials.authority)?
        .with_client_auth_cert(credentials.chain.clone(), key)
        .map_err(|error| internal(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn trusting(
    authority: &CertificateDer<'static>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Refusal> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).map_err(|error| internal(&error))?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| internal(&error))?;
    Ok(builder.with_root_certificates(roots))
}

/// The certificate of the invite's authority among those that the hub presented.
pub(crate) fn authority_of(
    stream: &TlsStream<TcpStream>,
    authority: [u8; 32],
) -> Option<CertificateDer<'static>> {
    let presented = stream.get_ref().1.peer_certificates()?;
    presented.iter().find(|der| is_authority(der, authority)).map(|der| der.clone().into_owned())
}

/// Connects and shakes hands, within its deadlines.
pub(crate) async fn dial(hub: &str, config: ClientConfig) -> Result<TlsStream<TcpStream>, Refusal> {
    let stream = match tokio::time::timeout(CONNECT, TcpStream::connect(hub)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(unreachable(hub, &error)),
        Err(_) => return Err(unreachable(hub, &"nothing answered in time")),
    };
    stream.set_nodelay(true).map_err(|error| unreachable(hub, &error))?;
    let name = ServerName::try_from(HUB_NAME).map_err(|error| internal(&error))?;
    let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
    match tokio::time::timeout(Duration::from_millis(limits::TLS_HANDSHAKE_MS_MAX), handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(handshake_failed(hub, &error)),
        Err(_) => Err(unreachable(hub, &"the TLS handshake did not end in time")),
    }
}

/// The refusal for a hub that cannot be reached.
pub(crate) fn unreachable(hub: &str, why: &impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::HubUnreachable, format!("The hub at {hub} cannot be reached: {why}."))
}

fn handshake_failed(hub: &str, error: &std::io::Error) -> Refusal {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::InvalidCertificate(why)) = tls {
        return Refusal::new(
            Code::WrongAuthority,
            format!(
                "The hub at {hub} does not prove the expected authority ({why:?}). Nothing was sent to it."
            ),
        );
    }
    unreachable(hub, error)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn internal(error: &impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::Internal, format!("TLS cannot be set up: {error}."))
        .hint("Restore the data directory, or remove it and join again with a new invite.")
}

fn is_authority(der: &CertificateDer<'_>, authority: [u8; 32]) -> bool {
    *blake3::hash(der).as_bytes() == authority
}

/// Accepts a chain only when the authority of the invite is in it and is its root.
#[derive(Debug)]
struct PinnedAuthority {
    authority: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let found = intermediates.iter().find(|der| is_authority(der, self.authority)).ok_or_else(unknown)?;
        let mut roots = RootCertStore::empty();
        roots.add(found.clone().into_owned())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
                .build()
                .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
