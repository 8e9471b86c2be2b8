//! `cortex transfer ls|show|cancel`: what moves, or moved in the last hour. What `push` and `pull` share
//! lies below.

pub(super) mod bars;
pub(super) mod ended;
pub(super) mod follow;

use cortex_core::name::printable;
use cortex_core::words::count;
use cortex_wire::http::{TransferNodeView, TransferView};
use indicatif::HumanBytes;

use self::bars::Bars;
use self::ended::{Telling, Told, is_over};
use super::Context;
use super::args::{age, whole_argv};
use crate::error::Result;

/// See and end what moves between this hub's nodes and whoever pushes or pulls.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex transfer ls\n  cortex transfer show ID -w\n  cortex transfer cancel ID"
)]
pub(crate) struct Transfer {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    Ls(Ls),
    Show(Show),
    Cancel(Cancel),
}

impl Transfer {
    pub(crate) async fn run(self, context: &Context) -> Result {
        match self.action {
            Action::Ls(ls) => ls.run(context).await,
            Action::Show(show) => show.run(context).await,
            Action::Cancel(cancel) => cancel.run(context).await,
        }
    }
}

/// List your transfers, the newest first; whoever may lock anybody sees all.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex transfer ls --limit 5")]
struct Ls {
    /// How many at most.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

impl Ls {
    async fn run(self, context: &Context) -> Result {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let transfers: Vec<TransferView> = context.client()?.list("/transfers", limit).await?;
        context.output.list(
            &transfers,
            &["ID", "KIND", "STATE", "MOVED", "STARTED", "BY", "NODES"],
            row,
            "Nothing moves, and nothing did in the last hour. Begin with `cortex push SRC NODE:DEST`.",
        )
    }
}

fn row(transfer: &TransferView) -> Vec<String> {
    let moved: u64 = transfer.nodes.iter().map(|node| node.bytes_moved).sum();
    let nodes =
        transfer.nodes.iter().take(3).map(|node| format!("{}:{} {}", node.node, node.path, node.state));
    let mut nodes: Vec<String> = nodes.map(|text| printable(&text, 120)).collect();
    if transfer.nodes.len() > nodes.len() {
        nodes.push(format!("and {} more", transfer.nodes.len() - nodes.len()));
    }
    vec![
        transfer.id.clone(),
        transfer.kind.clone(),
        transfer.state.clone(),
        HumanBytes(moved).to_string(),
        age(Some(&transfer.at)),
        printable(&transfer.by, super::args::ACTOR_CHARS_MAX),
        nodes.join(", "),
    ]
}

/// Show how a transfer stands at each node, and what came of it.
#[derive(clap::Args, Debug)]
#[command(before_help = "Examples:\n  cortex transfer show ID\n  cortex transfer show ID -w")]
struct Show {
    /// The id that `cortex transfer ls` shows.
    #[arg(value_name = "ID")]
    id: String,
    /// Follow it to its end; the exit status is its own.
    #[arg(short, long)]
    watch: bool,
}

impl Show {
    async fn run(self, context: &Context) -> Result {
        let mut client = context.client()?;
        let mut view: TransferView = client.get(&follow::path(&self.id)).await?;
        if self.watch {
            let mut bars = Bars::new(false);
            view = follow::follow(&mut client, view, |view| bars.show(view)).await?;
            bars.end();
        }
        if context.output.json {
            context.output.json(&view)?;
        } else {
            shown(context, &view)?;
        }
        if self.watch { ended::end(ended::status(&view)) } else { Ok(()) }
    }
}

fn shown(context: &Context, view: &TransferView) -> Result {
    let (over, open): (Vec<_>, Vec<_>) = view.nodes.iter().cloned().partition(is_over);
    context.output.line(&format!(
        "{} {} of {}, {}",
        view.kind,
        view.id,
        printable(&view.by, 80),
        view.state
    ))?;
    for node in &open {
        let (moved, total) = (HumanBytes(node.bytes_moved), HumanBytes(node.bytes_total));
        let place = printable(&format!("{}:{}", node.node, node.path), 300);
        context.output.line(&format!("{place}: {}, {moved} of {total}", node.state))?;
    }
    let done = match view.kind.as_str() {
        "pull" => "pulled from",
        "import" => "brought to",
        _ => "pushed to",
    };
    let told = Told { done, command: &|node, _| look(view, node), ways: &|_, _| Vec::new() };
    Telling::new(context.output, false, told).end(&TransferView { nodes: over, ..view.clone() }).map(drop)
}

/// The order is not told, so the way on from a halt is the command that began it.
fn look(view: &TransferView, node: &TransferNodeView) -> Vec<String> {
    let halt = node.end.as_ref().and_then(|end| end.halt.as_ref()).map_or("ID", |halt| halt.id.as_str());
    let place = format!("{}:{}", node.node, node.path);
    ["cortex", view.kind.as_str(), "…", &place, "--accept", halt].map(str::to_owned).to_vec()
}

/// End a transfer. What was written stays, and is not sent again by the next one.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex transfer cancel ID")]
struct Cancel {
    /// The id that `cortex transfer ls` shows.
    #[arg(value_name = "ID")]
    id: String,
}

impl Cancel {
    async fn run(self, context: &Context) -> Result {
        let view = follow::cancel(&mut context.client()?, &self.id).await?;
        if context.output.json {
            return context.output.json(&view);
        }
        context.output.say(&cancelled(&view));
        Ok(())
    }
}

/// What was cancelled, and what was done by then.
fn cancelled(view: &TransferView) -> String {
    if view.kind == "import" {
        let name = view.nodes.first().map(|hub| printable(&hub.path, 80)).unwrap_or_default();
        return match view.state.as_str() {
            "done" => format!("It was over before it was cancelled: workspace {name} is there."),
            _ => format!("The import is cancelled; there is no workspace {name}."),
        };
    }
    let done = view.nodes.iter().filter(|node| matches!(node.state.as_str(), "done" | "in_sync")).count();
    let state = if view.state == "cancelled" { "is cancelled" } else { "was over before it was cancelled" };
    format!(
        "Transfer {} {state}: {done} of {}, and what was written stays. See `{}`.",
        view.id,
        count(view.nodes.len(), "node was done", "nodes were done"),
        whole_argv(&["cortex", "transfer", "show", &view.id].map(str::to_owned))
    )
}
