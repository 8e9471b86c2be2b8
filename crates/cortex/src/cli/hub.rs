//! `cortex hub start`.

use std::path::Path;

use serde::Serialize;

use super::Context;
use super::interrupt::Interrupt;
use crate::config::{Config, Flag};
use crate::env;
use crate::error::Result;
use crate::serve::hub::{self, Running, Settings};

/// Run the hub.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex hub start")]
pub(crate) struct Hub {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// Run the hub in the foreground until Ctrl-C. It needs no configuration.
    #[command(
        before_help = "Example:\n  cortex hub start\n  cortex hub start --data-dir /var/lib/cortex --grpc 0.0.0.0:7441 --public-url http://hub.lan:7440"
    )]
    Start(HubFlags),
}

/// Flags of a hub.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct HubFlags {
    /// Where the hub keeps everything.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<String>,
    /// Where the API listens; port 0 takes a free one [default: 127.0.0.1:7440].
    #[arg(long, value_name = "ADDR")]
    pub(crate) http: Option<String>,
    /// Where nodes dial in; port 0 takes a free one [default: 127.0.0.1:7441].
    #[arg(long, value_name = "ADDR")]
    pub(crate) grpc: Option<String>,
    /// Address of the hub as other machines see it.
    #[arg(long, value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// Let HTTP listen beyond loopback without TLS.
    #[arg(long)]
    pub(crate) allow_plain_http: bool,
}

impl HubFlags {
    /// As flags of the configuration.
    pub(crate) fn flags(self) -> Vec<Flag> {
        let plain = self.allow_plain_http.then(|| "true".to_owned());
        vec![
            ("hub.data_dir", "--data-dir", self.data_dir),
            ("hub.http", "--http", self.http),
            ("hub.grpc", "--grpc", self.grpc),
            ("hub.public_url", "--public-url", self.public_url),
            ("hub.allow_plain_http", "--allow-plain-http", plain),
        ]
    }
}

/// What the hub is started with.
pub(crate) fn settings(config: &Config) -> Settings {
    Settings {
        data_dir: config.path("hub.data_dir"),
        http: config.address("hub.http"),
        grpc: config.address("hub.grpc"),
        public_url: config.get("hub.public_url").map(|value| value.text.clone()),
        allow_plain_http: config.switch("hub.allow_plain_http"),
        tasks_per_owner: config.tasks("hub.tasks_per_owner"),
    }
}

impl Hub {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let Action::Start(flags) = self.action;
        let settings = settings(&context.config(flags.flags())?);
        let mut interrupt = Interrupt::new()?;
        let data_dir = settings.data_dir.clone();
        let hub = tokio::select! {
            hub = hub::start(settings) => hub?,
            _ = interrupt.wait() => return Ok(()),
        };
        announce(context, &hub, &data_dir)?;
        tokio::select! {
            failure = hub.failed() => return Err(failure.into()),
            _ = interrupt.wait() => context.output.say("Stopping; once more leaves at once."),
        }
        tokio::select! {
            () = hub.stop() => Ok(()),
            status = interrupt.wait() => Err(crate::error::Failure::Exit(status)),
        }
    }
}

/// The first line with `--json`; its members keep this order.
#[derive(Serialize)]
struct Ready<'a> {
    ready: bool,
    http: String,
    grpc: String,
    token_file: &'a Path,
    version: &'a str,
}

fn announce(context: &Context, hub: &Running, data_dir: &Path) -> Result {
    let output = context.output;
    if output.json {
        let (http, grpc, version) = (hub.url(), hub.grpc.to_string(), env!("CARGO_PKG_VERSION"));
        return output.json(&Ready { ready: true, http, grpc, token_file: &hub.token_file, version });
    }
    banner(context, hub, data_dir)?;
    output.line("Next: cortex invite")
}

/// What a hub says about itself to people.
pub(crate) fn banner(context: &Context, hub: &Running, data_dir: &Path) -> Result {
    let (output, version) = (context.output, env!("CARGO_PKG_VERSION"));
    let data = env::shown(data_dir);
    output.line(&format!("cortex hub {version}   data {data}   store sqlite   policy STRICT"))?;
    output.line(&format!("  API    {}", hub.url()))?;
    output.line(&format!("  nodes  {} (TLS, outbound from nodes only)", hub.grpc))?;
    output.line(&format!("  token  {}", env::shown(&hub.token_file)))
}
