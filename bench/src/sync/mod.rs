//! Moving files: trees, the place where both ends stand, and the ways that are measured.

pub(crate) mod ours;
pub(crate) mod peers;
pub(crate) mod place;
pub(crate) mod proxy;
pub(crate) mod syncthing;
pub(crate) mod trees;
pub(crate) mod unison;

use std::path::{Path, PathBuf};

use anyhow::Result;

/// What one measurement has to do.
pub(crate) struct Job<'a> {
    /// The tree as it is at the source.
    pub(crate) source: &'a Path,
    /// Its files, folders not counted.
    pub(crate) files: usize,
    /// Whether the destination begins as the source is before its change; else it is empty.
    pub(crate) kept: bool,
}

/// One way to bring a destination up to date.
pub(crate) trait Way {
    /// As the table calls it.
    fn name(&self) -> &str;

    /// Whether it can bring an older state up to date, rather than only copy.
    fn updates(&self) -> bool;

    /// Whether it has something to say of an empty destination.
    fn copies(&self) -> bool {
        true
    }

    /// Makes a destination as the job begins; not measured.
    fn ready(&mut self, job: &Job<'_>) -> Result<()>;

    /// Follows a change of the source where the way has a copy of it; not measured.
    fn changed(&mut self, _: &Job<'_>) -> Result<()> {
        Ok(())
    }

    /// Brings the destination up to date, to the moment at which the way says that it is.
    fn go(&mut self, job: &Job<'_>) -> Result<()>;

    /// Where the copy is after `go`.
    fn copy(&self) -> Result<PathBuf>;

    /// CPU seconds of both ends so far.
    fn cpu(&self) -> Result<f64>;

    /// Ends servers that only this job needed, and removes the destination.
    fn clear(&mut self, job: &Job<'_>) -> Result<()>;
}
