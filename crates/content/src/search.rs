//! Searches by name and by line, over bytes: the same at a node's disk and in the hub's copy of it.

mod cursor;
mod lines;
mod names;

pub use self::cursor::Cursor;
pub use self::lines::{File, Lines, Looked};
pub use self::names::{BYTES_MAX, FILES, GIT, Ignored, Pattern};

use cortex_core::limits;

/// Bytes of an answer that entries or matches may take.
pub const ANSWER_BYTES_MAX: usize = limits::FILE_ANSWER_BYTES_MAX - limits::FILE_CURSOR_BYTES_MAX - 256;
