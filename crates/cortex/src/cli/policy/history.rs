//! `cortex policy history`.

use cortex_wire::http::PolicyRevision;

use super::path;
use crate::cli::{Context, args};
use crate::client::Client;
use crate::error::Result;

/// List the revisions of a node's policy, newest first, with what each changed.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex policy history build-2 --limit 5")]
pub(super) struct History {
    /// The node.
    pub(super) node: String,
    /// At most so many.
    #[arg(long, default_value_t = 20)]
    limit: usize,
}

impl History {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let all: Vec<PolicyRevision> =
            client.list(&format!("{}/history", path(&self.node)), self.limit).await?;
        let head = ["REVISION", "MODE", "PROFILE", "BY", "CHANGED", "CHANGES"];
        context.output.list(&all, &head, row, "The policy was never changed.")
    }
}

fn row(one: &PolicyRevision) -> Vec<String> {
    let unverified = || "(not verified)".to_owned();
    vec![
        one.revision.to_string(),
        one.mode.as_ref().map_or_else(unverified, |mode| mode.to_uppercase()),
        one.profile.clone().unwrap_or_else(unverified),
        args::short(&one.changed_by, args::ACTOR_CHARS_MAX),
        args::age(Some(&one.changed_at)),
        one.changes.clone(),
    ]
}
