//! `cortex policy test`.

use cortex_core::Code;
use cortex_wire::http::{PolicyTest, PolicyVerdict};

use super::path;
use crate::cli::{Context, args};
use crate::client::Client;
use crate::error::{Failure, Result};

/// Say what would be answered to a command; nothing runs. Exit 5 when it would be denied, 6 when a
/// person would be asked.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex policy test build-2 -- cargo build")]
pub(super) struct Test {
    /// The node.
    pub(super) node: String,
    /// Working directory on the node.
    #[arg(long)]
    cwd: Option<String>,
    /// A variable that would be set. Repeatable.
    #[arg(long, value_name = "K=V", value_parser = args::variable)]
    env: Vec<(String, String)>,
    /// The time that would be asked for.
    #[arg(long, value_name = "SPAN", value_parser = args::span_ms)]
    timeout: Option<u64>,
    /// The program and its arguments.
    #[arg(last = true, required = true, value_name = "ARGV")]
    argv: Vec<String>,
}

impl Test {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let Self { node, cwd, env, timeout, argv } = self;
        let shown = args::show_argv(&argv);
        let test = PolicyTest { argv, cwd, env: env.into_iter().collect(), timeout_ms: timeout };
        let verdict: PolicyVerdict = client.post(&format!("{}/test", path(&node)), &test).await?;
        let output = context.output;
        let rule = &verdict.rule;
        if output.json {
            output.json(&verdict)?;
        } else if verdict.allowed {
            output.line(&format!("allowed  `{shown}` may run on {node} (rule {rule})"))?;
        } else if verdict.ask {
            output.line(&format!("asks     `{shown}` on {node} needs a person's answer (rule {rule})"))?;
        } else {
            let (why, hint) =
                verdict.error.as_ref().map_or(("", ""), |problem| (&problem.message, &problem.hint));
            output.line(&format!("denied   `{shown}` may not run: {why}"))?;
            output.say(&format!("  hint: {hint}"));
        }
        match (verdict.allowed, verdict.ask) {
            (true, _) => Ok(()),
            (false, true) => Err(Failure::Exit(cortex_wire::error::surface(Code::ConsentRequired).exit)),
            (false, false) => Err(Failure::Exit(5)),
        }
    }
}
