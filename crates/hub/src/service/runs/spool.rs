//! Audit rows that the store could not take: one JSON line each in `audit.spool`, synced before
//! the answer, imported when the store is back. Rows may be imported twice when the hub is killed
//! in between, and none is lost.
//!
//! What is imported was renamed to `audit.importing` before, so that rows are kept while the store
//! stalls in the middle of an import.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use cortex_store::{Store, Tx};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::files;
use crate::service::outcome::write_surely;

/// A spool of that size takes no more: cancels are then refused as long as the store stalls.
const SPOOL_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How long a caller waits for the spool: the disk under it is the store's, which just failed.
const KEEP_MAX: Duration = Duration::from_secs(3);
/// Time between two tries of a disk that fails under an import.
const DISK_RETRY: Duration = Duration::from_secs(1);

/// The spool.
#[derive(Debug)]
pub(super) struct Spool {
    rows: PathBuf,
    importing: PathBuf,
    /// One at a time adds rows or takes them for the import.
    turn: Arc<Mutex<()>>,
    /// Somebody imports, and looks again before it ends.
    imports: AtomicBool,
}

impl Spool {
    pub(super) fn new(data: &Path) -> Self {
        Self {
            rows: data.join("audit.spool"),
            importing: data.join("audit.importing"),
            turn: Arc::default(),
            imports: AtomicBool::new(false),
        }
    }

    pub(super) fn exists(&self) -> bool {
        self.rows.exists() || self.importing.exists()
    }

    /// Keeps a row; it is on disk when this returns. A disk that does not sync in time is told as
    /// a refusal, although the row may still get there.
    pub(super) async fn keep(&self, row: AuditRow) -> Result<(), Refusal> {
        let path = self.rows.clone();
        let kept = tokio::time::timeout(KEEP_MAX, self.in_turn(move || add(&path, &row))).await;
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!(%error, "audit spool failed");
            Refusal::new(
                Code::StoreUnavailable,
                "The node was asked to end the run, but the audit row is not kept: store and spool failed.",
            )
        };
        match kept {
            Ok(done) => done.map_err(|error| failed(&error)),
            Err(late) => Err(failed(&late)),
        }
    }

    /// Brings the rows into the audit log, as soon as the store takes them. At once over when
    /// somebody else does so; at `stop` what is left waits for the next start.
    pub(super) async fn import(&self, store: Arc<dyn Store>, stop: CancellationToken) {
        if self.imports.swap(true, Ordering::AcqRel) {
            return;
        }
        while !self.is_over().await {
            if self.import_once(&store, &stop).await.is_none() {
                return;
            }
        }
    }

    /// Whether nothing is left. Looked up in turn: a row that comes later finds nobody importing.
    async fn is_over(&self) -> bool {
        let _turn = self.turn.lock().await;
        let over = !self.exists();
        if over {
            self.imports.store(false, Ordering::Release);
        }
        over
    }

    /// `None` when the hub stops first.
    async fn import_once(&self, store: &Arc<dyn Store>, stop: &CancellationToken) -> Option<()> {
        let (from, to) = (self.rows.clone(), self.importing.clone());
        let taken = self.on_disk(stop, move || {
            let (from, to) = (from.clone(), to.clone());
            move || take(&from, &to)
        });
        let rows = Arc::new(taken.await?);
        write_surely(store, stop, "the audit rows of the spool", || {
            let rows = Arc::clone(&rows);
            move |tx: &mut dyn Tx| {
                for row in rows.iter() {
                    tx.append_audit(row)?;
                }
                Ok(())
            }
        })
        .await?;
        let path = self.importing.clone();
        let removed = self.on_disk(stop, move || {
            let path = path.clone();
            move || fs::remove_file(path)
        });
        removed.await?;
        tracing::info!(count = rows.len(), "audit rows imported from the spool");
        Some(())
    }

    /// Does work of an import until the disk does it; `None` when the hub stops first.
    async fn on_disk<T, W>(&self, stop: &CancellationToken, work: impl Fn() -> W) -> Option<T>
    where
        T: Send + 'static,
        W: FnOnce() -> io::Result<T> + Send + 'static,
    {
        loop {
            match self.in_turn(work()).await {
                Ok(value) => return Some(value),
                Err(error) => tracing::error!(%error, "audit rows of the spool are not imported yet"),
            }
            tokio::select! {
                () = tokio::time::sleep(DISK_RETRY) => {}
                () = stop.cancelled() => return None,
            }
        }
    }

    /// Does work on a thread that may block. The turn is the work's: it goes on when its caller
    /// gave up.
    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        done.await.map_err(io::Error::other)?
    }
}

/// Adds a row; all of it, or nothing.
fn add(path: &Path, row: &AuditRow) -> io::Result<()> {
    let fresh = !path.exists();
    let mut options = OpenOptions::new();
    let mut file = options.create(true).read(true).append(true).mode(0o600).open(path)?;
    let len = file.metadata()?.len();
    if len >= SPOOL_BYTES_MAX {
        return Err(io::Error::other("the spool is full"));
    }
    let begin = if ends_a_line(&mut file, len)? { "" } else { "\n" };
    let line = format!("{begin}{}\n", to_json(row));
    if let Err(error) = file.write_all(line.as_bytes()).and_then(|()| file.sync_all()) {
        return file.set_len(len).and(Err(error));
    }
    match path.parent() {
        Some(dir) if fresh => files::sync_dir(dir),
        Some(_) | None => Ok(()),
    }
}

/// A kill may have cut the last line short: the next one begins anew.
fn ends_a_line(file: &mut File, len: u64) -> io::Result<bool> {
    if len == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// Renames the spool, unless rows of an import before are still there, and reads its rows.
fn take(from: &Path, to: &Path) -> io::Result<Vec<AuditRow>> {
    if !to.exists() {
        fs::rename(from, to)?;
        files::sync_dir(to.parent().unwrap_or_else(|| Path::new(".")))?;
    }
    let bytes = fs::read(to)?;
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let rows = lines.filter_map(|line| {
        let row = parse(line);
        if row.is_none() {
            let bytes = line.len();
            tracing::error!(bytes, "a line of the audit spool is no row; its caller was not answered");
        }
        row
    });
    Ok(rows.collect())
}

fn to_json(row: &AuditRow) -> Value {
    json!({
        "at": row.at.0, "actor": row.actor, "action": row.action, "outcome": row.outcome.as_str(),
        "reason": row.reason, "node": row.node.map(|id| id.to_string()), "run": row.run.map(|id| id.to_string()),
        "policy_revision": row.policy_revision.map(|revision| revision.0), "argv": row.argv, "detail": row.detail,
        "token": row.token.map(|id| id.to_string()),
    })
}

fn parse(line: &[u8]) -> Option<AuditRow> {
    let value: Value = serde_json::from_slice(line).ok()?;
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let outcome = Outcome::parse(&text("outcome")?)?;
    let at = WallTime(value.get("at")?.as_i64()?);
    let mut row = AuditRow::new(at, text("actor")?, text("action")?, outcome);
    row.reason = text("reason");
    row.detail = text("detail");
    row.node = text("node").and_then(|id| id.parse().ok());
    row.run = text("run").and_then(|id| id.parse().ok());
    row.token = text("token").and_then(|id| id.parse().ok());
    row.policy_revision = value.get("policy_revision").and_then(Value::as_u64).map(cortex_core::id::Revision);
    let argv = value.get("argv")?.as_array()?;
    row.argv = argv.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    Some(row)
}

#[cfg(test)]
mod tests;
