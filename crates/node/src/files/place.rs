//! Where an operation is done.

use cortex_core::error::{Code, Refusal};
use cortex_core::files::op::Kind;
use cortex_core::files::path::{FilePath, RelPath};
use cortex_core::id::OpId;
use cortex_core::name::printable;

use super::beneath::{Dir, Follow, Root, Stat};
use super::fault::{Fault, unfit};
use super::seam::Seam;

/// One path of an operation: the root that it lies in, and the way from there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// Open, and compared with what the policy names.
    pub(crate) root: &'a Root,
    /// From there.
    pub(crate) rel: &'a RelPath,
    /// As the caller named it, for words.
    pub(crate) path: &'a FilePath,
}

/// For which operation, and who looks on.
#[derive(Clone, Copy)]
pub(crate) struct Work<'a> {
    /// The operation. What it leaves half-made on the disk has its id in the name.
    pub(crate) id: OpId,
    /// Where tests come in.
    pub(crate) seam: &'a dyn Seam,
}

impl<'a> Place<'a> {
    /// What the caller is told of a failure here.
    pub(crate) fn refusal(&self, fault: Fault) -> Refusal {
        let refusal = fault.refusal(self.path.as_str());
        if fault != Fault::Outside {
            return refusal;
        }
        let Some((link, target)) = self.root.link_out(self.rel) else { return refusal };
        let (link, target) =
            (printable(link.as_str(), 200), printable(&String::from_utf8_lossy(&target), 200));
        refusal
            .hint(format!("`{link}` is a link to `{target}`; name the path that it leads to, if you may."))
            .detail("target", target)
    }

    /// The folder that the entry lies in, and its name there.
    ///
    /// # Errors
    ///
    /// `unsupported_entry` for the root itself: it belongs to the policy and is neither replaced, moved
    /// nor removed.
    pub(crate) fn parent(&self) -> Result<(Dir, &'a str), Refusal> {
        let (above, name) = self.above()?;
        let folder = self.root.dir(&above, Follow::Within).map_err(|fault| self.refusal(fault))?;
        Ok((folder, name))
    }

    /// As [`Self::parent`], not opened.
    pub(crate) fn above(&self) -> Result<(RelPath, &'a str), Refusal> {
        match self.rel.parent() {
            Some(above) => Ok((above, self.rel.name())),
            None => Err(self.is_root()),
        }
    }

    fn is_root(&self) -> Refusal {
        let path = printable(self.path.as_str(), 300);
        let what = if self.root.is_dir() { "folder" } else { "file" };
        Refusal::new(
            Code::UnsupportedEntry,
            format!("`{path}` is the {what} itself that the policy gives, and is not replaced or removed."),
        )
        .hint("Name an entry below it, or ask an administrator to give the folder that it lies in.")
        .detail("path", path)
    }

    /// Refuses what is no regular file, so that nothing is written through a link.
    pub(crate) fn must_be_file(&self, folder: &Dir, name: &str, stat: &Stat) -> Result<(), Refusal> {
        if stat.kind == Kind::File {
            return Ok(());
        }
        let refusal = unfit(self.path.as_str(), stat.kind).detail("path", printable(self.path.as_str(), 300));
        if stat.kind != Kind::Link {
            return Err(refusal);
        }
        let Ok(target) = folder.link_target(name.as_bytes()) else { return Err(refusal) };
        let target = printable(&String::from_utf8_lossy(&target), 200);
        Err(refusal
            .hint(format!("It leads to `{target}`; name that path, or remove the link first."))
            .detail("target", target))
    }
}
