//! `cortex up`: a hub and a node on this machine in one process, for trying things out. The
//! first command goes through the hub like every other: HTTP, policy, gRPC, process.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Instant;

use cortex_core::Code;
use cortex_core::invite::InviteText;
use cortex_core::name::Name;
use cortex_wire::http::{InviteCreated, InviteRequest, RunEvent, RunRequest};
use http::Method;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::hub::{HubFlags, banner, settings};

use super::interrupt::Interrupt;
use super::watch::{TRANSPORT, status_of, transport_or};
use super::{Context, args};
use crate::client::{Call, Client, NDJSON, Target};
use crate::config::{Config, Origin};
use crate::error::{Failure, Result};
use crate::serve::hub::{self, Running, Settings};
use crate::serve::node::{self, Attached};

/// The command that shows that it works; STRICT allows it.
const FIRST: [&str; 2] = ["uname", "-sr"];

/// Run a hub and a node on this machine, and a first command through them.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex up\n  cortex up --data-dir /tmp/try --name laptop")]
pub(crate) struct Up {
    #[command(flatten)]
    hub: HubFlags,
    /// Name of the node.
    #[arg(long, default_value = "local")]
    name: String,
}

impl Up {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let name = Name::parse(&self.name)?;
        let config = context.config(self.hub.flags())?;
        let mut interrupt = Interrupt::new()?;
        hub::check_none_runs(&config.path("hub.data_dir"))?;
        let hub = hub::start(with_free_ports(context, &config)).await?;
        let shutdown = CancellationToken::new();
        let result = tokio::select! {
            result = stay(context, &config, &hub, name, shutdown.clone()) => result,
            failure = hub.failed() => Err(failure.into()),
            _ = interrupt.wait() => Ok(()),
        };
        context.output.say("Stopping; once more leaves at once.");
        shutdown.cancel();
        tokio::select! {
            () = hub.stop() => result,
            status = interrupt.wait() => Err(Failure::Exit(status)),
        }
    }
}

/// Brings the node up, shows the first command, and stays until the node ends.
async fn stay(
    context: &Context,
    config: &Config,
    hub: &Running,
    name: Name,
    shutdown: CancellationToken,
) -> Result {
    let mut client = Client::new(local_target(context, hub)?);
    let node_dir = config.path("hub.data_dir").join("node");
    if !node::is_enrolled(&node_dir) {
        enrol(&mut client, hub, name, &node_dir).await?;
    }
    let (attached, mut heard) = mpsc::channel::<Attached>(1);
    let on_attached = move |now: Attached| {
        // Only the first is waited for; later links find the place taken.
        if attached.try_send(now).is_err() {
            tracing::debug!("the node is attached again");
        }
    };
    let running = node::run(config, &node_dir, Some(hub.grpc.to_string()), shutdown, on_attached);
    tokio::pin!(running);
    let first = tokio::select! {
        ended = &mut running => return Ok(ended?),
        first = heard.recv() => first,
    };
    let Some(first) = first else { return Ok(running.await?) };
    tokio::select! {
        ended = &mut running => return Ok(ended?),
        shown = show_first(context, &mut client, hub, &first) => shown?,
    }
    Ok(running.await?)
}

async fn show_first(context: &Context, client: &mut Client, hub: &Running, node: &Attached) -> Result {
    let output = context.output;
    if output.json {
        let first = first_command(client, &node.node).await?;
        let first = json!({"argv": FIRST, "exit": first.status, "stdout": first.printed, "ms": first.ms});
        return output.json(&json!({
            "up": true, "http": hub.url(), "grpc": hub.grpc.to_string(), "token_file": hub.token_file,
            "node": node.node, "node_id": node.node_id.to_string(), "first": first,
        }));
    }
    banner(context, hub, hub.token_file.parent().unwrap_or(Path::new(".")))?;
    output.line(&format!("  node   {} is online (sandbox {})", node.node, node.sandbox))?;
    output.line(&format!("\n$ cortex exec {} -- {}", node.node, FIRST.join(" ")))?;
    let first = first_command(client, &node.node).await?;
    output.bytes(first.printed.as_bytes())?;
    output.line(&format!("(exit {}, {:.1} ms through the hub and back)", first.status, first.ms))?;
    output.line(&format!("\nNext, in another terminal:\n  {}", next_step(hub, &node.node)))?;
    output.say("Ctrl-C stops the hub and the node.");
    Ok(())
}

/// How the first command went.
struct First {
    status: u8,
    printed: String,
    ms: f64,
}

/// Runs it as every client does. A refusal is shown like output: somebody may have denied even
/// this, and the hub serves all the same.
async fn first_command(client: &mut Client, node: &str) -> Result<First> {
    let began = Instant::now();
    let argv = FIRST.map(str::to_owned).to_vec();
    let request = RunRequest { nodes: vec![node.to_owned()], argv, ..RunRequest::default() };
    let mut lines = client.lines(Method::POST, "/runs", Call::json(&request)?.accept(NDJSON)).await?;
    let (mut printed, mut status) = (String::new(), TRANSPORT);
    while let Some(event) = lines.json::<RunEvent>().await? {
        match event {
            RunEvent::Output { data, .. } => printed.push_str(&data.unwrap_or_default()),
            RunEvent::Exit { state, code, signal, .. } => status = status_of(&state, code, signal),
            RunEvent::Refused { error, .. } => {
                status = transport_or(error.code());
                printed = format!("{} {}\n", error.message, error.hint);
            }
            // Nobody waits here: the hub serves all the same.
            RunEvent::Asked { consent_id, .. } => {
                status = transport_or(Code::ConsentRequired);
                printed = format!("A person is asked first: cortex consent show {consent_id}\n");
                break;
            }
            RunEvent::Accepted { .. } | RunEvent::Lost { .. } | RunEvent::State { .. } => {}
        }
    }
    Ok(First { status, printed, ms: began.elapsed().as_secs_f64() * 1000.0 })
}

/// The next command as it has to be typed: with the address and token where a command on this
/// machine would not find them.
fn next_step(hub: &Running, node: &str) -> String {
    let usual = Config::load(None, Vec::new()).ok();
    let usual = |key: &str| usual.as_ref().map(|config| config.path(key).display().to_string());
    let (url, token) = (hub.url(), hub.token_file.display().to_string());
    let mut text = String::new();
    if usual("client.hub").as_ref() != Some(&url) {
        text.push_str(&format!("CORTEX_HUB={url} "));
    }
    if usual("client.token_file").as_ref() != Some(&token) {
        text.push_str(&format!("CORTEX_TOKEN_FILE={} ", args::show_argv(std::slice::from_ref(&token))));
    }
    format!("{text}cortex exec {node} -- id")
}

/// A target for the hub in this process, whatever the environment says about others.
fn local_target(context: &Context, hub: &Running) -> Result<Target> {
    let flags = vec![
        ("client.hub", "the hub of `up`", Some(hub.url())),
        ("client.token_file", "the hub of `up`", Some(hub.token_file.display().to_string())),
    ];
    Target::new(&Config::load(None, flags)?, context.output)
}

async fn enrol(client: &mut Client, hub: &Running, name: Name, data_dir: &Path) -> Result {
    let labels = [("os".to_owned(), std::env::consts::OS.to_owned())].into();
    let request = InviteRequest { labels, ..InviteRequest::default() };
    let created: InviteCreated = client.post("/invites", &request).await?;
    let invite = InviteText::parse(&created.invite)?;
    node::enrol(hub.grpc.to_string(), invite, name, data_dir.to_path_buf()).await?;
    Ok(())
}

/// The usual ports, or free ones where those are taken and nobody asked for them.
fn with_free_ports(context: &Context, config: &Config) -> Settings {
    let settings = settings(config);
    let free = |key: &str, wanted: SocketAddr| {
        let asked = config.get(key).is_some_and(|value| value.origin != Origin::Default);
        if asked || TcpListener::bind(wanted).is_ok() {
            return wanted;
        }
        context.output.say(&format!("{wanted} is taken; a free port is used."));
        SocketAddr::new(wanted.ip(), 0)
    };
    Settings { http: free("hub.http", settings.http), grpc: free("hub.grpc", settings.grpc), ..settings }
}
