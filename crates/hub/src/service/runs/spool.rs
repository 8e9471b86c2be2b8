//! Audit rows that the store could not take: one JSON line each in `audit.spool`, synced before
//! the answer, imported when the store is back. A row may be imported twice when the hub is
//! killed in between, and none is lost.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use cortex_store::{Store, StoreExt};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::STORE_DEADLINE;

/// A spool of that size takes no more: cancels are then refused as long as the store stalls.
const SPOOL_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How long a caller waits for the spool: the disk under it is the store's, which just failed.
const KEEP_MAX: Duration = Duration::from_secs(3);
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// The spool.
#[derive(Debug)]
pub(super) struct Spool {
    path: PathBuf,
    /// One at a time adds or imports.
    turn: Mutex<()>,
}

impl Spool {
    pub(super) fn new(data: &Path) -> Self {
        Self { path: data.join("audit.spool"), turn: Mutex::new(()) }
    }

    pub(super) fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Keeps a row; it is on disk when this returns. A disk that does not sync in time is told as
    /// a refusal, although the row may still get there.
    pub(super) async fn keep(&self, row: AuditRow) -> Result<(), Refusal> {
        let kept = tokio::time::timeout(KEEP_MAX, async {
            let _turn = self.turn.lock().await;
            let path = self.path.clone();
            tokio::task::spawn_blocking(move || add(&path, &row)).await
        });
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!(%error, "audit spool failed");
            Refusal::new(
                Code::StoreUnavailable,
                "The node was asked to end the run, but the audit row is not kept: store and spool failed.",
            )
        };
        match kept.await {
            Ok(Ok(done)) => done.map_err(|error| failed(&error)),
            Ok(Err(error)) => Err(failed(&error)),
            Err(late) => Err(failed(&late)),
        }
    }

    /// Brings the rows into the audit log, as soon as the store takes them.
    pub(super) async fn import(&self, store: Arc<dyn Store>) {
        let mut retry = RETRY_MIN;
        while self.exists() {
            {
                let _turn = self.turn.lock().await;
                if self.import_once(&store).await {
                    return;
                }
            }
            tokio::time::sleep(retry).await;
            retry = (retry * 2).min(RETRY_MAX);
        }
    }

    async fn import_once(&self, store: &Arc<dyn Store>) -> bool {
        let path = self.path.clone();
        let Ok(Ok(text)) = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await else {
            return false;
        };
        let rows: Vec<AuditRow> = text.lines().filter_map(parse).collect();
        let count = rows.len();
        let written = store.write(STORE_DEADLINE, move |tx| {
            for row in &rows {
                tx.append_audit(row)?;
            }
            Ok(())
        });
        if written.await.is_err() {
            return false;
        }
        let path = self.path.clone();
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_file(path)).await;
        tracing::info!(count, "audit rows imported from the spool");
        matches!(removed, Ok(Ok(())))
    }
}

fn add(path: &Path, row: &AuditRow) -> io::Result<()> {
    let fresh = !path.exists();
    let mut file: File = OpenOptions::new().create(true).append(true).open(path)?;
    if file.metadata()?.len() >= SPOOL_BYTES_MAX {
        return Err(io::Error::other("the spool is full"));
    }
    file.write_all(format!("{}\n", to_json(row)).as_bytes())?;
    file.sync_all()?;
    if fresh && let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

fn to_json(row: &AuditRow) -> Value {
    json!({
        "at": row.at.0, "actor": row.actor, "action": row.action, "outcome": row.outcome.as_str(),
        "reason": row.reason, "node": row.node.map(|id| id.to_string()), "run": row.run.map(|id| id.to_string()),
        "policy_revision": row.policy_revision.map(|revision| revision.0), "argv": row.argv, "detail": row.detail,
    })
}

/// A line that a kill cut short is dropped: its caller was not answered.
fn parse(line: &str) -> Option<AuditRow> {
    let value: Value = serde_json::from_str(line).ok()?;
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    let outcome = Outcome::parse(&text("outcome")?)?;
    let at = WallTime(value.get("at")?.as_i64()?);
    let mut row = AuditRow::new(at, text("actor")?, text("action")?, outcome);
    row.reason = text("reason");
    row.detail = text("detail");
    row.node = text("node").and_then(|id| id.parse().ok());
    row.run = text("run").and_then(|id| id.parse().ok());
    row.policy_revision = value.get("policy_revision").and_then(Value::as_u64).map(cortex_core::id::Revision);
    let argv = value.get("argv")?.as_array()?;
    row.argv = argv.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    Some(row)
}
