//! The work pool beside its tasks: how workers that are no nodes claim and report, and its figures.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::Problem;

/// `POST /pool/claims`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    /// Which payloads this worker understands.
    pub kinds: Vec<String>,
    /// At most so many; 1 when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<usize>,
    /// How long to wait for the first when there is none, at most 50; not at all when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_s: Option<u64>,
}

/// The answer to a claim: nothing, when nothing came in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Claimed {
    /// The tasks.
    pub items: Vec<ClaimedTask>,
}

/// A task that was handed out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClaimedTask {
    /// UUID.
    pub id: String,
    /// Quote it in every report.
    pub attempt: u64,
    /// Its kind.
    pub kind: String,
    /// Its bytes, when they are text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The same, when they are no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    /// Extend the lease within that time, or report.
    pub lease_ms: u64,
    /// Attempts that failed or were lost before.
    pub tries: u32,
    /// Attempts in all.
    pub attempts: u32,
    /// How soon, 0 to 9.
    pub priority: u8,
    /// What its owner gave it.
    pub labels: BTreeMap<String, String>,
    /// Who submitted it.
    pub caller: String,
    /// W3C traceparent of its submission.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// `POST /pool/leases/{id}/{attempt}/extend`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LeaseExtend {
    /// A new length from now on; the one that it has when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// How far the worker is, in the place of what it said before; left as it is when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<LeaseProgress>,
}

/// How far a worker is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaseProgress {
    /// Parts that are done, in whatever unit the worker counts.
    pub done: u64,
    /// Parts in all, when it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    /// A word for people; at most 256 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeaseExtended {
    /// UUID of the task.
    pub id: String,
    /// The attempt.
    pub attempt: u64,
    /// Somebody asks for the end of the task: stop, and report.
    pub cancel_requested: bool,
}

/// `POST /pool/leases/{id}/{attempt}/finish`, and `…/fail`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LeaseReport {
    /// What came of it, as text; at most 64 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// The same, when it is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_base64: Option<String>,
    /// A sentence for people; at most 1 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Of a failure: trying again would not help.
    #[serde(rename = "final", skip_serializing_if = "std::ops::Not::not")]
    pub is_final: bool,
}

/// One of the array of `POST /pool/reports`: what a worker says of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PoolReport {
    /// UUID of the task.
    pub id: String,
    /// The attempt, as the claim told it.
    pub attempt: u64,
    /// What became of it.
    pub how: PoolReportHow,
    /// What came of it; nothing for `release`.
    #[serde(default)]
    pub result: LeaseReport,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PoolReportHow {
    /// The work is done.
    Finish,
    /// It failed.
    Fail,
    /// The worker gives it back.
    Release,
}

/// The answer to `POST /pool/reports`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolReported {
    /// One for each report, in their order.
    pub items: Vec<PoolReportAnswer>,
}

/// What became of one report: the state of its task, or why it was not taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolReportAnswer {
    /// `done ready scheduled dead cancelled expired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Why the report was not taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

/// The pool at a glance: `GET /pool/stats`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolStats {
    /// Tasks by state, for who sees all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<BTreeMap<String, u64>>,
    /// Tasks that somebody works on, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leases: Option<u64>,
    /// Since when the one waits that has waited longest, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_ready_at: Option<String>,
    /// Nodes that one sees.
    pub nodes: Vec<PoolNode>,
}

/// A node as the pool has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PoolNode {
    /// Its name.
    pub node: String,
    /// It is connected.
    pub online: bool,
    /// Tasks that it works on at once.
    pub slots: u32,
    /// Tasks that it works on.
    pub busy: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_writes_what_was_said_and_nothing_more() {
        let failed = LeaseReport { is_final: true, ..LeaseReport::default() };
        assert_eq!(serde_json::to_string(&failed).expect("JSON"), r#"{"final":true}"#);
        assert_eq!(serde_json::to_string(&LeaseReport::default()).expect("JSON"), "{}");
        let progress = Some(LeaseProgress { done: 3, ..LeaseProgress::default() });
        let extend = LeaseExtend { progress, ..LeaseExtend::default() };
        assert_eq!(serde_json::to_string(&extend).expect("JSON"), r#"{"progress":{"done":3}}"#);
    }
}
