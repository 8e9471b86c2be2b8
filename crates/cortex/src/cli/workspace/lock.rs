//! `cortex workspace lock|unlock`.

use cortex_core::name::printable;
use cortex_wire::http::{WorkspaceLockRequest, WorkspaceView};
use http::Method;

use super::path;
use crate::cli::{Context, args};
use crate::client::{Call, Client};
use crate::error::{Failure, Result};

/// Be the only one whose changes a workspace takes, for a while. Prints the number of the lock.
///
/// What members change meanwhile stays where it is and comes after. The lock ends when it is given back, or
/// when nobody extends it.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex workspace lock notes --ttl 5m\n  cortex workspace lock notes --extend 3"
)]
pub(super) struct Lock {
    /// The workspace.
    name: String,
    /// For how long it holds from each extension, such as 60s; a minute when missing.
    #[arg(long, value_name = "SPAN", value_parser = args::span_ms, conflicts_with = "extend")]
    ttl: Option<u64>,
    /// Extend the lock with this number.
    #[arg(long, value_name = "EPOCH")]
    extend: Option<u64>,
}

impl Lock {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let request = WorkspaceLockRequest { epoch: self.extend, ttl_ms: self.ttl };
        let url = path(&self.name, "/lock");
        let view: WorkspaceView = client.call(Method::PUT, &url, Call::json(&request)?).await?;
        if context.output.json {
            return context.output.json(&view);
        }
        let Some(lock) = &view.lock else {
            return Err(Failure::new(
                cortex_core::Code::StaleEpoch,
                "The lock has ended meanwhile.",
                "Take it again with `cortex workspace lock`.",
            ));
        };
        context.output.line(&lock.epoch.to_string())?;
        context.output.say(&format!(
            "Workspace {} is locked until {}. Extend: cortex workspace lock {} --extend {}",
            printable(&view.name, 80),
            lock.until,
            printable(&view.name, 80),
            lock.epoch
        ));
        Ok(())
    }
}

/// Give a lock back, or end somebody else's.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex workspace unlock notes 3\n  cortex workspace unlock notes --break",
    group(clap::ArgGroup::new("which").required(true).args(["epoch", "break_it"]))
)]
pub(super) struct Unlock {
    /// The workspace.
    name: String,
    /// The number of your lock.
    #[arg(value_name = "EPOCH")]
    epoch: Option<u64>,
    /// End the lock whoever holds it; he is told with his next write.
    #[arg(long = "break")]
    break_it: bool,
}

impl Unlock {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let query = self.epoch.map(|epoch| format!("?epoch={epoch}")).unwrap_or_default();
        let url = path(&self.name, &format!("/lock{query}"));
        let view: WorkspaceView = client.call(Method::DELETE, &url, Call::default()).await?;
        super::changed(
            context,
            &view,
            &format!("Workspace {} is not locked.", printable(&view.name, 80)),
            None,
        )
    }
}
