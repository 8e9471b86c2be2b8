//! `cortex policy rollback`.

use cortex_wire::http::{PolicyCompare, PolicyRollback, PolicyView};
use http::Method;

use super::{changed, path, show_difference};
use crate::cli::Context;
use crate::client::{Call, Client};
use crate::error::Result;

/// Make an earlier revision hold again, as a new one; the difference is shown first.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex policy rollback build-2 4 --yes")]
pub(super) struct Rollback {
    /// The node.
    pub(super) node: String,
    /// A revision of `cortex policy history`.
    revision: u64,
    /// End live runs that it would refuse.
    #[arg(long)]
    kill: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Rollback {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let Self { node, revision, kill, yes } = self;
        let current: PolicyView = client.get(&path(&node)).await?;
        let compare = PolicyCompare { revision: Some(revision), ..PolicyCompare::default() };
        let title = format!("{node}: revision {} → as revision {revision}", current.revision);
        show_difference(context, client, &node, &title, &compare).await?;
        context.output.confirm(&format!("Set {node} back to revision {revision}?"), yes)?;
        let call = Call::json(&PolicyRollback { revision, kill })?;
        let call = call.header("if-match", format!("\"{}\"", current.revision));
        let policy: PolicyView =
            client.call(Method::POST, &format!("{}/rollback", path(&node)), call).await?;
        changed(context, &policy, &format!("{node} has what revision {revision} said"))
    }
}
