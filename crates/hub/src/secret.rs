//! Secrets: a type that cannot be printed, and the hash under which the store knows them.

use std::fmt;

/// A secret on its way to the one who asked for it, or from the one who shows it.
pub struct Secret(String);

impl Secret {
    /// Wraps.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The text: for the answer to the one who asked for it, and nowhere else.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// blake3 of the text.
    pub fn hash(&self) -> [u8; 32] {
        hash(self.0.as_bytes())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(withheld)")
    }
}

/// blake3 of a secret. Fast is right here: the secrets are 256 random bits, not passwords.
pub fn hash(secret: &[u8]) -> [u8; 32] {
    *blake3::hash(secret).as_bytes()
}

/// Compares in constant time.
pub fn same(left: &[u8; 32], right: &[u8; 32]) -> bool {
    use subtle::ConstantTimeEq;
    left.ct_eq(right).into()
}
