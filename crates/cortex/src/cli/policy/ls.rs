//! `cortex policy ls`.

use cortex_wire::http::PolicyView;

use crate::cli::{Context, args};
use crate::client::Client;
use crate::error::Result;

/// List the policies of all nodes.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex policy ls")]
pub(super) struct Ls {}

impl Ls {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let policies: Vec<PolicyView> = client.list("/policies", usize::MAX).await?;
        let head = ["NODE", "MODE", "PROFILE", "REVISION", "ALLOWED", "DENIED", "CHANGED"];
        context.output.list(&policies, &head, row, "There are no nodes. Next: cortex invite")
    }
}

fn row(policy: &PolicyView) -> Vec<String> {
    vec![
        policy.node.clone(),
        policy.mode.to_uppercase(),
        policy.profile.clone(),
        policy.revision.to_string(),
        policy.allow.len().to_string(),
        policy.deny.len().to_string(),
        args::age(Some(&policy.changed_at)),
    ]
}
