//! `cortex workspace resync`.

use cortex_core::name::printable;
use cortex_wire::http::{ResyncRequest, WorkspaceView};

use super::wait::Patient;
use super::{changed, path, show};
use crate::cli::Context;
use crate::client::Client;
use crate::error::Result;

/// Have folders looked at now, end drift, or let a halt pass.
///
/// Whoever asks for it has seen the conflicts that were counted until then.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex workspace resync notes --wait\n  cortex workspace resync notes build-2 --repair\n  cortex workspace resync notes --accept HALT"
)]
pub(super) struct Resync {
    /// The workspace.
    name: String,
    /// Only these members; a node alone is all of its members.
    #[arg(value_name = "NODE[:PATH]")]
    members: Vec<String>,
    /// End the drift of followers: the workspace's version gets its name back, theirs is kept beside it.
    #[arg(long, conflicts_with = "accept")]
    repair: bool,
    /// Let this halt pass; `cortex workspace status` shows its id.
    #[arg(long, value_name = "HALT")]
    accept: Option<String>,
    #[command(flatten)]
    patient: Patient,
}

impl Resync {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let request = ResyncRequest { members: self.members, accept: self.accept, repair: self.repair };
        let view: WorkspaceView = client.post(&path(&self.name, "/resync"), &request).await?;
        if !context.output.json {
            show::troubles(context, &view);
        }
        let (view, kept) = if request.repair {
            self.patient.wait_repaired(context.output, client, view).await?
        } else {
            (self.patient.wait(context.output, client, view).await?, None)
        };
        let shown = printable(&view.name, 80);
        let sentence = if request.accept.is_some() {
            format!("The halt is let pass; workspace {shown} goes on.")
        } else if let Some(kept) = kept {
            format!("What workspace {shown} has is in its place again. {kept}")
        } else if request.repair && self.patient.is_set() {
            format!("The drift in workspace {shown} is ended.")
        } else if request.repair {
            format!("The drift in workspace {shown} is being ended.")
        } else {
            format!("The folders of workspace {shown} are looked at.")
        };
        changed(context, &view, &sentence, Some(&["cortex", "workspace", "status", &view.name]))
    }
}
