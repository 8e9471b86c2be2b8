//! Names of content: the blake3 hash of the bytes themselves, so that the same content has the same
//! name on every machine, and bytes that came from elsewhere can be checked against theirs.

use std::fmt;
use std::str::FromStr;

use crate::invite::{from_hex, to_hex};

macro_rules! content_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The name of these bytes.
            pub fn of(bytes: &[u8]) -> Self {
                Self(blake3::hash(bytes).into())
            }

            /// Wraps a hash that was computed elsewhere.
            pub const fn new(hash: [u8; 32]) -> Self {
                Self(hash)
            }

            /// The thirty-two bytes, as the wire and the store keep them.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Reads the thirty-two bytes back; `None` when there are not exactly so many.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&to_hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = NotAHash;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                from_hex(text).map(Self).ok_or(NotAHash)
            }
        }
    };
}

/// A text that is no 64 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not 64 hex digits")]
pub struct NotAHash;

content_id!(
    /// Content: of a whole file (its etag), of a chunk, or of an object that describes a tree.
    ContentId
);
content_id!(
    /// A directory with all that lies below it: the [`ContentId`] of its top object (SYNC, «trees»).
    TreeId
);
content_id!(
    /// A pack of chunks: the hash of its head, which names each chunk by its own hash.
    PackId
);

impl From<ContentId> for TreeId {
    fn from(id: ContentId) -> Self {
        Self(id.0)
    }
}

impl From<TreeId> for ContentId {
    fn from(id: TreeId) -> Self {
        Self(id.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_named_by_its_blake3_hash() {
        // The first row of the test vectors of BLAKE3: no input.
        assert_eq!(
            ContentId::of(b"").to_string(),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
        assert_ne!(ContentId::of(b"a"), ContentId::of(b"b"));
    }

    #[test]
    fn a_name_survives_its_text_and_its_bytes() {
        let id = ContentId::of(b"text");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(ContentId::from_slice(id.as_bytes()), Some(id));
        assert_eq!(ContentId::from(TreeId::from(id)), id);
    }

    #[test]
    fn only_a_whole_hash_is_a_name() {
        for text in ["", "af13", &"g".repeat(64), &"a".repeat(63), &"a".repeat(65)] {
            assert_eq!(text.parse::<ContentId>(), Err(NotAHash), "{text}");
        }
        for len in [0, 31, 33] {
            assert_eq!(ContentId::from_slice(&vec![0; len]), None, "{len} bytes");
        }
    }
}
