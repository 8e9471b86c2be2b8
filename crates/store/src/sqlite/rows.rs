//! One file per table: its columns, how they are read and how they are written. Columns stand
//! once, in the order in which both sides use them.

pub(super) mod audit;
pub(super) mod consents;
pub(super) mod events;
pub(super) mod files;
pub(super) mod grants;
pub(super) mod invites;
pub(super) mod lanes;
pub(super) mod locks;
pub(super) mod nodes;
pub(super) mod pauses;
pub(super) mod policies;
pub(super) mod profiles;
pub(super) mod runs;
pub(super) mod schedules;
pub(super) mod sync;
pub(super) mod tasks;
mod timeline;
pub(super) mod tokens;
pub(super) mod users;

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

#[cfg(test)]
mod tests {
    use cortex_core::id::{NodeId, RunId};
    use cortex_core::run::RunState;
    use rusqlite::Connection;

    use super::super::migrate;
    use super::{audit, consents, events, files, lanes, nodes, policies, runs, tasks};
    use crate::RunFilter;

    fn database() -> Connection {
        let mut conn = Connection::open_in_memory().expect("SQLite opens in memory");
        migrate::run(&mut conn, migrate::MIGRATIONS).expect("the tables are made");
        conn
    }

    /// How SQLite goes about a query, one step a line.
    fn plan(conn: &Connection, sql: &str) -> String {
        let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("a good query");
        let mut rows = statement.raw_query();
        let mut steps = Vec::new();
        while let Some(row) = rows.next().expect("a plan") {
            steps.push(row.get::<_, String>("detail").expect("text"));
        }
        steps.join("\n")
    }

    fn assert_looked_up(conn: &Connection, sql: &str) {
        let plan = plan(conn, sql);
        assert!(plan.contains("SEARCH"), "{sql}\n{plan}");
        assert!(!plan.contains("SCAN runs") && !plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
    }

    #[test]
    fn single_rows_are_looked_up() {
        let conn = database();
        let questions = [consents::BY_KEY, consents::ALIKE];
        for sql in [nodes::BY_ID, nodes::BY_NAME, runs::BY_ID, runs::BY_KEY, events::AFTER]
            .into_iter()
            .chain(questions)
        {
            assert_looked_up(&conn, sql);
        }
    }

    #[test]
    fn every_list_of_questions_comes_in_order_out_of_an_index() {
        let conn = database();
        for (standing, token) in [(false, false), (true, false), (false, true), (true, true)] {
            assert_looked_up(&conn, consents::list_sql(standing, token));
        }
        let plan = plan(&conn, consents::PENDING);
        assert!(plan.contains("COVERING INDEX consents_standing"), "{plan}");
    }

    #[test]
    fn revisions_of_a_policy_come_in_order_out_of_the_table_itself() {
        let conn = database();
        for sql in [policies::NEWEST, policies::HISTORY, policies::TRIM] {
            let plan = plan(&conn, sql);
            assert!(plan.contains("SEARCH") && !plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
        }
    }

    #[test]
    fn every_list_of_runs_comes_in_order_out_of_an_index() {
        let conn = database();
        let states: [&[RunState]; 3] = [&[], &[RunState::Lost], &[RunState::Queued, RunState::Running]];
        for node in [None, NodeId::from_slice(&[1; 16])] {
            for states in states {
                let filter = RunFilter { node, states: states.to_vec(), before: RunId::from_slice(&[9; 16]) };
                assert_looked_up(&conn, &runs::list_sql(&filter));
            }
        }
    }

    #[test]
    fn what_the_pool_looks_for_comes_in_order_out_of_an_index() {
        let conn = database();
        let single = [tasks::BY_ID, tasks::PLACE].map(|sql| (sql.to_owned(), "PRIMARY KEY"));
        let named = [(tasks::BY_KEY, "task_specs_key"), (lanes::BY_KEY, "lanes_key")];
        let named = named.map(|(sql, index)| (sql.to_owned(), index));
        let all =
            single.into_iter().chain(named).chain(tasks::list_queries()).chain(tasks::related_queries());
        for (sql, index) in all {
            let plan = plan(&conn, &sql);
            assert!(plan.contains("SEARCH") && plan.contains(index), "{sql}\n{plan}");
            let scans = ["SCAN tasks", "SCAN specs", "SCAN waiting", "SCAN lanes", "TEMP B-TREE"];
            assert!(!scans.iter().any(|scan| plan.contains(scan)), "{sql}\n{plan}");
        }
    }

    #[test]
    fn open_and_ended_runs_are_found_without_reading_the_others() {
        let conn = database();
        assert!(plan(&conn, &runs::OPEN).contains("USING INDEX runs_state"), "{}", plan(&conn, &runs::OPEN));
        for sql in [runs::ENDED.as_str(), runs::ENDED_COUNT] {
            let plan = plan(&conn, sql);
            assert!(plan.contains("INDEX runs_ended") && !plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
        }
        assert!(plan(&conn, runs::ENDED_COUNT).contains("COVERING"), "{}", plan(&conn, runs::ENDED_COUNT));
    }

    #[test]
    fn operations_on_files_are_found_in_their_order_without_reading_the_others() {
        let conn = database();
        for (sql, index) in [
            (files::BY_ID, "sqlite_autoindex_file_ops"),
            (files::BY_KEY, "INDEX file_ops_key"),
            (files::OPEN, "INDEX file_ops_open"),
            (files::OPEN_OF, "INDEX file_ops_open"),
            (files::ENDED, "INDEX file_ops_ended"),
            (files::ENDED_COUNT, "COVERING INDEX file_ops_ended"),
        ] {
            let plan = plan(&conn, sql);
            assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
        }
    }

    #[test]
    fn workspaces_and_skills_come_in_order_out_of_an_index() {
        use super::sync::{conflicts, members, revisions, skills, workspaces};

        let conn = database();
        for (sql, index) in [
            (workspaces::BY_ID, "sqlite_autoindex_workspaces"),
            (workspaces::BY_NAME, "INDEX workspaces_name"),
            (workspaces::LIVE, "INDEX workspaces_name"),
            (workspaces::COUNT, "INDEX workspaces_name"),
            (workspaces::REMOVED, "INDEX workspaces_removed"),
            (members::BY_ID, "sqlite_autoindex_members"),
            (members::OF, "INDEX members_workspace"),
            (members::AT, "INDEX members_path"),
            (revisions::BY_NUMBER, "PRIMARY KEY"),
            (revisions::BEFORE, "PRIMARY KEY"),
            (revisions::TIMES, "PRIMARY KEY"),
            (conflicts::NEWEST, "PRIMARY KEY"),
            (skills::NEWEST, "PRIMARY KEY"),
            (skills::BEFORE, "PRIMARY KEY"),
        ] {
            let plan = plan(&conn, sql);
            assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
        }
        // The folders of one node are few.
        assert!(plan(&conn, members::ON).contains("INDEX members_path"), "{}", plan(&conn, members::ON));
    }

    #[test]
    fn audit_rows_of_a_node_or_an_actor_are_looked_up() {
        let conn = database();
        for (condition, index) in [("node = ?3", "audit_node"), ("actor = ?3", "audit_actor")] {
            let sql = audit::list_sql(&[condition], true);
            let plan = plan(&conn, &sql);
            assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{sql}\n{plan}");
        }
    }
}
