//! The data directory: who owns it, and how connections into it are set up.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::SqliteOptions;
use super::codec::failed;
use super::migrate;
use crate::StoreError;

const DATABASE: &str = "cortex.db";
const LOCK: &str = "cortex.lock";
/// Another process that looks into the database (a backup) may hold it for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Statements that each connection keeps ready.
const STATEMENTS: usize = 128;

/// An owned data directory. Nobody else can own it until this is dropped.
pub(super) struct Place {
    database: PathBuf,
    _lock: File,
}

impl Place {
    /// Creates the directory when it is missing, and takes it.
    pub(super) fn take(dir: &Path) -> Result<Self, StoreError> {
        create_dir(dir).map_err(|error| io_failed("create", dir, &error))?;
        let lock_path = dir.join(LOCK);
        let lock = private_file(&lock_path).map_err(|error| io_failed("open", &lock_path, &error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = fs::read_to_string(&lock_path).ok().and_then(|text| text.trim().parse().ok());
                return Err(StoreError::InUse { lock: lock_path, pid });
            }
            Err(TryLockError::Error(error)) => return Err(io_failed("lock", &lock_path, &error)),
        }
        // For people alone: the lock decides.
        let owner = format!("{}\n", std::process::id());
        lock.set_len(0)
            .and_then(|()| (&lock).write_all(owner.as_bytes()))
            .map_err(|error| io_failed("write", &lock_path, &error))?;
        let database = dir.join(DATABASE);
        private_file(&database)
            .and_then(|_| sync_dir(dir))
            .map_err(|error| io_failed("create", &database, &error))?;
        Ok(Self { database, _lock: lock })
    }

    /// The connection that writes, with its tables up to date.
    ///
    /// The page cache is small: after a page was split, SQLite looks through all of it at the commit (16,384
    /// pages took a seventh of the writer's time), and what claims touch is a few hundred pages.
    ///
    /// `temp_store` keeps what a savepoint needs for its undoing out of files: a large group would
    /// write pages to a temporary one.
    pub(super) fn connect_writer(&self, options: &SqliteOptions) -> Result<Connection, StoreError> {
        let mut conn = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        use_wal(&conn)?;
        conn.execute_batch(
            "PRAGMA synchronous = FULL;
             PRAGMA foreign_keys = ON;
             PRAGMA journal_size_limit = 67108864;
             PRAGMA cache_size = -8192;
             PRAGMA temp_store = MEMORY;",
        )
        .map_err(failed)?;
        conn.pragma_update(None, "wal_autocheckpoint", options.checkpoint_pages).map_err(failed)?;
        migrate::run(&mut conn, migrate::MIGRATIONS)?;
        Ok(conn)
    }

    /// A connection that cannot write.
    pub(super) fn connect_reader(&self) -> Result<Connection, StoreError> {
        let conn = self.connect(OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        conn.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -16384;").map_err(failed)?;
        Ok(conn)
    }

    fn connect(&self, access: OpenFlags) -> Result<Connection, StoreError> {
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&self.database, flags).map_err(failed)?;
        conn.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        // Plans do not depend on what is bound: otherwise some statements are parsed anew each time.
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map_err(failed)?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS);
        Ok(conn)
    }
}

/// Readers beside the writer, and one sync for each commit, need the write-ahead log. A file system
/// without shared memory does not have it, and SQLite says so only when it is asked.
fn use_wal(conn: &Connection) -> Result<(), StoreError> {
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(failed)?;
    if mode == "wal" {
        return Ok(());
    }
    let why = "its file system has no shared memory for a write-ahead log; use a local one";
    Err(StoreError::Failed(format!("the journal mode of the database stays `{mode}`: {why}")))
}

fn io_failed(verb: &str, path: &Path, error: &io::Error) -> StoreError {
    StoreError::Failed(format!("cannot {verb} {}: {error}", path.display()))
}

#[cfg(unix)]
fn create_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

#[cfg(not(unix))]
fn create_dir(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)
}

/// Opens or creates a file that only its owner can read. SQLite gives its companions (the
/// write-ahead log) the rights of the database file.
fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes the directory's new entries durable.
fn sync_dir(dir: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_cannot_have_a_write_ahead_log_is_refused() {
        let memory = Connection::open_in_memory().expect("a database");
        let refused = use_wal(&memory).expect_err("memory has no log");
        assert!(refused.to_string().contains("`memory`"), "{refused}");

        // The way of locking of file systems without shared memory.
        let dir = tempfile::tempdir().expect("temporary directory");
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let path = dir.path().join(DATABASE);
        let plain = Connection::open_with_flags_and_vfs(path, flags, c"unix-dotfile").expect("a database");
        let refused = use_wal(&plain).expect_err("no shared memory");
        assert!(refused.to_string().contains("`delete`"), "{refused}");
    }
}
