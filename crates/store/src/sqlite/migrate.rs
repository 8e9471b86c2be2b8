//! Brings the tables up to date: numbered scripts, each applied once and in a transaction of its
//! own, with what was applied written down beside them.
//!
//! Never here: going back. A database of a newer version is refused, untouched.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::codec::failed;
use crate::StoreError;

/// One step. A published one never changes: its checksum is stored with every database.
pub(super) struct Migration {
    /// 1, 2, 3, …
    pub(super) version: i64,
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
}

/// All steps, in order.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "init", sql: include_str!("../../migrations/sqlite/0001_init.sql") },
    Migration {
        version: 2,
        name: "principals",
        sql: include_str!("../../migrations/sqlite/0002_principals.sql"),
    },
    Migration { version: 3, name: "pool", sql: include_str!("../../migrations/sqlite/0003_pool.sql") },
    Migration {
        version: 4,
        name: "attempts",
        sql: include_str!("../../migrations/sqlite/0004_attempts.sql"),
    },
    Migration {
        version: 5,
        name: "schedules",
        sql: include_str!("../../migrations/sqlite/0005_schedules.sql"),
    },
    Migration {
        version: 6,
        name: "progress",
        sql: include_str!("../../migrations/sqlite/0006_progress.sql"),
    },
    Migration { version: 7, name: "keys", sql: include_str!("../../migrations/sqlite/0007_keys.sql") },
    Migration { version: 8, name: "counts", sql: include_str!("../../migrations/sqlite/0008_counts.sql") },
    Migration { version: 9, name: "files", sql: include_str!("../../migrations/sqlite/0009_files.sql") },
    Migration {
        version: 10,
        name: "workspaces",
        sql: include_str!("../../migrations/sqlite/0010_workspaces.sql"),
    },
    Migration { version: 11, name: "mounts", sql: include_str!("../../migrations/sqlite/0011_mounts.sql") },
];

/// Applies what is missing. [`StoreError::Damaged`] when what was applied is not what `migrations`
/// says, or goes beyond it.
pub(super) fn run(conn: &mut Connection, migrations: &[Migration]) -> Result<(), StoreError> {
    conn.execute_batch(
        "CREATE TABLE IF NOT EXISTS migrations (
             version    INTEGER PRIMARY KEY NOT NULL,
             name       TEXT NOT NULL,
             checksum   BLOB NOT NULL,
             applied_at INTEGER NOT NULL DEFAULT (unixepoch() * 1000)
         ) STRICT",
    )
    .map_err(failed)?;
    refuse_newer(conn, migrations)?;
    migrations.iter().try_for_each(|migration| apply(conn, migration))
}

fn refuse_newer(conn: &Connection, migrations: &[Migration]) -> Result<(), StoreError> {
    let known = migrations.last().map_or(0, |migration| migration.version);
    let stored: i64 = conn
        .query_row("SELECT coalesce(max(version), 0) FROM migrations", [], |row| row.get(0))
        .map_err(failed)?;
    if stored <= known {
        return Ok(());
    }
    Err(StoreError::Damaged(format!(
        "it has schema version {stored} and this program knows {known}; \
         start the newer version of `cortex` that wrote it, or restore a backup made before the upgrade"
    )))
}

fn apply(conn: &mut Connection, migration: &Migration) -> Result<(), StoreError> {
    let checksum = blake3::hash(migration.sql.as_bytes());
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let stored: Option<Vec<u8>> = tx
        .query_row("SELECT checksum FROM migrations WHERE version = ?1", [migration.version], |row| {
            row.get(0)
        })
        .optional()
        .map_err(failed)?;
    if let Some(stored) = stored {
        return if stored == checksum.as_bytes() { Ok(()) } else { Err(changed(migration)) };
    }
    tx.execute_batch(migration.sql).map_err(failed)?;
    tx.execute(
        "INSERT INTO migrations (version, name, checksum) VALUES (?1, ?2, ?3)",
        params![migration.version, migration.name, checksum.as_bytes()],
    )
    .map_err(failed)?;
    tx.commit().map_err(failed)
}

fn changed(migration: &Migration) -> StoreError {
    StoreError::Damaged(format!(
        "its schema step {} ({}) is not the one of this program; \
         start the version of `cortex` that made it, or restore a backup",
        migration.version, migration.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Migration = Migration { version: 1, name: "one", sql: "CREATE TABLE a (x INTEGER) STRICT;" };
    const SECOND: Migration = Migration { version: 2, name: "two", sql: "ALTER TABLE a ADD COLUMN y TEXT;" };

    fn memory() -> Connection {
        Connection::open_in_memory().expect("SQLite opens in memory")
    }

    fn versions(conn: &Connection) -> Vec<i64> {
        let mut statement = conn.prepare("SELECT version FROM migrations ORDER BY version").expect("table");
        let rows = statement.query_map([], |row| row.get(0)).expect("query");
        rows.collect::<Result<_, _>>().expect("rows")
    }

    #[test]
    fn an_older_database_is_brought_up_to_date_and_keeps_its_rows() {
        let mut conn = memory();
        run(&mut conn, &[FIRST]).expect("the old program");
        conn.execute("INSERT INTO a (x) VALUES (7)", []).expect("a row of the old program");
        run(&mut conn, &[FIRST, SECOND]).expect("the new program");
        let row: (i64, Option<String>) = conn
            .query_row("SELECT x, y FROM a", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .expect("the row is there, with the new column");
        assert_eq!(row, (7, None));
        assert_eq!(versions(&conn), [1, 2]);
    }

    #[test]
    fn opening_again_applies_nothing_twice() {
        let mut conn = memory();
        for _ in 0..3 {
            run(&mut conn, &[FIRST, SECOND]).expect("up to date");
        }
        assert_eq!(versions(&conn), [1, 2]);
    }

    #[test]
    fn a_newer_database_is_refused_and_untouched() {
        let mut conn = memory();
        run(&mut conn, &[FIRST, SECOND]).expect("the new program");
        let error = run(&mut conn, &[FIRST]).expect_err("the old program must refuse");
        assert!(matches!(&error, StoreError::Damaged(why) if why.contains("newer version")), "{error}");
        assert_eq!(versions(&conn), [1, 2]);
    }

    #[test]
    fn a_changed_step_is_refused() {
        let mut conn = memory();
        run(&mut conn, &[FIRST]).expect("the first program");
        let changed = Migration { sql: "CREATE TABLE a (x TEXT) STRICT;", ..FIRST };
        let error = run(&mut conn, &[changed]).expect_err("another step 1 must be refused");
        assert!(matches!(&error, StoreError::Damaged(why) if why.contains("step 1 (one)")), "{error}");
    }

    #[test]
    fn a_step_that_fails_leaves_nothing_of_itself() {
        let mut conn = memory();
        let broken =
            Migration { sql: "CREATE TABLE b (x INTEGER) STRICT; CREATE TABLE a (x INTEGER);", ..SECOND };
        run(&mut conn, &[FIRST, broken]).expect_err("table a is there already");
        assert_eq!(versions(&conn), [1]);
        run(&mut conn, &[FIRST, SECOND]).expect("table b did not stay, and step 2 still applies");
    }

    #[test]
    fn counts_of_an_older_program_are_kept() {
        let mut conn = memory();
        run(&mut conn, &MIGRATIONS[..7]).expect("the old program");
        conn.execute_batch(
            "INSERT INTO lanes VALUES (3, NULL, x'01', 'command', 5, '', '', x'', 7, 2);
             INSERT INTO task_parties VALUES (x'7501', 2);
             INSERT INTO task_states VALUES ('ready', 2), ('leased', 0), ('done', 5);",
        )
        .expect("rows of the old program");
        run(&mut conn, MIGRATIONS).expect("the new program");
        let mut statement = conn
            .prepare("SELECT of || ' ' || hex(key) || ' ' || tasks || ' ' || open FROM pool_counts")
            .expect("table");
        let rows = statement.query_map([], |row| row.get(0)).expect("query");
        let rows = rows.collect::<Result<Vec<String>, _>>().expect("rows");
        assert_eq!(rows, ["lane 33 7 2", "party 7501 2 2", "state 646F6E65 5 0", "state 7265616479 2 0"]);
    }

    #[test]
    fn versions_count_up_from_one() {
        for (index, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.version, index as i64 + 1, "{}", migration.name);
        }
    }
}
