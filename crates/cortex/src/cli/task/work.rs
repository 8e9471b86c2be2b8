//! What a worker that is no node does: claim, extend, finish, fail, release.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cortex_wire::http::{
    ClaimRequest, Claimed, ClaimedTask, LeaseExtend, LeaseExtended, LeaseProgress, LeaseReport, TaskView,
};
use serde_json::json;

use super::said;
use crate::cli::{Context, args};
use crate::client::{Client, encode};
use crate::error::Result;

/// Claim tasks of a kind, as a worker that is no node.
///
/// Quote the attempt of each in every report. Extend its lease while you work.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex task claim --kind resize --max 4 --wait 30s --json")]
pub(super) struct Claim {
    /// What you understand; may be repeated.
    #[arg(long, value_name = "KIND", required = true)]
    kind: Vec<String>,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 1)]
    max: usize,
    /// Wait so long for the first, at most 50s.
    #[arg(long, value_name = "SPAN", value_parser = args::span_ms)]
    wait: Option<u64>,
}

impl Claim {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let wait_s = self.wait.map(|ms| ms.div_ceil(1_000));
        let request = ClaimRequest { kinds: self.kind, max: Some(self.max), wait_s };
        let claimed: Claimed = client.post("/pool/claims", &request).await?;
        context.output.list(&claimed.items, &["ID", "ATTEMPT", "KIND", "LEASE"], row, "Nothing waits.")
    }
}

fn row(task: &ClaimedTask) -> Vec<String> {
    let lease = crate::duration::show(task.lease_ms);
    vec![task.id.clone(), task.attempt.to_string(), task.kind.clone(), lease]
}

/// Which attempt.
#[derive(clap::Args, Debug)]
struct Lease {
    /// The task.
    id: String,
    /// The number that the claim gave.
    attempt: u64,
}

impl Lease {
    fn path(&self, what: &str) -> String {
        format!("/pool/leases/{}/{}/{what}", encode(&self.id), self.attempt)
    }
}

/// Say that you are still at it, and how far: the lease has its whole length again.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Example:\n  cortex task extend 0198a1c2-0000-7000-8000-000000000000 1 --done 3 --total 10 --note 'page 3'"
)]
pub(super) struct Extend {
    #[command(flatten)]
    lease: Lease,
    /// Another length from now on.
    #[arg(long = "lease", value_name = "SPAN", value_parser = args::span_ms)]
    length: Option<u64>,
    /// Parts that are done, in whatever you count.
    #[arg(long, value_name = "N")]
    done: Option<u64>,
    /// Parts in all.
    #[arg(long, value_name = "N", requires = "done")]
    total: Option<u64>,
    /// A word on it, at most 256 bytes.
    #[arg(long, value_name = "TEXT", requires = "done")]
    note: Option<String>,
}

impl Extend {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let (total, note) = (self.total, self.note);
        let progress = self.done.map(|done| LeaseProgress { done, total, note });
        let request = LeaseExtend { lease_ms: self.length, progress };
        let extended: LeaseExtended = client.post(&self.lease.path("extend"), &request).await?;
        if context.output.json {
            return context.output.json(&extended);
        }
        context.output.say(if extended.cancel_requested {
            "Extended; but somebody asks for its end: stop, and report with `cortex task fail`."
        } else {
            "Extended."
        });
        Ok(())
    }
}

/// Report that it is done.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Example:\n  cortex task finish 0198a1c2-0000-7000-8000-000000000000 1 --output-file result.json"
)]
pub(super) struct Finish {
    #[command(flatten)]
    lease: Lease,
    /// What came of it, at most 64 KiB; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,
    /// A sentence for people.
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
}

impl Finish {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let report = LeaseReport { message: self.message, ..result(self.output_file)? };
        let task: TaskView = client.post(&self.lease.path("finish"), &report).await?;
        said(context, &task, &format!("The task is {}.", task.state))
    }
}

/// Report that it failed.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Example:\n  cortex task fail 0198a1c2-0000-7000-8000-000000000000 1 --message 'no such file'"
)]
pub(super) struct Fail {
    #[command(flatten)]
    lease: Lease,
    /// A sentence for people.
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// Trying again would not help.
    #[arg(long = "final")]
    is_final: bool,
}

impl Fail {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let report = LeaseReport { message: self.message, is_final: self.is_final, ..LeaseReport::default() };
        let task: TaskView = client.post(&self.lease.path("fail"), &report).await?;
        said(context, &task, &format!("The task is {}.", task.state))
    }
}

/// Give it back. That is no failed attempt.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex task release 0198a1c2-0000-7000-8000-000000000000 1")]
pub(super) struct Release {
    #[command(flatten)]
    lease: Lease,
}

impl Release {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let task: TaskView = client.post(&self.lease.path("release"), &json!({})).await?;
        said(context, &task, &format!("The task is {}.", task.state))
    }
}

fn result(file: Option<PathBuf>) -> Result<LeaseReport> {
    let Some(file) = file else { return Ok(LeaseReport::default()) };
    let bytes = super::add::read(&file, cortex_core::limits::RESULT_BYTES_MAX)?;
    Ok(match String::from_utf8(bytes) {
        Ok(text) => LeaseReport { output: Some(text), ..LeaseReport::default() },
        Err(bytes) => {
            let output_base64 = Some(STANDARD.encode(bytes.as_bytes()));
            LeaseReport { output_base64, ..LeaseReport::default() }
        }
    })
}
