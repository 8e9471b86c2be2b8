//! Lists of tasks, each in order out of an index.

use cortex_core::id::TaskId;
use cortex_core::pool::{Task, TaskState};
use cortex_core::time::WallTime;
use rusqlite::{Connection, ToSql, params};

use super::super::super::codec::{Id, limit, many, one};
use super::super::lanes::party_bytes;
use super::{LaneOf, columns, decode};
use crate::{StoreError, TaskFilter};

const LEASED: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM tasks CROSS JOIN task_specs AS specs ON specs.n = tasks.spec WHERE tasks.state = 'leased' \
     ORDER BY tasks.id"
);
const DUE: &str = "SELECT id, due_at FROM tasks INDEXED BY tasks_due WHERE state = 'scheduled' AND waits_for = 0 AND due_at <= ?1 \
                   ORDER BY due_at, id LIMIT ?2";
const NEXT_DUE: &str = "SELECT due_at FROM tasks INDEXED BY tasks_due WHERE state = 'scheduled' AND waits_for = 0 \
                        AND due_at IS NOT NULL ORDER BY due_at LIMIT 1";
const EXPIRING: &str = "SELECT id, expires_at FROM tasks INDEXED BY tasks_expiring WHERE state = 'ready' AND expires_at <= ?1 \
                        AND expires_at IS NOT NULL ORDER BY expires_at, id LIMIT ?2";
const NEXT_EXPIRY: &str = "SELECT expires_at FROM tasks INDEXED BY tasks_expiring WHERE state = 'ready' AND expires_at IS NOT NULL \
                           ORDER BY expires_at LIMIT 1";
const ENDED: &str =
    "SELECT id, ended_at FROM tasks WHERE ended_at IS NOT NULL ORDER BY ended_at, id LIMIT ?1";

/// In which order a list is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Orders {
    /// Of each wanted state, or of all tasks.
    State,
    /// Of the party.
    Party,
    /// Of the schedule.
    Schedule,
}

impl Orders {
    /// The one for a filter: what a schedule made is few, then what a party has.
    const fn of(filter: &TaskFilter) -> Self {
        match (filter.schedule, filter.party) {
            (Some(_), _) => Self::Schedule,
            (None, Some(_)) => Self::Party,
            (None, None) => Self::State,
        }
    }
}

pub(in super::super::super) fn list(
    conn: &Connection,
    filter: &TaskFilter,
    count: usize,
    lane_of: &LaneOf<'_>,
) -> Result<Vec<Task>, StoreError> {
    // Every id is below seventeen bytes of ones.
    let before = filter.before.map_or(vec![u8::MAX; 17], |id| id.as_bytes().to_vec());
    let count = limit(count);
    let party = filter.party.map(party_bytes);
    let schedule = filter.schedule.as_ref().map(Id::key);
    let label = filter.label.as_ref().map(|(key, value)| (key.as_str(), value.as_str())).unzip();
    let params: [&dyn ToSql; 6] = [&before, &count, &party, &schedule, &label.0, &label.1];
    let sql = list_sql(filter);
    let used = 1 + (1..=6).rev().find(|index| sql.contains(&format!("?{index}"))).unwrap_or(0);
    many(conn, &sql, params.get(..used - 1).unwrap_or_default(), |row| {
        decode(row, lane_of).map(|(task, _)| task)
    })
}

/// Before ?1, at most ?2, of the party ?3, of the schedule ?4, with the label ?5 of value ?6.
pub(super) fn list_sql(filter: &TaskFilter) -> String {
    let order = Orders::of(filter);
    let from = match order {
        Orders::State => "tasks CROSS JOIN task_specs AS specs ON specs.n = tasks.spec WHERE tasks.id < ?1",
        Orders::Party => {
            "task_specs AS specs CROSS JOIN tasks ON tasks.id = specs.id WHERE specs.party = ?3 AND specs.id < ?1"
        }
        Orders::Schedule => {
            "task_specs AS specs CROSS JOIN tasks ON tasks.id = specs.id \
             WHERE specs.schedule = ?4 AND specs.id < ?1"
        }
    };
    let mut more = String::new();
    if order == Orders::Schedule && filter.party.is_some() {
        more.push_str(" AND specs.party = ?3");
    }
    if filter.label.is_some() {
        // Not by a path: what somebody asks for need not be one.
        more.push_str(
            " AND EXISTS (SELECT 1 FROM json_each(specs.labels) AS label WHERE label.key = ?5 AND label.value = ?6)",
        );
    }
    let states: Vec<&str> =
        TaskState::ALL.iter().filter(|it| filter.states.contains(it)).map(|it| it.as_str()).collect();
    let arm =
        |condition: &str| format!(concat!("SELECT ", columns!(), " FROM {}{}{}"), from, condition, more);
    let arms: Vec<String> = match (order, states.is_empty()) {
        (_, true) => vec![arm("")],
        (Orders::State, false) => {
            states.iter().map(|state| arm(&format!(" AND tasks.state = '{state}'"))).collect()
        }
        (Orders::Party | Orders::Schedule, false) => {
            vec![arm(&format!(" AND tasks.state IN ('{}')", states.join("', '")))]
        }
    };
    let by = if order == Orders::State { "1" } else { "specs.id" };
    format!("{} ORDER BY {by} DESC LIMIT ?2", arms.join(" UNION ALL "))
}

pub(in super::super::super) fn leased(
    conn: &Connection,
    lane_of: &LaneOf<'_>,
) -> Result<Vec<Task>, StoreError> {
    many(conn, LEASED, [], |row| decode(row, lane_of).map(|(task, _)| task))
}

pub(in super::super::super) fn due(
    conn: &Connection,
    now: WallTime,
    count: usize,
) -> Result<Vec<TaskId>, StoreError> {
    many(conn, DUE, params![now.0, limit(count)], |row| row.id())
}

pub(in super::super::super) fn next_due(conn: &Connection) -> Result<Option<WallTime>, StoreError> {
    one(conn, NEXT_DUE, [], |row| row.time())
}

pub(in super::super::super) fn expiring(
    conn: &Connection,
    now: WallTime,
    count: usize,
) -> Result<Vec<TaskId>, StoreError> {
    many(conn, EXPIRING, params![now.0, limit(count)], |row| row.id())
}

pub(in super::super::super) fn next_expiry(conn: &Connection) -> Result<Option<WallTime>, StoreError> {
    one(conn, NEXT_EXPIRY, [], |row| row.time())
}

pub(in super::super::super) fn ended(
    conn: &Connection,
    count: usize,
) -> Result<Vec<(TaskId, WallTime)>, StoreError> {
    many(conn, ENDED, [limit(count)], |row| Ok((row.id()?, row.time()?)))
}

/// The queries that must come in order out of an index, with its name.
#[cfg(test)]
pub(in super::super) fn queries() -> Vec<(String, &'static str)> {
    use cortex_core::id::{ScheduleId, UserId};
    use cortex_core::pool::Owner;
    let mut queries: Vec<(String, &'static str)> = [
        (LEASED, "tasks_state"),
        (DUE, "tasks_due"),
        (NEXT_DUE, "tasks_due"),
        (EXPIRING, "tasks_expiring"),
        (NEXT_EXPIRY, "tasks_expiring"),
        (ENDED, "tasks_ended"),
    ]
    .map(|(sql, index)| (sql.to_owned(), index))
    .to_vec();
    let party = Owner { token: None, user: Some(UserId::mint(1, &[1; 10])) };
    let schedule = ScheduleId::mint(1, &[1; 10]);
    for states in [vec![], vec![TaskState::Dead], vec![TaskState::Ready, TaskState::Leased]] {
        let by_state = if states.is_empty() { "PRIMARY KEY" } else { "tasks_state" };
        let filter = TaskFilter { states, ..TaskFilter::default() };
        let label = Some(("a".to_owned(), "b".to_owned()));
        let of_party = TaskFilter { party: Some(party), label, ..filter.clone() };
        let of_schedule = TaskFilter { schedule: Some(schedule), ..of_party.clone() };
        queries.push((list_sql(&filter), by_state));
        queries.push((list_sql(&of_party), "task_specs_party"));
        queries.push((list_sql(&of_schedule), "task_specs_schedule"));
    }
    queries
}
