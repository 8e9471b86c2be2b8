//! The doors to the hub and node crates: what the commands need of them, and no more. The only
//! place in this crate that names them.

pub(crate) mod hub;
pub(crate) mod node;

/// Makes aws-lc-rs the process's TLS provider. A second call changes nothing.
pub(crate) fn install_crypto() {
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed before");
    }
}
