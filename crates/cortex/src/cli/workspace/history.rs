//! `cortex workspace history|restore`.

use cortex_core::name::printable;
use cortex_wire::http::{RestoreRequest, RevisionView, WorkspaceView};
use http::Method;
use indicatif::HumanBytes;

use super::wait::Patient;
use super::{Held, changed, path};
use crate::cli::Context;
use crate::cli::args::{age, short};
use crate::client::{Call, Client};
use crate::error::Result;

const HEAD: [&str; 7] = ["REVISION", "KIND", "WHEN", "FILES", "BYTES", "BY", "NOTE"];

/// List the revisions of a workspace, the newest first.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex workspace history notes --limit 20")]
pub(super) struct History {
    /// The workspace.
    name: String,
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

impl History {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let rows: Vec<RevisionView> = client.list(&path(&self.name, "/history"), limit).await?;
        context.output.list(&rows, &HEAD, row, "It has no revisions.")
    }
}

fn row(revision: &RevisionView) -> Vec<String> {
    vec![
        revision.revision.to_string(),
        revision.kind.clone(),
        age(Some(&revision.at)),
        revision.files.to_string(),
        HumanBytes(revision.bytes).to_string(),
        short(&printable(&revision.by, 200), 40),
        printable(&revision.note, 200),
    ]
}

/// Make the tree of an earlier revision the newest one. Nothing of the history is lost by it.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex workspace restore notes 12")]
pub(super) struct Restore {
    /// The workspace.
    name: String,
    /// The revision, from `cortex workspace history`.
    #[arg(value_name = "REVISION")]
    revision: u64,
    #[command(flatten)]
    held: Held,
    #[command(flatten)]
    patient: Patient,
}

impl Restore {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let call = self.held.on(Call::json(&RestoreRequest { revision: self.revision })?);
        let view: WorkspaceView = client.call(Method::POST, &path(&self.name, "/restore"), call).await?;
        let view = self.patient.wait(context.output, client, view).await?;
        let sentence = format!(
            "Revision {} of workspace {} has the tree of {}.",
            view.revision,
            printable(&view.name, 80),
            self.revision
        );
        changed(context, &view, &sentence, Some(&["cortex", "workspace", "wait", &view.name]))
    }
}
