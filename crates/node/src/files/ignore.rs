//! Ignore files that folders bring along.

use cortex_content::search::{BYTES_MAX, FILES, Ignored};

use super::beneath::Dir;
use super::read;

/// Takes in the patterns of a folder whose path, with a slash behind it, has `prefix` bytes. Whether all that it
/// has were taken in.
pub(super) fn enter(ignored: &mut Ignored, folder: &Dir, prefix: usize) -> bool {
    let (mut is_whole, mut texts) = (true, Vec::new());
    for name in FILES {
        let Ok(file) = folder.regular(name) else { continue };
        match read::whole(&file, BYTES_MAX) {
            Ok((text, _)) => texts.push(text),
            Err(_) => is_whole = false,
        }
    }
    is_whole & ignored.take(&texts, prefix)
}
