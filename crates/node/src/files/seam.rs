//! The steps of a change at which a crash, a failing disk or somebody else may come in between. Tests put
//! themselves there; a built node has nothing there but fail points.

use std::os::fd::BorrowedFd;

use super::fault::Fault;

/// What is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Synced {
    /// Content that has no name yet which anybody knows.
    Content,
    /// The names in a folder.
    Names,
    /// A folder with all that is in it.
    Tree,
}

/// How far a change has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// New content is whole and durable, under a name of its own.
    TempSynced,
    /// The target was looked at; what comes is the first step that somebody can see.
    Prepared,
    /// The target is, as far as its times tell, what was seen.
    Looked,
    /// The target is under the temporary name, and not looked at yet.
    Renamed,
    /// The names are durable.
    DirSynced,
    /// A piece of a transfer was staged.
    Piece,
    /// It is noted what of a transfer is staged.
    PackSynced,
    /// All of a transfer lies in staging, verified and durable.
    Staged,
    /// What a batch of a transfer takes out of sight is noted durably.
    Logged,
    /// Something that was not there got its name in a transfer.
    Created,
    /// Old and new content of a transfer have changed places, and the old one was not looked at yet.
    Exchanged,
    /// What a transfer removes is out of sight, and was not looked at yet.
    Trashed,
    /// The names of a batch of a transfer are durable.
    BatchSynced,
    /// All of a transfer is done, and what it kept for itself is still there.
    BeforeEnd,
    /// What a folder remembers of its last transfer is written and durable, under a name of its own.
    BaseWritten,
    /// It has its name.
    BaseNamed,
}

/// Where tests come in.
pub(crate) trait Seam {
    /// Makes something durable. It is called once for one thing: what a disk failed to write is not made
    /// durable by asking again.
    fn sync(&self, fd: BorrowedFd<'_>, what: Synced) -> Result<(), Fault> {
        match what {
            Synced::Content | Synced::Names => Ok(nix::unistd::fsync(fd)?),
            // One call for thousands of files.
            Synced::Tree => Ok(nix::unistd::syncfs(fd)?),
        }
    }

    /// A change has come so far.
    fn pass(&self, _moment: Moment) {}

    /// Which start of the machine it is; `None` when the system does not say.
    fn boot(&self) -> Option<[u8; 16]> {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(uuid::Uuid::parse_str(text.trim()).ok()?.into_bytes())
    }

    /// Whether the file system is asked to exchange two names.
    fn may_exchange(&self) -> bool {
        true
    }
}

/// The one of a built node.
#[derive(Debug)]
pub(crate) struct Plain;

impl Seam for Plain {
    fn pass(&self, moment: Moment) {
        match moment {
            Moment::TempSynced => fail::fail_point!("files::temp_synced"),
            Moment::Prepared => fail::fail_point!("files::prepared"),
            Moment::Looked => fail::fail_point!("files::looked"),
            Moment::Renamed => fail::fail_point!("files::renamed"),
            Moment::DirSynced => fail::fail_point!("files::dir_synced"),
            Moment::Piece => fail::fail_point!("apply::piece"),
            Moment::PackSynced => fail::fail_point!("apply::pack_synced"),
            Moment::Staged => fail::fail_point!("apply::staged"),
            Moment::Logged => fail::fail_point!("apply::logged"),
            Moment::Created => fail::fail_point!("apply::created"),
            Moment::Exchanged => fail::fail_point!("apply::exchanged"),
            Moment::Trashed => fail::fail_point!("apply::trashed"),
            Moment::BatchSynced => fail::fail_point!("apply::batch_synced"),
            Moment::BeforeEnd => fail::fail_point!("apply::before_end"),
            Moment::BaseWritten => fail::fail_point!("apply::base_written"),
            Moment::BaseNamed => fail::fail_point!("apply::base_named"),
        }
    }
}
