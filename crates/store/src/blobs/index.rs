//! Which chunk lies in which pack, on disk: a database of its own, made from the heads of the packs.
//!
//! It is derived, so it is written without waiting for the disk: what a power cut takes from it is found
//! again at the next start by a look at the folder. What cannot be read as a database of this version is
//! removed and made anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cortex_content::pack::PackHead;
use cortex_core::files::content::{ContentId, PackId};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Transaction, params};

use super::{BlobError, Place, space};

/// Of the database, beside the packs.
const NAME: &str = "index.db";
/// Left when the database was found damaged while it was in use: the next start makes it anew.
const DAMAGED: &str = "index.damaged";
/// Changes with the tables; another one is made anew.
const VERSION: i64 = 1;
/// Connections that are kept for reading.
const READERS: usize = 8;
/// A database up to this length is looked through at the start; what is wrong in a longer one is found
/// when it is read, or by a scrub.
const CHECKED_BYTES_MAX: u64 = 128 * 1024 * 1024;

const TABLES: &str = "
    CREATE TABLE packs (
        pack         INTEGER PRIMARY KEY AUTOINCREMENT,
        id           BLOB NOT NULL UNIQUE,
        bytes        INTEGER NOT NULL,
        plain        INTEGER NOT NULL,
        chunks       INTEGER NOT NULL,
        seen_at      INTEGER,
        condemned_at INTEGER,
        scrubbed     INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX packs_by_scrub ON packs (scrubbed);
    CREATE TABLE chunks (
        id     BLOB NOT NULL,
        pack   INTEGER NOT NULL,
        number INTEGER NOT NULL,
        len    INTEGER NOT NULL,
        PRIMARY KEY (id, pack)
    ) STRICT, WITHOUT ROWID;";

/// The number of a pack in the database. Numbers only grow: the lowest pack with a chunk is the one in
/// which it was put first.
pub(super) type Row = i64;

pub(super) struct Index {
    path: PathBuf,
    damaged: PathBuf,
    readers: Mutex<Vec<Connection>>,
    /// Closed behind those that read: the last one writes all back, and they cannot.
    writer: Mutex<Connection>,
}

/// A pack as the database has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct PackRow {
    pub(super) row: Row,
    pub(super) id: PackId,
    pub(super) bytes: u32,
    pub(super) plain: u32,
    pub(super) chunks: u32,
    pub(super) seen_at: Option<i64>,
    pub(super) condemned_at: Option<i64>,
}

const PACK: &str = "SELECT pack, id, bytes, plain, chunks, seen_at, condemned_at FROM packs";

impl Index {
    /// Opens the database in this folder; whether one was there and had to be made anew.
    pub(super) fn open(folder: &Path) -> Result<(Self, bool), BlobError> {
        let (path, damaged) = (folder.join(NAME), folder.join(DAMAGED));
        let was_there = path.exists();
        let told = damaged.exists();
        let opened =
            if told { Err(Unusable::Damaged("it was found damaged".to_owned())) } else { connect(&path) };
        let (conn, rebuilt) = match opened {
            Ok(conn) => (conn, false),
            Err(Unusable::Failed(why)) => return Err(why),
            Err(Unusable::Damaged(why)) => {
                tracing::warn!(%why, path = %path.display(), "the index of the chunks is made anew from the packs");
                for file in companions(&path) {
                    match fs::remove_file(&file) {
                        Err(fault) if fault.kind() != std::io::ErrorKind::NotFound => {
                            return Err(super::doing("remove a damaged index")(fault));
                        }
                        _ => {}
                    }
                }
                let conn = connect(&path).map_err(|fault| match fault {
                    Unusable::Failed(why) => why,
                    Unusable::Damaged(why) => BlobError::Index(why),
                })?;
                if told {
                    fs::remove_file(&damaged).map_err(super::doing("remove a damaged index"))?;
                }
                (conn, was_there)
            }
        };
        let (writer, readers) = (Mutex::new(conn), Mutex::new(Vec::new()));
        Ok((Self { path, damaged, writer, readers }, rebuilt))
    }

    /// Runs a read on one state of the database, beside other reads and the writer.
    pub(super) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, BlobError> {
        let kept = self.readers.lock().map_err(|_| BlobError::Poisoned)?.pop();
        let conn = match kept {
            Some(conn) => conn,
            None => self.reader().map_err(|error| self.failed(&error))?,
        };
        let read = conn.unchecked_transaction().and_then(|tx| work(&tx));
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < READERS && read.is_ok() {
            readers.push(conn);
        }
        drop(readers);
        read.map_err(|error| self.failed(&error))
    }

    /// Runs a write; all of it is done, or nothing.
    pub(super) fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, BlobError> {
        let mut conn = self.writer.lock().map_err(|_| BlobError::Poisoned)?;
        let written = conn.transaction().and_then(|tx| {
            let value = work(&tx)?;
            tx.commit()?;
            Ok(value)
        });
        written.map_err(|error| self.failed(&error))
    }

    fn reader(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let conn = Connection::open_with_flags(&self.path, flags)?;
        conn.busy_timeout(Duration::from_secs(5))?;
        conn.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -4096;")?;
        Ok(conn)
    }

    fn failed(&self, error: &rusqlite::Error) -> BlobError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => BlobError::Refused(space::no_space()),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                // When the mark cannot be left, the next start finds the damage by itself, or the next read.
                drop(fs::write(&self.damaged, b""));
                BlobError::Index(error.to_string())
            }
            _ => BlobError::Index(error.to_string()),
        }
    }
}

/// Why a database was not opened.
enum Unusable {
    /// It is of no use: made anew.
    Damaged(String),
    /// It may be all right.
    Failed(BlobError),
}

impl From<rusqlite::Error> for Unusable {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Failed(BlobError::Refused(space::no_space())),
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::PermissionDenied
                | ErrorCode::ReadOnly
                | ErrorCode::OutOfMemory,
            ) => Self::Failed(BlobError::Index(error.to_string())),
            _ => Self::Damaged(error.to_string()),
        }
    }
}

fn companions(path: &Path) -> [PathBuf; 3] {
    [NAME.to_owned(), format!("{NAME}-wal"), format!("{NAME}-shm")].map(|name| path.with_file_name(name))
}

fn connect(path: &Path) -> Result<Connection, Unusable> {
    let mut options = fs::File::options();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path).map_err(|fault| Unusable::Failed(super::doing("open the index")(fault)))?;
    let len = file.metadata().map_or(0, |about| about.len());
    drop(file);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(Duration::from_secs(5))?;
    let mode: String = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        let why =
            format!("its journal mode stays `{mode}`: its file system has no shared memory; use a local one");
        return Err(Unusable::Failed(BlobError::Index(why)));
    }
    conn.execute_batch(
        "PRAGMA synchronous = NORMAL;
         PRAGMA journal_size_limit = 16777216;
         PRAGMA cache_size = -16384;
         PRAGMA temp_store = MEMORY;",
    )?;
    conn.set_prepared_statement_cache_capacity(32);
    let version: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match version {
        0 => {
            let tx = conn.transaction()?;
            tx.execute_batch(TABLES)?;
            tx.pragma_update(None, "user_version", VERSION)?;
            tx.commit()?;
        }
        VERSION => {
            if len <= CHECKED_BYTES_MAX {
                let found: String = conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
                if found != "ok" {
                    return Err(Unusable::Damaged(found));
                }
            }
        }
        other => return Err(Unusable::Damaged(format!("it has version {other}"))),
    }
    Ok(conn)
}

/// Adds a pack: its number, and whether it is new. One that is there keeps its number.
pub(super) fn insert(tx: &Connection, head: &PackHead) -> rusqlite::Result<(Row, bool)> {
    if let Some(row) = row_of(tx, &head.id())? {
        return Ok((row, false));
    }
    tx.prepare_cached("INSERT INTO packs (id, bytes, plain, chunks) VALUES (?1, ?2, ?3, ?4)")?.execute(
        params![
            head.id().as_bytes(),
            u32::try_from(head.pack_len()).unwrap_or(u32::MAX),
            head.plain_len(),
            u32::try_from(head.chunks().len()).unwrap_or(u32::MAX)
        ],
    )?;
    let row = tx.last_insert_rowid();
    insert_chunks(tx, row, head)?;
    Ok((row, true))
}

/// Adds the chunks of a pack that are not there; how many were not.
pub(super) fn insert_chunks(tx: &Connection, row: Row, head: &PackHead) -> rusqlite::Result<u64> {
    let mut add = tx.prepare_cached(
        "INSERT INTO chunks (id, pack, number, len) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (id, pack) DO UPDATE SET number = excluded.number, len = excluded.len
         WHERE number <> excluded.number OR len <> excluded.len",
    )?;
    let mut added = 0;
    // In the order of the tree: neighbours go to one page.
    let mut chunks: Vec<_> = head.chunks().iter().zip(0_u32..).collect();
    chunks.sort_unstable_by_key(|(chunk, _)| chunk.id);
    for (chunk, number) in chunks {
        added += add.execute(params![chunk.id.as_bytes(), row, number, chunk.len])? as u64;
    }
    Ok(added)
}

/// Removes a pack with its chunks. Without its head, all chunks are looked through for them.
pub(super) fn remove(tx: &Connection, row: Row, head: Option<&PackHead>) -> rusqlite::Result<()> {
    match head {
        Some(head) => {
            let mut gone = tx.prepare_cached("DELETE FROM chunks WHERE id = ?1 AND pack = ?2")?;
            for chunk in head.chunks() {
                gone.execute(params![chunk.id.as_bytes(), row])?;
            }
        }
        None => drop(tx.execute("DELETE FROM chunks WHERE pack = ?1", [row])?),
    }
    tx.prepare_cached("DELETE FROM packs WHERE pack = ?1")?.execute([row])?;
    Ok(())
}

/// Removes these packs and all chunks that are in none.
pub(super) fn remove_all<'r>(
    tx: &Connection,
    rows: impl IntoIterator<Item = &'r Row>,
) -> rusqlite::Result<()> {
    let mut gone = tx.prepare_cached("DELETE FROM packs WHERE pack = ?1")?;
    rows.into_iter().try_for_each(|row| gone.execute([row]).map(drop))?;
    tx.execute("DELETE FROM chunks WHERE pack NOT IN (SELECT pack FROM packs)", []).map(drop)
}

/// A collection saw these packs for the first time.
pub(super) fn seen(tx: &Connection, rows: &[Row], at: i64) -> rusqlite::Result<()> {
    let mut seen = tx.prepare_cached("UPDATE packs SET seen_at = ?2 WHERE pack = ?1")?;
    rows.iter().try_for_each(|row| seen.execute([*row, at]).map(drop))
}

/// Since when these packs are condemned.
pub(super) fn condemn(tx: &Connection, rows: &[Row], at: Option<i64>) -> rusqlite::Result<()> {
    let mut condemn = tx.prepare_cached("UPDATE packs SET condemned_at = ?2 WHERE pack = ?1")?;
    rows.iter().try_for_each(|row| condemn.execute(params![row, at]).map(drop))
}

/// Gives the scrub of a pack its number; whether it is there.
pub(super) fn scrubbed(tx: &Connection, row: Row, number: i64) -> rusqlite::Result<bool> {
    let mut scrubbed = tx.prepare_cached("UPDATE packs SET scrubbed = ?2 WHERE pack = ?1")?;
    Ok(scrubbed.execute(params![row, number])? == 1)
}

/// The chunks that the database says lie in this pack; all are looked through for them.
pub(super) fn chunks_of(conn: &Connection, row: Row) -> rusqlite::Result<Vec<ContentId>> {
    let mut find = conn.prepare_cached("SELECT id FROM chunks WHERE pack = ?1")?;
    find.query_map([row], |found| content_id(found, 0))?.collect()
}

/// The first place of a chunk in a pack that is not `gone`.
pub(super) fn place(
    conn: &Connection,
    id: &ContentId,
    gone: &dyn Fn(Row) -> bool,
) -> rusqlite::Result<Option<(Row, Place)>> {
    let mut find = conn.prepare_cached(
        "SELECT chunks.pack, packs.id, chunks.number, chunks.len FROM chunks JOIN packs USING (pack)
         WHERE chunks.id = ?1 ORDER BY chunks.pack",
    )?;
    let mut rows = find.query([id.as_bytes()])?;
    while let Some(found) = rows.next()? {
        let row = found.get(0)?;
        if !gone(row) {
            let place = Place { pack: pack_id(found, 1)?, number: found.get(2)?, len: found.get(3)? };
            return Ok(Some((row, place)));
        }
    }
    Ok(None)
}

/// The number of a pack.
pub(super) fn row_of(conn: &Connection, id: &PackId) -> rusqlite::Result<Option<Row>> {
    conn.prepare_cached("SELECT pack FROM packs WHERE id = ?1")?
        .query_row([id.as_bytes()], |row| row.get(0))
        .optional()
}

/// A pack by its number.
pub(super) fn pack(conn: &Connection, row: Row) -> rusqlite::Result<Option<PackRow>> {
    conn.prepare_cached(&format!("{PACK} WHERE pack = ?1"))?.query_row([row], pack_row).optional()
}

/// All packs, in the order of their numbers.
pub(super) fn packs(conn: &Connection, each: &mut dyn FnMut(PackRow)) -> rusqlite::Result<()> {
    let mut all = conn.prepare_cached(&format!("{PACK} ORDER BY pack"))?;
    let mut rows = all.query([])?;
    while let Some(row) = rows.next()? {
        each(pack_row(row)?);
    }
    Ok(())
}

/// Packs that were scrubbed the longest time ago, of those whose last scrub has a number below `before`.
pub(super) fn unscrubbed(conn: &Connection, before: i64, max: u32) -> rusqlite::Result<Vec<PackRow>> {
    let mut find =
        conn.prepare_cached(&format!("{PACK} WHERE scrubbed < ?1 ORDER BY scrubbed, pack LIMIT ?2"))?;
    find.query_map(params![before, max], pack_row)?.collect()
}

fn pack_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<PackRow> {
    Ok(PackRow {
        row: row.get(0)?,
        id: pack_id(row, 1)?,
        bytes: row.get(2)?,
        plain: row.get(3)?,
        chunks: row.get(4)?,
        seen_at: row.get(5)?,
        condemned_at: row.get(6)?,
    })
}

fn pack_id(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<PackId> {
    Ok(PackId::new(row.get(column)?))
}

fn content_id(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<ContentId> {
    Ok(ContentId::new(row.get(column)?))
}
