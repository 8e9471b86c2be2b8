//! `cortex status`.

use cortex_core::words::count;
use cortex_wire::http::{StatsView, WhoAmI};
use serde_json::json;

use super::Context;
use crate::duration;
use crate::error::Result;

/// Show the hub at a glance: who asks, nodes, runs, store.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex status\n  cortex status --json")]
pub(crate) struct Status {}

impl Status {
    pub(crate) async fn run(&self, context: &Context) -> Result {
        let mut client = context.client()?;
        let stats: StatsView = client.get("/stats").await?;
        let who: WhoAmI = client.get("/whoami").await?;
        let hub = client.target().url();
        let output = context.output;
        if output.json {
            return output.json(&json!({"hub": hub, "stats": stats, "whoami": who}));
        }
        let store = format!(
            "{}, {} in {}, {} waiting, last commit {} µs",
            stats.store,
            count(stats.store_writes, "durable write", "durable writes"),
            count(stats.store_commits, "commit", "commits"),
            stats.store_queue,
            stats.store_commit_us
        );
        let disk = match (stats.disk_free_bytes, stats.disk_reserve_bytes) {
            (Some(free), Some(reserve)) if free < reserve => format!(
                "{} MiB free, below the reserve of {} MiB: output of commands is held back at their nodes",
                free >> 20,
                reserve >> 20
            ),
            (Some(free), _) => format!("{} MiB free", free >> 20),
            (None, _) => "does not answer".to_owned(),
        };
        let permissive = match stats.permissive_nodes.as_slice() {
            [] => "none; every policy is STRICT".to_owned(),
            names => names.join(", "),
        };
        let audit = match &stats.audit_broken {
            Some(why) => format!("BROKEN: {why} Look with `cortex audit verify`."),
            None => "nothing known against it".to_owned(),
        };
        output.facts(
            &stats,
            &[
                ("hub", format!("{hub}, version {}", stats.version)),
                ("up", duration::show(stats.uptime_s.saturating_mul(1000))),
                ("you", format!("{} ({})", who.actor, who.role)),
                ("nodes", format!("{} online of {}", stats.nodes_online, stats.nodes)),
                ("nodes dial", stats.grpc.clone()),
                ("open runs", stats.runs_open.to_string()),
                ("listeners", stats.listeners.to_string()),
                ("store", store),
                ("disk", disk),
                ("PERMISSIVE", permissive),
                ("audit log", audit),
            ],
        )
    }
}
