//! Tasks of the work pool: how they are submitted, how they stand, and why they wait.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::ToSchema;

use crate::error::Problem;

/// A task: `POST /pool/tasks`. Either a command (`argv`) for nodes, or a payload (`kind`) for workers that
/// ask for that kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TaskRequest {
    /// Of a command: program and arguments. No shell sees them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// Of a command: absolute path on the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Of a command: variables to set. `CORTEX_TASK_ID` and `CORTEX_ATTEMPT` are set beside them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Of a command: each attempt is ended after that time, and counts as failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_limit_ms: Option<u64>,
    /// Of a payload: which workers may have it. Any name but `command`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Of a payload: its bytes, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The same, when they are no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    /// Labels that its node must have: `role=ci,os=linux`. All nodes suit when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Labels of nodes that are asked first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefer: Option<String>,
    /// 0 (last) to 8 (first), 5 when missing; 9 is for administrators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Attempts in all; 3 when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Waits between attempts that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<TaskBackoff>,
    /// It must start in that time, or it expires. Counted from when it is ready for the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_within_ms: Option<u64>,
    /// That time begins anew while no node is enrolled that could have it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub start_within_pauses: bool,
    /// Length of its lease; 5 minutes when missing. It is for noticing that a worker is gone, and is
    /// extended for as long as the worker is heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// Ids of one's own tasks that must be done before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// How many of its sort may be worked on at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<TaskConcurrency>,
    /// For people and lists.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Not before that moment, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
    /// One's own key: the same key is the same task. Of a single task also the header `Idempotency-Key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// The wait before the next attempt: `initial_ms`, each next one `factor_percent` of the one before, at
/// most `max_ms`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TaskBackoff {
    /// 5000 when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_ms: Option<u64>,
    /// 200 when missing, which doubles it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor_percent: Option<u32>,
    /// 300000 when missing, or `initial_ms` when that is longer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_ms: Option<u64>,
    /// Up to so many percent are taken off by chance; 20 when missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter_percent: Option<u32>,
}

/// How many tasks with one key are worked on at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskConcurrency {
    /// The key, shared by the tasks of all.
    pub key: String,
    /// How many.
    pub limit: u32,
}

/// The body of `POST /pool/tasks`: one task, or up to 1000 of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum TaskSubmission {
    /// One.
    One(Box<TaskRequest>),
    /// Many, each answered on its own.
    Many(Vec<TaskRequest>),
}

// By hand, so that what cannot be read is named and not only said to fit no variant.
impl<'de> Deserialize<'de> for TaskSubmission {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let serde_json::Value::Array(items) = value else {
            let read = serde_json::from_value(value).map_err(de::Error::custom)?;
            return Ok(Self::One(Box::new(read)));
        };
        let read = |(at, item)| {
            serde_json::from_value(item)
                .map_err(|error| de::Error::custom(format!("task {at} of the array: {error}")))
        };
        items.into_iter().enumerate().map(read).collect::<Result<_, _>>().map(Self::Many)
    }
}

/// The answer to many tasks, in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TasksSubmitted {
    /// One per task of the request.
    pub items: Vec<TaskAnswer>,
}

/// What became of one of many tasks: a task, or why not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskAnswer {
    /// The task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskView>,
    /// It is the task of an earlier submission with the same key.
    #[serde(default)]
    pub known: bool,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
}

/// A task, in lists and alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskView {
    /// UUID.
    pub id: String,
    /// `scheduled ready leased done dead cancelled expired`.
    pub state: String,
    /// `command`, or what workers ask for.
    pub kind: String,
    /// Of a command: program and arguments.
    pub argv: Vec<String>,
    /// Of a command: working directory, when given.
    pub cwd: Option<String>,
    /// Of a command: names of the variables that are set. Their values are not shown.
    pub env_names: Vec<String>,
    /// Of a command: time after which an attempt is ended.
    pub run_limit_ms: Option<u64>,
    /// Of a payload: how long it is.
    pub payload_bytes: Option<u64>,
    /// Labels that its node must have.
    pub selector: String,
    /// Labels of nodes that are asked first.
    pub prefer: String,
    /// How soon, 0 to 9.
    pub priority: u8,
    /// Number of the last attempt; 0 before the first.
    pub attempt: u64,
    /// Attempts that failed or were lost.
    pub tries: u32,
    /// Attempts in all.
    pub attempts: u32,
    /// Waits between them.
    pub backoff: TaskBackoff,
    /// Time in which it must start.
    pub start_within_ms: Option<u64>,
    /// That time begins anew while no node could have it.
    pub start_within_pauses: bool,
    /// Length of its lease.
    pub lease_ms: u64,
    /// Tasks that must be done before.
    pub after: Vec<String>,
    /// Of these, how many are not done.
    pub waits_for: u32,
    /// How many of its sort at once.
    pub concurrency: Option<TaskConcurrency>,
    /// For people and lists.
    pub labels: BTreeMap<String, String>,
    /// Its owner's key.
    pub key: Option<String>,
    /// Who submitted it.
    pub caller: String,
    /// UUID of the schedule that made it.
    pub schedule: Option<String>,
    /// The node that works on it; in a story also the one that did last.
    pub node: Option<String>,
    /// That node's UUID.
    pub node_id: Option<String>,
    /// The run that is that attempt.
    pub run_id: Option<String>,
    /// Somebody who is no node works on it: UUID of the token.
    pub worker: Option<String>,
    /// Since when somebody works on it.
    pub leased_at: Option<String>,
    /// How far its last attempt said that it is.
    #[serde(default)]
    pub progress: Option<TaskProgress>,
    /// When it was submitted.
    pub submitted_at: String,
    /// Not before then.
    pub due_at: Option<String>,
    /// Since when it waits, or waited, for its turn.
    pub ready_at: Option<String>,
    /// It must have started by then.
    pub expires_at: Option<String>,
    /// When it came to its end.
    pub ended_at: Option<String>,
    /// Who asked for its end.
    pub cancelled_by: Option<String>,
    /// Nodes whose policy denied it: it stays away from there.
    pub excluded: Vec<String>,
    /// What came of the last attempt that reported.
    pub result: Option<TaskOutcome>,
    /// Steps of its timeline so far.
    pub steps: u32,
}

/// How far an attempt is, as its worker said last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskProgress {
    /// Parts that are done, in whatever unit the worker counts.
    pub done: u64,
    /// Parts in all, when it knows.
    pub total: Option<u64>,
    /// A word for people.
    pub note: Option<String>,
    /// When it said so.
    pub at: String,
}

/// What came of an attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TaskOutcome {
    /// Exit code, of a command.
    pub code: Option<i32>,
    /// Signal that ended it, of a command.
    pub signal: Option<i32>,
    /// What a worker gave, when it is text. The output of a command is that of its run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// The same, when it is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_base64: Option<String>,
    /// A sentence for people.
    pub message: Option<String>,
}

/// A task with what happened to it: `GET /pool/tasks/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskStory {
    /// The task.
    #[serde(flatten)]
    pub task: TaskView,
    /// Of a payload: its bytes, when they are text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The same, when they are no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    /// Its timeline, oldest step first.
    pub timeline: Vec<TaskStep>,
    /// Reports of attempts that had ended: not taken, and kept for people.
    pub evidence: Vec<TaskEvidence>,
}

/// One step of a task's timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskStep {
    /// When.
    pub at: String,
    /// `submitted scheduled ready leased released failed done dead cancel_requested cancelled expired
    /// postponed retried bumped excluded stale_report`; more may come.
    pub step: String,
    /// The attempt that it is about, or the last one before it.
    pub attempt: u64,
    /// The node's name.
    pub node: Option<String>,
    /// UUID of the run.
    pub run_id: Option<String>,
    /// Who caused it, when somebody asked for it.
    pub actor: Option<String>,
    /// A word or sentence more.
    pub detail: Option<String>,
}

/// A report that came too late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskEvidence {
    /// When it came.
    pub at: String,
    /// Of which attempt.
    pub attempt: u64,
    /// The node's name, when it was one.
    pub node: Option<String>,
    /// UUID of its run.
    pub run_id: Option<String>,
    /// UUID of the token, when it was no node.
    pub worker: Option<String>,
    /// What.
    pub result: TaskOutcome,
}

/// Why a task waits: `GET /pool/tasks/{id}/explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskExplained {
    /// UUID.
    pub id: String,
    /// Its state.
    pub state: String,
    /// All reasons, the first one to mend in front.
    pub reasons: Vec<TaskReason>,
}

/// One reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskReason {
    /// `not_waiting scheduled after_failure dependency key_full paused owner_stopped no_node owner_may_not
    /// offline drained denied busy no_slots no_worker next`; more may come.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// What would change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// `POST /pool/tasks/{id}/priority`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskPriority {
    /// 0 (last) to 8 (first); 9 is for administrators.
    pub priority: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<TaskSubmission, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn one_task_and_many_are_read_and_what_is_wrong_is_named() {
        let one = read(r#"{"argv":["true"]}"#).expect("one");
        assert!(matches!(one, TaskSubmission::One(task) if task.argv == ["true"]));
        let many = read(r#"[{"kind":"a"},{"argv":["b"]}]"#).expect("many");
        assert!(matches!(many, TaskSubmission::Many(tasks) if tasks.len() == 2));
        let wrong = read(r#"[{"kind":"a"},{"agrv":["b"]}]"#).expect_err("a wrong field");
        assert!(wrong.contains("task 1 of the array") && wrong.contains("agrv"), "{wrong}");
        assert!(read(r#"{"priority":"high"}"#).expect_err("a wrong type").contains("u8"));
        assert!(read("7").is_err());
    }

    #[test]
    fn what_a_client_writes_is_what_it_meant_and_nothing_more() {
        let task = TaskRequest { argv: vec!["true".into()], priority: Some(3), ..TaskRequest::default() };
        let text = serde_json::to_string(&task).expect("JSON");
        assert_eq!(text, r#"{"argv":["true"],"priority":3}"#);
        assert!(matches!(read(&text), Ok(TaskSubmission::One(read)) if *read == task));
    }
}
