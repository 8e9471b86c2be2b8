//! Small files of the data directory, written so that a crash leaves the old one or the new one.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Writes `text` with a line end to `path`, readable by its owner alone: temporary file, sync, rename,
/// sync of the directory. Blocks.
///
/// # Errors
/// When the directory cannot be written.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let partial = path.with_extension("partial");
    // A leftover of a crash may have other rights: the new file is made anew.
    match fs::remove_file(&partial) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    sync_dir(path.parent().unwrap_or_else(|| Path::new(".")))
}

/// Makes a directory, and what is missing above it, that only its owner can enter. What it makes
/// survives a loss of power. Blocks.
///
/// # Errors
/// When it cannot be made.
pub fn private_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above {
        private_dir(above)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_dir(above.unwrap_or_else(|| Path::new("."))),
    }
}

/// Makes the names in a directory survive a loss of power. Blocks.
///
/// # Errors
/// When the disk says no.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    fail::fail_point!("hub::sync_dir", |_| Err(io::Error::other("failpoint hub::sync_dir")));
    fs::File::open(path)?.sync_all()
}
