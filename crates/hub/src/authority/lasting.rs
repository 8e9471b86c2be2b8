//! Which client certificates hold in a handshake: those of this authority, also for a while outside
//! their own time. A node that was away, or a hub whose clock jumped, must not lock a node out; who
//! may attach is decided by the hub's record of the node at each attach, never by a date.

use std::sync::Arc;
use std::time::Duration;

use cortex_core::limits::CERTIFICATE_GRACE_MS;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as TlsError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};

/// Judges a certificate outside its time, within the grace, as at its end: chain, signature and
/// usage must hold as ever.
#[derive(Debug)]
pub(super) struct Lasting(pub(super) Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Lasting {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        match self.0.verify_client_cert(end_entity, intermediates, now) {
            Err(TlsError::InvalidCertificate(error)) if is_of_time(&error) => {
                let at = end_within_grace(end_entity, now).ok_or(TlsError::InvalidCertificate(error))?;
                self.0.verify_client_cert(end_entity, intermediates, at)
            }
            judged => judged,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

fn is_of_time(error: &CertificateError) -> bool {
    matches!(
        error,
        CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. }
    )
}

/// The end of a certificate whose time is not further from `now` than the grace.
fn end_within_grace(certificate: &CertificateDer<'_>, now: UnixTime) -> Option<UnixTime> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let validity = certificate.validity();
    let from = u64::try_from(validity.not_before.timestamp()).ok()?;
    let to = u64::try_from(validity.not_after.timestamp()).ok()?;
    let grace = CERTIFICATE_GRACE_MS / 1_000;
    let near = from <= now.as_secs().saturating_add(grace) && now.as_secs() <= to.saturating_add(grace);
    near.then(|| UnixTime::since_unix_epoch(Duration::from_secs(to)))
}
