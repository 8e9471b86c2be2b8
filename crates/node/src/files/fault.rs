//! Why a step on the disk failed, and how a caller is told.

use std::io;

use cortex_core::error::{Code, Refusal};
use cortex_core::files::op::Kind;
use cortex_core::name::printable;
use nix::errno::Errno;

/// Why a step failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The system refused a call.
    Sys(Errno),
    /// The path leads out of its root, or in circles.
    Outside,
    /// An entry of this kind is not opened.
    Unfit(Kind),
    /// It changed each time that it was looked at.
    Restless,
    /// A folder has more entries than are read, or a tree more levels.
    TooMany,
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self::Sys(errno)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Sys(error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    }
}

impl Fault {
    /// Whether there is nothing at that name.
    pub(crate) fn is_absent(self) -> bool {
        self == Self::Sys(Errno::ENOENT)
    }

    /// Whether there is something at that name already.
    pub(crate) fn is_taken(self) -> bool {
        self == Self::Sys(Errno::EEXIST)
    }

    /// Whether the file system, or the kernel, has no such operation.
    pub(crate) fn is_not_supported(self) -> bool {
        matches!(self, Self::Sys(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP))
    }

    /// Whether the name leads into another file system.
    pub(crate) fn is_elsewhere(self) -> bool {
        self == Self::Sys(Errno::EXDEV)
    }

    /// What the caller is told; `path` is the one that he named.
    pub(crate) fn refusal(self, path: &str) -> Refusal {
        let path = printable(path, 300);
        match self {
            Self::Outside => Refusal::new(
                Code::PathOutsideRoots,
                format!("`{path}` leads out of the folder that the policy gives, or in circles."),
            ),
            Self::Unfit(kind) => unfit(&path, kind),
            Self::Restless => conflict(
                "changed_while_read",
                format!("`{path}` changed each time that it was read."),
                "Wait until whoever writes it is done, then try again.",
            ),
            Self::TooMany => Refusal::new(
                Code::TooLarge,
                format!("`{path}` holds more entries, or more levels, than one operation takes."),
            )
            .hint("Name a folder below it, or use a command."),
            Self::Sys(errno) => of_errno(errno, &path),
        }
        .detail("path", path)
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the system has a hundred numbers more")]
fn of_errno(errno: Errno, path: &str) -> Refusal {
    match errno {
        Errno::ENOENT => Refusal::new(Code::NotFound, format!("There is no `{path}`."))
            .hint("List the folder above it, and use a name that is there."),
        Errno::ENOTDIR => {
            Refusal::new(Code::UnsupportedEntry, format!("A part of `{path}`, or all of it, is no folder."))
        }
        Errno::EISDIR => unfit(path, Kind::Dir),
        Errno::ENXIO | Errno::ENODEV => unfit(path, Kind::Other),
        Errno::EEXIST => conflict(
            "exists",
            format!("`{path}` is there already."),
            "Choose another name, or say that it may be replaced.",
        ),
        Errno::ENOTEMPTY => conflict(
            "not_empty",
            format!("The folder `{path}` is not empty."),
            "Remove it with all that is in it by `recursive`.",
        ),
        Errno::EBUSY | Errno::ETXTBSY => {
            conflict("busy", format!("`{path}` is in use ({errno})."), "Try again when that has ended.")
        }
        Errno::EXDEV => conflict(
            "mount",
            format!("`{path}` lies on another file system."),
            "Name the entries there by themselves.",
        ),
        Errno::ESTALE => conflict(
            "changed_while_read",
            format!("`{path}` went away while it was used."),
            "Read what is there and try again.",
        ),
        Errno::EACCES | Errno::EPERM => Refusal::new(
            Code::Forbidden,
            format!("The user of this node's runs may not do this with `{path}` ({errno})."),
        )
        .hint("Ask the owner of the machine to give that user access, for example with `setfacl`."),
        Errno::EROFS => Refusal::new(Code::Forbidden, format!("`{path}` is on a read-only file system."))
            .hint("Use a folder that the policy gives for writing."),
        Errno::ENOSPC | Errno::EDQUOT => {
            Refusal::new(Code::NoSpace, format!("There is no room left for `{path}` ({errno})."))
        }
        Errno::EFBIG => Refusal::new(
            Code::NoSpace,
            format!("`{path}` would be larger than a file may be (rule limits.file_bytes)."),
        )
        .hint("Ask an administrator to raise `limits.file_bytes` of the policy.")
        .detail("rule", "limits.file_bytes"),
        Errno::ENAMETOOLONG => {
            Refusal::new(Code::BadPath, format!("`{path}` is longer than the file system keeps."))
                .hint("Use a shorter name.")
        }
        Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => {
            Refusal::new(Code::Quota, format!("The node has no room to open `{path}` ({errno})."))
        }
        Errno::ENOSYS => Refusal::new(
            Code::SandboxUnavailable,
            "The kernel of the node cannot open files beneath a folder (openat2).",
        )
        .hint("Install a kernel of version 5.6 or later on that machine."),
        _ => Refusal::new(Code::Internal, format!("The node's file system failed at `{path}`: {errno}."))
            .hint("Look at the disk of that machine, and at its system log."),
    }
}

/// Refuses an entry that is not of the kind that is needed.
pub(crate) fn unfit(path: &str, kind: Kind) -> Refusal {
    let what = match kind {
        Kind::File => "a file, and not a folder",
        Kind::Dir => "a folder, and not a file",
        Kind::Link => "a link, through which nothing is written",
        Kind::Other => "a device, pipe or socket, which is never opened",
    };
    Refusal::new(Code::UnsupportedEntry, format!("`{}` is {what}.", printable(path, 300)))
        .detail("kind", kind.as_str())
}

/// A `conflict` of this kind.
pub(crate) fn conflict(kind: &'static str, message: String, hint: &str) -> Refusal {
    Refusal::new(Code::Conflict, message).hint(hint).detail("kind", kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_of_a_disk_has_a_code_and_a_hint_that_fit() {
        for (fault, code) in [
            (Fault::Outside, Code::PathOutsideRoots),
            (Fault::Unfit(Kind::Other), Code::UnsupportedEntry),
            (Fault::Restless, Code::Conflict),
            (Fault::TooMany, Code::TooLarge),
            (Fault::Sys(Errno::ENOENT), Code::NotFound),
            (Fault::Sys(Errno::ENOTDIR), Code::UnsupportedEntry),
            (Fault::Sys(Errno::EISDIR), Code::UnsupportedEntry),
            (Fault::Sys(Errno::EEXIST), Code::Conflict),
            (Fault::Sys(Errno::ENOTEMPTY), Code::Conflict),
            (Fault::Sys(Errno::EACCES), Code::Forbidden),
            (Fault::Sys(Errno::EROFS), Code::Forbidden),
            (Fault::Sys(Errno::ENOSPC), Code::NoSpace),
            (Fault::Sys(Errno::EDQUOT), Code::NoSpace),
            (Fault::Sys(Errno::EFBIG), Code::NoSpace),
            (Fault::Sys(Errno::ENAMETOOLONG), Code::BadPath),
            (Fault::Sys(Errno::EMFILE), Code::Quota),
            (Fault::Sys(Errno::ENOSYS), Code::SandboxUnavailable),
            (Fault::Sys(Errno::EIO), Code::Internal),
        ] {
            let refusal = fault.refusal("/w/ملف");
            assert_eq!(refusal.code, code, "{fault:?}");
            assert!(!refusal.hint.is_empty() && refusal.message.ends_with('.'), "{refusal:?}");
        }
        let refusal = Fault::Sys(Errno::EIO).refusal("/w/a\x1b");
        assert!(refusal.message.contains("EIO") && !refusal.message.contains('\x1b'), "{refusal}");
    }
}
