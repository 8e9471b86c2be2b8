//! `cortex lock TARGET|ls|rm`, and how `cortex node lock|unlock` ask for the same.

use cortex_wire::http::{LockRequest, LockView};
use http::Method;
use serde_json::json;

use super::{Context, args};
use crate::client::{Call, Client, encode};
use crate::error::{Failure, Result};

const HEAD: [&str; 6] = ["ID", "TARGET", "STATE", "BY", "ENDS", "MESSAGE"];

/// Lock a user, a token, a node or a label: what runs under it ends at once, and nothing new starts.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex lock token:ci --ttl 1h --message 'leaked? ask Ada'\n  cortex lock label:role=ci",
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub(crate) struct Lock {
    #[command(subcommand)]
    action: Option<Action>,
    /// `user:NAME`, `token:NAME`, `node:NAME` or `label:KEY=VALUE`.
    #[arg(value_name = "TARGET", required = true)]
    target: Option<String>,
    #[command(flatten)]
    how: How,
}

/// What is said of a lock.
#[derive(clap::Args, Debug)]
pub(crate) struct How {
    /// For how long, such as 1h or 7d; until it is removed when missing.
    #[arg(long, value_name = "SPAN", value_parser = args::span_ms)]
    ttl: Option<u64>,
    /// What whoever meets the lock is told.
    #[arg(long, value_name = "TEXT", default_value = "")]
    message: String,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// List the locks that were not removed.
    #[command(before_help = "Example:\n  cortex lock ls")]
    Ls,
    /// Remove a lock.
    #[command(before_help = "Example:\n  cortex lock rm 0198a1c2-0000-7000-8000-000000000000")]
    Rm {
        /// Its id, from `cortex lock ls`.
        id: String,
    },
}

impl Lock {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let mut client = context.client()?;
        match (self.action, self.target) {
            (Some(Action::Ls), _) => {
                let locks: Vec<LockView> = client.list("/locks", usize::MAX).await?;
                context.output.list(&locks, &HEAD, row, "There are no locks. Next: cortex lock token:NAME")
            }
            (Some(Action::Rm { id }), _) => {
                remove(&mut client, &id).await?;
                told_removed(context, &[id])
            }
            (None, Some(target)) => put(context, &mut client, target, self.how).await,
            (None, None) => Err(Failure::usage(
                "Nothing is named that is to be locked.",
                "Name it, such as `cortex lock token:ci`, or list the locks with `cortex lock ls`.",
            )),
        }
    }
}

/// Makes a lock and shows it.
pub(crate) async fn put(context: &Context, client: &mut Client, target: String, how: How) -> Result {
    let request = LockRequest { target, ttl_ms: how.ttl, message: how.message };
    let lock: LockView = client.post("/locks", &request).await?;
    if context.output.json {
        return context.output.json(&lock);
    }
    context.output.table(&HEAD, [row(&lock)])?;
    context
        .output
        .say(&format!("Locked; what ran under it is being ended. Remove it: cortex lock rm {}", lock.id));
    Ok(())
}

/// Removes every lock on this node itself; those on its labels stay, and are named.
pub(crate) async fn unlock_node(context: &Context, client: &mut Client, node_id: &str) -> Result {
    let locks: Vec<LockView> = client.list("/locks", usize::MAX).await?;
    let ours =
        |lock: &&LockView| lock.target_id.as_deref() == Some(node_id) && lock.target.starts_with("node:");
    let ids: Vec<String> = locks.iter().filter(ours).map(|lock| lock.id.clone()).collect();
    if ids.is_empty() {
        return Err(Failure::new(
            cortex_core::Code::NotFound,
            "No lock holds on this node itself.",
            "Look at the locks on labels with `cortex lock ls`.",
        ));
    }
    for id in &ids {
        remove(client, id).await?;
    }
    told_removed(context, &ids)
}

async fn remove(client: &mut Client, id: &str) -> Result {
    client.done(Method::DELETE, &format!("/locks/{}", encode(id)), Call::default()).await
}

fn told_removed(context: &Context, ids: &[String]) -> Result {
    if context.output.json {
        return context.output.json(&json!({"removed": ids}));
    }
    context.output.say("Removed; it holds no more.");
    Ok(())
}

fn row(lock: &LockView) -> Vec<String> {
    vec![
        lock.id.clone(),
        lock.target.clone(),
        lock.state.clone(),
        lock.created_by.clone(),
        lock.expires_at.clone().unwrap_or_else(|| "when removed".to_owned()),
        cortex_core::name::printable(&lock.message, 120),
    ]
}
