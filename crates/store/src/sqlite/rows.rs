//! One file per table: its columns, how they are read and how they are written. Columns stand
//! once, in the order in which both sides use them.

pub(super) mod audit;
pub(super) mod events;
pub(super) mod invites;
pub(super) mod nodes;
pub(super) mod policies;
pub(super) mod runs;
pub(super) mod tokens;

/// `INSERT … ON CONFLICT (key) DO UPDATE` over all of `columns`, of which the first is the key.
fn upsert(table: &str, columns: &str) -> String {
    let names: Vec<&str> = columns.split(',').map(str::trim).collect();
    let places = vec!["?"; names.len()].join(", ");
    let set: Vec<String> = names.iter().skip(1).map(|name| format!("{name} = excluded.{name}")).collect();
    let key = names.first().copied().unwrap_or_default();
    format!(
        "INSERT INTO {table} ({columns}) VALUES ({places}) ON CONFLICT ({key}) DO UPDATE SET {}",
        set.join(", ")
    )
}
