//! Names for what is not finished yet. They hold the id of the operation, so that what a crash leaves
//! behind is found and judged by name ([`super::sweep`]).

use std::fmt::Write as _;
use std::fs::File;
use std::rc::Rc;

use cortex_core::id::OpId;
use cortex_core::limits::NAME_PART_BYTES_MAX;

use super::beneath::Dir;
use super::fault::Fault;

/// The name under which an operation makes something that nobody has seen: it can always be removed.
pub(crate) fn unseen(id: OpId) -> String {
    format!(".cortex-{}~", hex(id))
}

/// The name under which something may lie that was visible before: never removed without a look.
pub(crate) fn seen(id: OpId) -> String {
    format!(".cortex-{}~was", hex(id))
}

/// The name under which somebody else's content is kept that an operation found in its way.
pub(crate) fn conflict(name: &str, id: OpId) -> String {
    let end = format!(".conflict-{}", hex(id));
    let cut = name.floor_char_boundary(NAME_PART_BYTES_MAX - end.len());
    format!("{}{end}", &name[..cut])
}

fn hex(id: OpId) -> String {
    id.as_bytes().iter().fold(String::with_capacity(32), |mut text, byte| {
        // Writing to a string cannot fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

/// A file that nobody has seen; removed when it is dropped, unless it was given its name.
#[derive(Debug)]
pub(crate) struct Temp {
    folder: Rc<Dir>,
    name: String,
    /// Open for writing.
    pub(crate) file: File,
    is_ours: bool,
}

impl Temp {
    /// Makes an empty one.
    pub(crate) fn new(folder: &Rc<Dir>, id: OpId) -> Result<Self, Fault> {
        let name = unseen(id);
        let file = folder.create(name.as_bytes())?;
        Ok(Self { folder: Rc::clone(folder), name, file, is_ours: true })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &[u8] {
        self.name.as_bytes()
    }

    /// Its name is another's from here on: it stays.
    pub(crate) fn keep(&mut self) {
        self.is_ours = false;
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if self.is_ours {
            // What stays is found by its name.
            let _removed = self.folder.unlink(self.name.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_for_a_conflict_fits_and_stays_text() {
        let id = OpId::mint(1, &[7; 10]);
        assert_eq!(unseen(id).len(), 41);
        for name in ["a", &"م".repeat(127), &"n".repeat(255)] {
            let kept = conflict(name, id);
            assert!(kept.len() <= NAME_PART_BYTES_MAX && kept.contains(".conflict-"), "{kept}");
            assert!(cortex_core::files::path::RelPath::parse(&kept).is_ok(), "{kept}");
        }
    }
}
