//! Stand-in for the hub's certificate authority: the signatures that the rest is written against.

use std::path::Path;

use cortex_core::Refusal;

/// The certificate authority of this hub.
#[derive(Debug)]
pub struct Authority {
    fingerprint: [u8; 32],
}

impl Authority {
    /// Opens the authority in `dir`.
    pub fn open_or_create(dir: &Path) -> Result<Self, Refusal> {
        Ok(Self { fingerprint: crate::secret::hash(dir.as_os_str().as_encoded_bytes()) })
    }

    /// blake3 of its certificate.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}
