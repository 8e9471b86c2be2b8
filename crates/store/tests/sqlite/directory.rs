//! The data directory: one owner, private files, versions, damage, and everything still there
//! after a restart.

use std::path::Path;

use cortex_core::id::Seq;
use cortex_store::sqlite::{SqliteOptions, SqliteStore};
use cortex_store::{AuditFilter, Store, StoreError, StoreExt};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::support::{SOON, event, run, run_id};

fn directory() -> TempDir {
    TempDir::new().expect("a temporary directory")
}

fn open(dir: &Path) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(dir, SqliteOptions::default(), None)
}

/// The database itself, as nobody should touch it while a store is open.
fn raw(dir: &Path) -> Connection {
    Connection::open(dir.join("cortex.db")).expect("SQLite opens")
}

async fn with_a_run(dir: &Path) {
    let store = open(dir).expect("opens");
    store.write(SOON, |tx| tx.put_run(&run(1, 1))).await.expect("written");
    store.close().await;
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let dir = directory();
    for round in 1..=3_u64 {
        let store = open(dir.path()).expect("opens");
        let seq = store
            .write(SOON, move |tx| {
                tx.put_run(&run(round, 1))?;
                tx.trim_events(1, 99)?;
                Ok(tx.append_event(&event("x"))?)
            })
            .await;
        assert_eq!(seq.expect("written"), Seq(round));
        let (runs, audit) = store
            .read(SOON, |view| Ok((view.open_runs()?.len(), view.audit(&AuditFilter::default(), 9)?.len())))
            .await
            .expect("read");
        assert_eq!((runs as u64, audit), (round, 0));
        store.close().await;
    }
}

#[tokio::test]
async fn a_directory_has_one_store() {
    let dir = directory();
    let first = open(dir.path()).expect("opens");
    let Err(StoreError::InUse { lock, pid }) = open(dir.path()) else {
        panic!("two stores in one directory")
    };
    assert_eq!((lock, pid), (dir.path().join("cortex.lock"), Some(std::process::id())));
    first.close().await;
    open(dir.path()).expect("it is free after close").close().await;
}

#[cfg(unix)]
#[tokio::test]
async fn its_files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let parent = directory();
    let dir = parent.path().join("a/b");
    let store = open(&dir).expect("missing directories are made");
    store.write(SOON, |tx| tx.put_run(&run(1, 1))).await.expect("written");
    let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for name in ["cortex.db", "cortex.db-wal", "cortex.db-shm", "cortex.lock"] {
        assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
    }
    store.close().await;
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_with_a_way_out() {
    let dir = directory();
    with_a_run(dir.path()).await;
    raw(dir.path())
        .execute("INSERT INTO migrations (version, name, checksum) VALUES (999, 'later', x'00')", [])
        .expect("a newer program was here");
    let Err(StoreError::Damaged(why)) = open(dir.path()) else { panic!("a newer database was opened") };
    assert!(why.contains("999") && why.contains("newer version of `cortex`"), "{why}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_damaged() {
    let dir = directory();
    std::fs::write(dir.path().join("cortex.db"), [b'x'; 8192]).expect("written");
    let Err(error) = open(dir.path()) else { panic!("garbage was opened") };
    assert!(matches!(error, StoreError::Damaged(_)), "{error}");
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_damaged_and_names_its_column() {
    let dir = directory();
    with_a_run(dir.path()).await;
    raw(dir.path()).execute("UPDATE runs SET state = 'dancing'", []).expect("changed");
    let store = open(dir.path()).expect("opens");
    let error = store.read(SOON, |view| view.run(run_id(1))).await.expect_err("no such state");
    assert!(matches!(&error, StoreError::Damaged(why) if why.contains("column state")), "{error}");
    store.close().await;
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_named() {
    let dir = directory();
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("written");
    let Err(StoreError::Failed(why)) = open(&file) else { panic!("a file is no directory") };
    assert!(why.contains("file"), "{why}");
}
