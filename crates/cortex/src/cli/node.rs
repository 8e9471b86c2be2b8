//! `cortex node start|ls|get|label|rename|lock|unlock|recoveries|rm`.

use std::collections::{BTreeMap, BTreeSet};

use cortex_wire::http::{LayerView, NodeLock, NodePatch, NodeView, RecoveriesSet, RecoveriesView};
use http::Method;
use serde_json::json;
use tokio::time::timeout;

use super::node_start::NodeFlags;
use super::{Context, LOOK_AGAIN, args, ask, lock, node_start};
use crate::client::{Call, Client, encode};
use crate::error::Result;

/// Run a node, and look after the nodes of the hub.
#[derive(clap::Args, Debug)]
#[command(before_help = "Examples:\n  cortex node ls -l role=ci\n  cortex node label build-2 role=ci gpu-")]
pub(crate) struct Node {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// Run the enrolled node of this machine in the foreground until Ctrl-C.
    #[command(before_help = "Example:\n  cortex node start --data-dir ~/.local/share/cortex/node")]
    Start(NodeFlags),
    /// List the nodes.
    #[command(before_help = "Examples:\n  cortex node ls -l role=ci,os=linux\n  cortex node ls -w")]
    Ls {
        /// Only those with these labels.
        #[arg(short = 'l', long, value_name = "SEL", value_parser = args::selector)]
        selector: Option<String>,
        /// Stay, and print each node that changes.
        #[arg(short = 'w', long)]
        watch: bool,
    },
    /// Show one node.
    #[command(before_help = "Example:\n  cortex node get build-2")]
    Get {
        /// Its name or id.
        node: String,
    },
    /// Set labels (`key=value`) and take them away (`key-`).
    #[command(before_help = "Example:\n  cortex node label build-2 role=ci gpu-")]
    Label {
        /// Its name or id.
        node: String,
        /// What changes.
        #[arg(required = true, value_name = "K=V|K-", value_parser = change)]
        labels: Vec<(String, Option<String>)>,
    },
    /// Give a node another name.
    #[command(before_help = "Example:\n  cortex node rename build-2 build-3")]
    Rename {
        /// Its name or id.
        node: String,
        /// The new one.
        name: String,
    },
    /// Lock a node: its commands end at once, and none starts. It stays connected.
    #[command(before_help = "Example:\n  cortex node lock build-2 --ttl 1h --message 'disk check'")]
    Lock {
        /// Its name or id.
        node: String,
        #[command(flatten)]
        how: lock::How,
    },
    /// Remove the locks on a node.
    #[command(before_help = "Example:\n  cortex node unlock build-2")]
    Unlock {
        /// Its name or id.
        node: String,
    },
    /// Show how often a node may recover its identity, or allow more.
    #[command(before_help = "Example:\n  cortex node recoveries build-2 --set 5")]
    Recoveries {
        /// Its name or id.
        node: String,
        /// How often it may from here on.
        #[arg(long, value_name = "N")]
        set: Option<u32>,
    },
    /// Remove a node and revoke its identity; its runs and audit rows are kept.
    #[command(before_help = "Example:\n  cortex node rm build-2 --yes")]
    Rm {
        /// Its name or id.
        node: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
}

impl Node {
    /// Whether this is the node itself and no question to the hub.
    pub(crate) const fn serves(&self) -> bool {
        matches!(self.action, Action::Start(_))
    }

    pub(crate) async fn run(self, context: &Context) -> Result {
        let output = context.output;
        match self.action {
            Action::Start(flags) => {
                let config = context.config(flags.flags())?;
                node_start::run(context, &config).await
            }
            Action::Ls { selector, watch } => list(context, selector.as_deref(), watch).await,
            Action::Get { node } => {
                let mut client = context.client()?;
                match client.get::<NodeView>(&path(&node)).await {
                    Ok(view) => output.facts(&view, &facts(&view)),
                    Err(failure) => Err(ask::with_nearest(failure, &client, &node).await),
                }
            }
            Action::Lock { node, how } => {
                lock::put(context, &mut context.client()?, format!("node:{node}"), how).await
            }
            Action::Unlock { node } => {
                let mut client = context.client()?;
                let found = client.get::<NodeView>(&path(&node)).await;
                match found {
                    Ok(view) => lock::unlock_node(context, &mut client, &view.id).await,
                    Err(failure) => Err(ask::with_nearest(failure, &client, &node).await),
                }
            }
            Action::Recoveries { node, set } => recoveries(context, &node, set).await,
            Action::Label { node, labels } => {
                patch(context, &node, NodePatch { name: None, labels: labels.into_iter().collect() }).await
            }
            Action::Rename { node, name } => {
                patch(context, &node, NodePatch { name: Some(name), labels: BTreeMap::new() }).await
            }
            Action::Rm { node, yes } => {
                output.confirm(&format!("Remove {node} and revoke its identity?"), yes)?;
                let mut client = context.client()?;
                if let Err(failure) = client.done(Method::DELETE, &path(&node), Call::default()).await {
                    return Err(ask::with_nearest(failure, &client, &node).await);
                }
                if output.json {
                    return output.json(&json!({"removed": node}));
                }
                output.say(&format!("{node} is removed; it needs a new invite to come back."));
                Ok(())
            }
        }
    }
}

fn path(node: &str) -> String {
    format!("/nodes/{}", encode(node))
}

fn change(text: &str) -> std::result::Result<(String, Option<String>), String> {
    if let Some(key) = text.strip_suffix('-').filter(|key| !key.contains('=')) {
        return Ok((key.to_owned(), None));
    }
    args::label(text).map(|(key, value)| (key, Some(value)))
}

async fn recoveries(context: &Context, node: &str, set: Option<u32>) -> Result {
    let mut client = context.client()?;
    let place = format!("{}/recoveries", path(node));
    let answer = match set {
        None => client.get::<RecoveriesView>(&place).await,
        Some(left) => client.call(Method::PUT, &place, Call::json(&RecoveriesSet { left })?).await,
    };
    match answer {
        Ok(view) => {
            let facts = [
                ("node", view.node.clone()),
                ("used", view.used.to_string()),
                ("left", view.left.to_string()),
            ];
            context.output.facts(&view, &facts)
        }
        Err(failure) => Err(ask::with_nearest(failure, &client, node).await),
    }
}

async fn patch(context: &Context, node: &str, patch: NodePatch) -> Result {
    let mut client = context.client()?;
    match client.call::<NodeView>(Method::PATCH, &path(node), Call::json(&patch)?).await {
        Ok(view) if context.output.json => context.output.json(&view),
        Ok(view) => context.output.table(&HEAD, [row(&view)]),
        Err(failure) => Err(ask::with_nearest(failure, &client, node).await),
    }
}

const HEAD: [&str; 7] = ["NAME", "STATE", "POLICY", "SANDBOX", "SYSTEM", "SEEN", "LABELS"];

fn row(node: &NodeView) -> Vec<String> {
    let policy = format!("{} ({})", node.policy_mode.to_uppercase(), node.policy_profile);
    vec![
        node.name.clone(),
        node.state.clone(),
        policy,
        node.sandbox.clone(),
        format!(
            "{}/{}",
            cortex_core::name::printable(&node.os, 32),
            cortex_core::name::printable(&node.arch, 16)
        ),
        seen(node),
        args::show_labels(&node.labels),
    ]
}

/// When the node was last heard. One that joined and never came is told apart.
fn seen(node: &NodeView) -> String {
    if node.epoch == 0 { "never attached".to_owned() } else { args::age(node.last_seen_at.as_deref()) }
}

fn facts(node: &NodeView) -> Vec<(&'static str, String)> {
    let shown = |text: &str| cortex_core::name::printable(text, 200);
    let policy = format!(
        "{} (profile {}, revision {})",
        node.policy_mode.to_uppercase(),
        node.policy_profile,
        node.policy_revision
    );
    let mut facts = vec![
        ("name", node.name.clone()),
        ("id", node.id.clone()),
        ("state", node.state.clone()),
        ("last seen", seen(node)),
        ("lock", node.lock.as_ref().map_or_else(|| "-".to_owned(), locked)),
        ("labels", args::show_labels(&node.labels)),
        ("policy", policy),
        ("sandbox", node.sandbox.clone()),
        ("work", if node.work.is_empty() { "-".to_owned() } else { shown(&node.work.join(" ")) }),
        ("open runs", node.runs_open.to_string()),
        ("host", shown(&node.hostname)),
        ("system", format!("{}/{}", shown(&node.os), shown(&node.arch))),
        ("processors", node.cpus.to_string()),
        ("memory", format!("{} MiB", node.memory_bytes >> 20)),
        ("tools", shown(&node.tools.join(" "))),
        ("version", shown(&node.version)),
        ("epoch", node.epoch.to_string()),
        ("joined", node.joined_at.clone()),
    ];
    facts.extend(node.layers.iter().map(|layer| ("layer", shown_layer(layer))));
    facts
}

/// `landlock: held`, or with what is open there and what would mend it.
fn shown_layer(layer: &LayerView) -> String {
    let shown = |text: &str| cortex_core::name::printable(text, 400);
    let (name, state, note) = (shown(&layer.name), shown(&layer.state), shown(&layer.note));
    if note.is_empty() { format!("{name}: {state}") } else { format!("{name}: {state}. {note}") }
}

/// The text was made safe by the hub that made it, which is not this one's to trust.
fn locked(lock: &NodeLock) -> String {
    let until = lock.expires_at.as_ref().map(|end| format!(" Until {end}.")).unwrap_or_default();
    format!("{}{until} ({})", cortex_core::name::printable(&lock.message, 700), lock.id)
}

async fn all(client: &mut Client, selector: Option<&str>) -> Result<Vec<NodeView>> {
    let path = selector.map_or("/nodes".to_owned(), |s| format!("/nodes?selector={}", encode(s)));
    client.list(&path, usize::MAX).await
}

async fn list(context: &Context, selector: Option<&str>, watch: bool) -> Result {
    let mut client = context.client()?;
    let output = context.output;
    if !watch {
        let nodes = all(&mut client, selector).await?;
        return output.list(&nodes, &HEAD, row, "No node has joined. Next: cortex invite");
    }
    let mut known: BTreeMap<String, NodeView> = BTreeMap::new();
    // The stream begins before the list is read, so that no change falls between the two.
    let mut events = client.another().events(None).await?;
    let mut last = None;
    let mut first = true;
    loop {
        let nodes = all(&mut client, selector).await?;
        show_changes(context, &mut known, nodes, std::mem::take(&mut first))?;
        loop {
            let Ok(heard) = timeout(LOOK_AGAIN, events.next()).await else { break };
            match heard {
                Ok(Some(event)) => {
                    last = event.id.or(last);
                    if event.kind.starts_with("node.")
                        || event.kind.starts_with("policy.")
                        || event.kind == "gap"
                    {
                        break;
                    }
                }
                Ok(None) | Err(_) => {
                    output.say("The connection to the hub broke. Connecting again …");
                    events = client.events_again(last.as_deref()).await?;
                    break;
                }
            }
        }
    }
}

fn show_changes(
    context: &Context,
    known: &mut BTreeMap<String, NodeView>,
    nodes: Vec<NodeView>,
    first: bool,
) -> Result {
    let output = context.output;
    let quiet = |node: &NodeView| NodeView { last_seen_at: None, runs_open: 0, ..node.clone() };
    let ids: BTreeSet<&String> = nodes.iter().map(|node| &node.id).collect();
    let gone: Vec<String> = known.keys().filter(|id| !ids.contains(id)).cloned().collect();
    for node in gone.iter().filter_map(|id| known.remove(id)) {
        output.say(&format!("{} is gone", node.name));
    }
    let changed: Vec<NodeView> =
        nodes.into_iter().filter(|node| known.get(&node.id) != Some(&quiet(node))).collect();
    if output.json {
        changed.iter().try_for_each(|node| output.json(node))?;
    } else if first {
        output.table(&HEAD, changed.iter().map(row))?;
    } else {
        changed.iter().try_for_each(|node| output.line(&row(node).join("  ")))?;
    }
    known.extend(changed.iter().map(|node| (node.id.clone(), quiet(node))));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_set_with_an_equals_sign_and_taken_away_with_a_dash() {
        assert_eq!(change("role=ci"), Ok(("role".to_owned(), Some("ci".to_owned()))));
        assert_eq!(change("gpu-"), Ok(("gpu".to_owned(), None)));
        assert_eq!(change("a=b-"), Ok(("a".to_owned(), Some("b-".to_owned()))));
        assert!(change("role").is_err());
    }
}
