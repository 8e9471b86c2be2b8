//! `cortex workspace create`.

use cortex_core::name::printable;
use cortex_wire::http::{WorkspaceRequest, WorkspaceRules, WorkspaceView};

use super::wait::Patient;
use super::{bytes, changed, place};
use crate::cli::Context;
use crate::cli::args::Place;
use crate::client::Client;
use crate::error::Result;

/// Make a workspace: one that the folder of a node leads, or one of the hub.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex workspace create notes --lead build-1:/srv/notes --exclude target/\n  cortex workspace create shared --from build-1:/srv/shared"
)]
pub(super) struct Create {
    /// Its name.
    name: String,
    /// The folder that leads it: its changes make revisions, and it is never written.
    #[arg(long, value_name = "NODE:PATH", value_parser = place, conflicts_with_all = ["from", "hub"])]
    lead: Option<Place>,
    /// The hub's copy is the source, and this folder is its first peer, with whose content it begins.
    #[arg(long, value_name = "NODE:PATH", value_parser = place)]
    from: Option<Place>,
    /// The hub's copy is the source; so it is without --lead.
    #[arg(long)]
    hub: bool,
    /// Leave this out everywhere, as a line of an ignore file says it; may be repeated.
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Do not heed `.gitignore` and `.cortexignore` files.
    #[arg(long)]
    no_ignore_files: bool,
    /// Take `.git` and its like too.
    #[arg(long)]
    vcs: bool,
    /// Refuse links that lead out of the folder; they are kept as text otherwise.
    #[arg(long)]
    no_links_outside: bool,
    /// Bytes that one tree may have, such as 2G.
    #[arg(long, value_name = "N", value_parser = bytes)]
    bytes_max: Option<u64>,
    #[command(flatten)]
    patient: Patient,
}

impl Create {
    pub(super) fn place(&self) -> Option<&Place> {
        self.lead.as_ref().or(self.from.as_ref())
    }

    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let text =
            |place: &Option<Place>| place.as_ref().map(|place| format!("{}:{}", place.node, place.path));
        let request = WorkspaceRequest {
            name: self.name,
            lead: text(&self.lead),
            from: text(&self.from),
            rules: WorkspaceRules {
                exclude: self.exclude,
                ignore_files: !self.no_ignore_files,
                vcs: self.vcs,
                links_outside: !self.no_links_outside,
            },
            bytes_max: self.bytes_max,
        };
        let view: WorkspaceView = client.post("/workspaces", &request).await?;
        let view = self.patient.wait(context.output, client, view).await?;
        let whose = if view.mode == "node" { "a node leads it" } else { "the hub's copy is the source" };
        let sentence = format!("Made workspace {}; {whose}.", printable(&view.name, 80));
        let attach = ["cortex", "workspace", "attach", &view.name, "NODE:PATH"];
        changed(context, &view, &sentence, Some(&attach))
    }
}
