//! Sends a tree of this machine, wherever to: from its source to the end of the transfer.

use std::path::Path;

use cortex_core::name::printable;
use cortex_core::words::count;
use cortex_core::{Code, Refusal};
use cortex_node::local::{LocalSpec, Take};
use cortex_wire::http::{TransferNodeView, TransferOrder, TransferView};

use super::known;
use super::packer::Packer;
use super::ready::{Making, Ready};
use super::tree::{PATHS_MAX, Paths, Tree};
use super::upload::upload;
use crate::cli::Context;
use crate::cli::interrupt::Interrupt;
use crate::cli::transfer::bars::Bars;
use crate::cli::transfer::ended::Telling;
use crate::cli::transfer::follow;
use crate::cli::watch::Patience;
use crate::client::Client;
use crate::config::cache_home;
use crate::error::{Failure, Result};
use crate::output::Output;

/// A transfer of a tree of this machine.
pub(in crate::cli) struct Sending<'a, 't> {
    pub(in crate::cli) context: &'a Context,
    pub(in crate::cli) order: &'a TransferOrder,
    /// The lock of a workspace under which it is done.
    pub(in crate::cli) lock: Option<u64>,
    pub(in crate::cli) packer: &'a Packer,
    /// Who tells of each node as soon as it has ended.
    pub(in crate::cli) telling: Option<&'a mut Telling<'t>>,
    /// Whether nothing is said of waiting.
    pub(in crate::cli) is_quiet: bool,
    /// It was begun more than once: what a hub before made of it is not known.
    pub(in crate::cli) is_anew: bool,
}

/// The tree, and packs of what had to be read for it; none for a dry run, which sends nothing.
pub(in crate::cli) async fn read(
    source: &Path,
    spec: LocalSpec,
    name: Option<String>,
    is_dry: bool,
    bars: &Bars,
) -> Result<(Tree, Ready)> {
    let spinner = bars.spinner(&format!("reading {}", printable(&source.to_string_lossy(), 60)));
    let source = source.to_owned();
    let open = move || {
        let home = cache_home().filter(|_| name.is_none());
        let known = home.and_then(|home| known::file_of(&home.join("scans"), &source));
        let making = Making::new();
        let take = |id, bytes: &[u8]| making.take(id, bytes);
        let take: Option<&Take<'_>> = if is_dry { None } else { Some(&take) };
        let tree = Tree::open(&source, &spec, name.as_deref(), known.as_deref(), take)?;
        Ok::<_, Refusal>((tree, making.end()))
    };
    let read = tokio::task::spawn_blocking(open).await;
    spinner.finish_and_clear();
    let failed = |error: tokio::task::JoinError| {
        Failure::new(
            Code::Internal,
            format!("Reading the source failed: {error}."),
            "Try again, and report it.",
        )
    };
    Ok(read.map_err(failed)??)
}

impl Sending<'_, '_> {
    /// Begins it, serves it, and follows it to its end. A hub that was started anew has forgotten it: it is begun
    /// anew, and what the nodes have is not sent again.
    pub(in crate::cli) async fn run(
        &mut self,
        mut client: Client,
        bars: &mut Bars,
        interrupt: &mut Interrupt,
    ) -> Result<TransferView> {
        let Sending { context, order, lock, packer, is_quiet, .. } = *self;
        let mut patience = Patience::new(client.target().reconnect_max);
        loop {
            let ears = (context.output, is_quiet, &mut *interrupt);
            let view = follow::begin(&mut client, order, lock, self.is_anew, ears).await?;
            // After a hub that was started anew, the nodes come back one by one.
            if self.is_anew && view.nodes.iter().any(is_away) && patience.wait(false).await {
                follow::cancel(&mut client, &view.id).await?;
                continue;
            }
            let id = view.id.clone();
            let (mut follower, server) = (client.another(), client.another());
            let ended = tokio::select! {
                ended = follow::follow(&mut follower, view, |view| {
                    bars.show(view);
                    if let Some(telling) = self.telling.as_mut().filter(|telling| telling.is_due(view)) {
                        bars.above(|| telling.see(view));
                    }
                }) => ended,
                failed = upload(&server, &id, packer) => failed.map(|never| match never {}),
                status = interrupt.wait() => {
                    bars.end();
                    return Err(follow::give_up(context.output, &mut client, &id, interrupt, status).await);
                }
            };
            bars.end();
            match ended {
                Ok(view) => return Ok(view),
                Err(failure)
                    if failure.code() == Some(Code::NotFound) && patience.wait(!self.is_anew).await =>
                {
                    let it = if matches!(order, TransferOrder::Import(_)) { "import" } else { "push" };
                    let sentence =
                        format!("The hub knows this {it} no more, as after a restart: it is begun anew.");
                    context.output.say(&sentence);
                    packer.reset().await;
                    if let Some(telling) = &mut self.telling {
                        telling.anew();
                    }
                    self.is_anew = true;
                }
                Err(failure) => {
                    // Nobody serves it any more. A hub that is away ends it by itself.
                    if !failure.is_transport() {
                        drop(follow::cancel(&mut client, &id).await);
                    }
                    return Err(failure.way("how it stands", format!("cortex transfer show {id}")));
                }
            }
        }
    }
}

fn is_away(node: &TransferNodeView) -> bool {
    node.error.as_ref().is_some_and(|problem| problem.code() == Code::NodeOffline)
}

/// Says which files changed while they were sent, and what to do then; whether there are any.
pub(in crate::cli) fn changed(output: Output, paths: &Paths, again: &str) -> bool {
    list(output, "changed while it was sent", paths);
    if !paths.is_empty() {
        let count = count(paths.len(), "file changed while it was", "files changed while they were");
        output.say(&format!("{count} sent; {again}."));
    }
    !paths.is_empty()
}

/// Says this of each path.
pub(in crate::cli) fn list(output: Output, what: &str, paths: &Paths) {
    for path in &paths.first {
        output.say(&format!("{what}: {}", printable(path, usize::MAX)));
    }
    if paths.more > 0 {
        output.say(&format!("{what}: {} more beside these {PATHS_MAX}", paths.more));
    }
}
