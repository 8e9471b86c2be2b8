//! Schedules of the work pool, and parts of it that stand still.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::TaskRequest;

/// A schedule: `POST /pool/schedules`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleRequest {
    /// Its name, among one's own.
    pub name: String,
    /// Minute, hour, day of the month, month, day of the week; or `@hourly`, `@daily`, `@weekly`.
    pub cron: String,
    /// The time zone, such as `Europe/Berlin`; `UTC` when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// What becomes of ticks that nobody saw since the hub was down: `once` (one task for all of them, when
    /// missing) or `skip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<String>,
    /// What each task is; without `after`, `key` and `not_before`.
    pub task: TaskRequest,
}

/// Switches a schedule: `PATCH /pool/schedules/{schedule}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SchedulePatch {
    /// Whether it makes tasks. Ticks that pass while it does not are none.
    pub on: bool,
}

/// A schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When.
    pub cron: String,
    /// In which time zone.
    pub zone: String,
    /// `once` or `skip`.
    pub missed: String,
    /// Whether it makes tasks.
    pub on: bool,
    /// The next tick, RFC 3339.
    pub next_at: Option<String>,
    /// The last tick that made a task.
    pub last_at: Option<String>,
    /// Who made it.
    pub caller: String,
    /// Of commands: program and arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// `command`, or the kind of its payloads.
    pub kind: String,
    /// Labels that a node must have.
    pub selector: String,
    /// Priority of its tasks.
    pub priority: u8,
    /// When it was made.
    pub created_at: String,
}

/// Lets a part of the pool stand still: `POST /pool/pauses`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseRequest {
    /// `node:build-2`, `label:role=ci` or `kind:resize`; `kind:command` is all commands.
    pub part: String,
    /// Why, for those who wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What is worked on there is given back after that time, and goes to others. It may end in its own
    /// time when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_ms: Option<u64>,
}

/// A part of the pool that stands still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PauseView {
    /// What: as it is given to end it.
    pub part: String,
    /// The node's name, when it is one.
    pub node: Option<String>,
    /// Who said so.
    pub by: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// Why.
    pub message: Option<String>,
    /// When what is worked on there is given back, or was.
    pub drained_at: Option<String>,
}
