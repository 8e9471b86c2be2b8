//! Content on its way and at rest: chunks of files, packs of chunks, objects that describe trees.
//!
//! Bytes in, bytes out: nothing here opens, sends or stores. All numbers are little-endian, each form
//! has one encoder, and what a reader takes it would write again byte for byte. What is read comes from
//! a peer or from a disk that may be damaged: a length is bounded before memory is taken for it, and no
//! chunk is handed out before its hash was verified (SYNC, safety rule 13).

pub mod asking;
pub mod chunk;
pub mod graph;
pub mod object;
pub mod pack;
pub mod packs;
pub mod part;
mod read;
#[cfg(test)]
mod samples;
pub mod search;
pub mod text;
pub mod tree;
pub mod unpack;
mod zip;

use cortex_core::{Code, Refusal};

/// Content that is not what it says, or not in the one form that it may have.
fn malformed(what: impl Into<String>) -> Refusal {
    Refusal::new(Code::InvalidArgument, what)
        .hint("Send it again; when that is refused as well, check the disk that it came from.")
}

/// A length, count or sum above its bound.
fn too_large(what: impl Into<String>) -> Refusal {
    Refusal::new(Code::TooLarge, what)
}
