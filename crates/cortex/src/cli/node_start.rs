//! `cortex node start`: runs an enrolled node in the foreground. `join` ends here too.

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::interrupt::Interrupt;
use crate::config::{Config, Flag};
use crate::error::{Failure, Result};
use crate::output::Output;
use crate::serve::node::{self, Attached};

/// Flags of a node.
#[derive(clap::Args, Debug)]
pub(crate) struct NodeFlags {
    /// Where the node keeps its identity and its spool.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// A folder in which commands may work; may be repeated.
    #[arg(long, value_name = "DIR")]
    work: Vec<String>,
}

impl NodeFlags {
    /// The keys that they set.
    pub(crate) fn flags(self) -> Vec<Flag> {
        let work = (!self.work.is_empty()).then(|| self.work.join(":"));
        vec![("node.data_dir", "--data-dir", self.data_dir), ("node.work", "--work", work)]
    }
}

/// Runs until a signal, or until the hub refuses the node for good.
pub(crate) async fn run(context: &Context, config: &Config) -> Result {
    let mut interrupt = Interrupt::new()?;
    let shutdown = CancellationToken::new();
    let output = context.output;
    let data_dir = config.path("node.data_dir");
    let attached = move |attached: Attached| announce(output, &attached);
    let node = node::run(config, &data_dir, None, shutdown.clone(), attached);
    tokio::pin!(node);
    tokio::select! {
        result = &mut node => return Ok(result?),
        _ = interrupt.wait() => context.output.say("Stopping; once more leaves at once."),
    }
    shutdown.cancel();
    tokio::select! {
        result = &mut node => Ok(result?),
        status = interrupt.wait() => Err(Failure::Exit(status)),
    }
}

/// A line with `--json`; its members keep this order.
#[derive(Serialize)]
struct Told<'a> {
    attached: bool,
    node: &'a str,
    node_id: String,
    epoch: u64,
    sandbox: &'a str,
}

/// Each link is told; a reader that has gone away is no reason to stop a node.
fn announce(output: Output, attached: &Attached) {
    let told = if output.json {
        output.json(&Told {
            attached: true,
            node: &attached.node,
            node_id: attached.node_id.to_string(),
            epoch: attached.epoch.0,
            sandbox: attached.sandbox,
        })
    } else {
        output.line(&format!(
            "{} is attached (sandbox {}, link {}). Ctrl-C stops it.",
            attached.node, attached.sandbox, attached.epoch
        ))
    };
    if let Err(failure) = told {
        tracing::debug!(?failure, "nobody reads the announcement");
    }
}
