//! A workspace of the hub that begins with a folder of this machine: sent as a push sends it, to the hub alone.

use std::path::PathBuf;

use cortex_core::name::{Name, printable};
use cortex_core::words::count;
use cortex_core::{Code, Refusal};
use cortex_node::local::LocalSpec;
use cortex_wire::http::{
    ImportOrder, LeftOutView, TransferOrder, TransferView, WorkspaceRules, WorkspaceView,
};
use indicatif::HumanBytes;

use super::path;
use crate::cli::Context;
use crate::cli::interrupt::Interrupt;
use crate::cli::push::packer::Packer;
use crate::cli::push::serve::{self, Sending};
use crate::cli::push::tree::Tree;
use crate::cli::transfer::bars::Bars;
use crate::cli::transfer::ended;
use crate::client::Client;
use crate::error::{Failure, Result};
use crate::output::Output;

/// What is to be made.
pub(super) struct Import {
    pub(super) name: String,
    pub(super) folder: PathBuf,
    pub(super) rules: WorkspaceRules,
    pub(super) bytes_max: Option<u64>,
}

impl Import {
    /// Makes it. The workspace, and what it was made of in words.
    pub(super) async fn run(self, context: &Context, client: &Client) -> Result<(WorkspaceView, String)> {
        // Before anything is read.
        Name::parse(&self.name)?;
        let shown = printable(&self.folder.to_string_lossy(), 300);
        let about = std::fs::metadata(&self.folder).map_err(|error| {
            Failure::usage(
                format!("{shown} cannot be read: {error}."),
                "Give the path of a folder on this machine, or NODE:PATH.",
            )
        })?;
        if !about.is_dir() {
            return Err(Failure::usage(
                format!("{shown} is no folder."),
                "A workspace begins with a folder; put the file into one.",
            ));
        }
        let mut interrupt = Interrupt::new()?;
        let mut bars = Bars::new(false);
        let spec = LocalSpec {
            excludes: self.rules.exclude.clone(),
            ignore_files: self.rules.ignore_files,
            vcs: self.rules.vcs,
            refuse_links_out: !self.rules.links_outside,
            full: false,
        };
        let (tree, ready) = tokio::select! {
            read = serve::read(&self.folder, spec, None, false, &bars) => read?,
            status = interrupt.wait() => {
                bars.end();
                context.output.say("Nothing was sent.");
                return Err(Failure::Exit(status));
            }
        };
        refuse_partial(context.output, &tree)?;
        let (entries, size) = (tree.entries(), tree.bytes());
        let order = ImportOrder {
            workspace: self.name,
            root: tree.root().to_string(),
            entries,
            bytes: size,
            rules: self.rules,
            bytes_max: self.bytes_max,
        };
        let view =
            send(context, client, order, Packer::new(tree, ready), (&mut bars, &mut interrupt)).await?;
        let entries = count(entries, "entry", "entries");
        Ok((view, format!(" of {shown}, {entries} with {}", HumanBytes(size))))
    }
}

async fn send(
    context: &Context,
    client: &Client,
    order: ImportOrder,
    packer: Packer,
    (bars, interrupt): (&mut Bars, &mut Interrupt),
) -> Result<WorkspaceView> {
    let (place, root, rules) = (path(&order.workspace, ""), order.root.clone(), order.rules.clone());
    let order = TransferOrder::Import(order);
    let mut sending = Sending {
        context,
        order: &order,
        lock: None,
        packer: &packer,
        telling: None,
        is_quiet: false,
        is_anew: false,
    };
    let sent = sending.run(client.another(), bars, interrupt).await;
    let mut client = client.another();
    match sent {
        Ok(view) if view.state == "done" => client.get(&place).await,
        Ok(view) => {
            serve::changed(context.output, &packer.changed().await?, "there is no workspace");
            Err(refused(view))
        }
        Err(failure) => {
            // A hub that made it and was started anew before it said so made it all the same.
            if sending.is_anew
                && failure.code() == Some(Code::Conflict)
                && let Ok(made) = client.get::<WorkspaceView>(&place).await
                && (&made.root, &made.rules) == (&root, &rules)
            {
                return Ok(made);
            }
            Err(failure)
        }
    }
}

/// Why nothing came of it.
fn refused(view: TransferView) -> Failure {
    match view.nodes.into_iter().find_map(|hub| hub.error) {
        Some(problem) => problem.into(),
        None => Failure::new(
            Code::Conflict,
            "The import was cancelled; there is no workspace.",
            "Run the command again.",
        ),
    }
}

/// A copy that lacks something is not the folder: as the source it would spread what it lacks (SYNC rule 11).
/// Devices and their like are in no workspace, and are told.
fn refuse_partial(output: Output, tree: &Tree) -> Result {
    let (unread, notes) = (tree.unread(), tree.notes());
    serve::list(output, "no file, folder or link of the workspace", &tree.unfit());
    serve::list(output, "cannot be read", &unread);
    let counts = LeftOutView {
        unnamed: notes.unnamed,
        too_large: notes.too_large,
        rules_unread: notes.rules_unread,
        ..LeftOutView::default()
    };
    if unread.is_empty() && !ended::is_partial(&counts) {
        return Ok(());
    }
    ended::left_out(&counts).for_each(|what| output.say(&format!("left out: {what}")));
    let message = "Something of the folder cannot be in a workspace, so none was made.";
    Err(Refusal::new(Code::UnsupportedEntry, message)
        .hint("Make it readable, give it another name, or leave it out with --exclude.")
        .into())
}
