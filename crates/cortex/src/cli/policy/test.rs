//! `cortex policy test`.

use cortex_core::Code;
use cortex_wire::http::{FileTest, PolicyTest, PolicyVerdict};

use super::path;
use crate::cli::{Context, args};
use crate::client::Client;
use crate::error::{Failure, Result};

/// Say what would be answered to a command, or to an operation on files; nothing is done. Exit 5 when it
/// would be denied, 6 when a person would be asked.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex policy test build-2 -- cargo build\n  cortex policy test build-2 --file write:/srv/app/config.toml"
)]
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
    /// An operation on files, such as `write:/srv/x`: a verb of `cortex fs`, or `read`, and a path.
    #[arg(long, value_name = "VERB:PATH", value_parser = file, conflicts_with_all = ["cwd", "env", "timeout", "argv"])]
    file: Option<FileTest>,
    /// Of `mv:` and `cp:`: where to.
    #[arg(long, value_name = "PATH", requires = "file", conflicts_with = "argv")]
    to: Option<String>,
    /// Of `rm:` and `cp:`: a folder with all that is in it.
    #[arg(short, long, requires = "file", conflicts_with = "argv")]
    recursive: bool,
    /// The program and its arguments.
    #[arg(last = true, required_unless_present = "file", value_name = "ARGV")]
    argv: Vec<String>,
}

/// `VERB:PATH`; `read` is what `cat` asks for.
fn file(text: &str) -> std::result::Result<FileTest, String> {
    let Some((verb, path)) = text.split_once(':') else {
        return Err("write it as VERB:PATH, such as write:/srv/x".to_owned());
    };
    let verb = if verb == "read" { "cat" } else { verb }.to_owned();
    Ok(FileTest { verb, path: path.to_owned(), ..FileTest::default() })
}

impl Test {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let Self { node, cwd, env, timeout, file, to, recursive, argv } = self;
        let (shown, what) = match &file {
            None => (args::show_argv(&argv), "run"),
            Some(file) => {
                let flag = recursive.then(|| "-r".to_owned());
                let words = [file.verb.clone()].into_iter().chain(flag).chain([file.path.clone()]);
                (args::show_argv(&words.chain(to.clone()).collect::<Vec<_>>()), "be done")
            }
        };
        let file = file.map(|file| FileTest { to, recursive, ..file });
        let test = PolicyTest { argv, file, cwd, env: env.into_iter().collect(), timeout_ms: timeout };
        let verdict: PolicyVerdict = client.post(&format!("{}/test", path(&node)), &test).await?;
        let output = context.output;
        let rule = &verdict.rule;
        if output.json {
            output.json(&verdict)?;
        } else if verdict.allowed {
            output.line(&format!("allowed  `{shown}` may {what} on {node} (rule {rule})"))?;
        } else if verdict.ask {
            output.line(&format!("asks     `{shown}` on {node} needs a person's answer (rule {rule})"))?;
        } else {
            let (why, hint) =
                verdict.error.as_ref().map_or(("", ""), |problem| (&problem.message, &problem.hint));
            output.line(&format!("denied   `{shown}` may not {what}: {why}"))?;
            output.say(&format!("  hint: {hint}"));
        }
        match (verdict.allowed, verdict.ask) {
            (true, _) => Ok(()),
            (false, true) => Err(Failure::Exit(cortex_wire::error::surface(Code::ConsentRequired).exit)),
            (false, false) => Err(Failure::Exit(5)),
        }
    }
}
