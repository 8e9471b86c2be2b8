//! `cortex policy allow`.

use cortex_core::policy::{is_interpreter, is_launcher};
use cortex_wire::http::{PolicyGrant, PolicyView};

use super::{Given, changed, path, root, what};
use crate::cli::{Context, args};
use crate::client::Client;
use crate::error::Result;

/// Allow a program, files or a port on a node, a program for good or for a time.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex policy allow build-2 cargo --for 1h --yes\n  cortex policy allow build-2 --root /srv/app:rw --yes",
    override_usage = "cortex policy allow [OPTIONS] <NODE> <PROGRAM|--root <PATH[:rw]>|--port <PORT>>",
    group(clap::ArgGroup::new("what").required(true).args(["program", "root", "port"]))
)]
pub(super) struct Allow {
    /// The node.
    pub(super) node: String,
    /// Name or absolute path of a program.
    program: Option<String>,
    /// Only for that time.
    #[arg(long = "for", value_name = "SPAN", value_parser = args::span_ms, requires = "program")]
    for_ms: Option<u64>,
    /// Whatever its arguments, also those that start other programs.
    #[arg(long, requires = "program")]
    any_arguments: bool,
    /// Files: `PATH`, `~/PATH` or `work`; `:rw` to write, `:rx` or `:rwx` to execute too.
    #[arg(long, value_name = "PATH[:rw]", value_parser = root)]
    root: Option<Given>,
    /// Outgoing TCP to this port.
    #[arg(long)]
    port: Option<u16>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Allow {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let (node, output) = (self.node, context.output);
        let time =
            self.for_ms.map_or("for good".to_owned(), |ms| format!("for {}", crate::duration::show(ms)));
        let what = what(self.program.as_ref(), self.port, self.root.as_ref());
        if let Some(warning) =
            self.program.as_deref().and_then(|program| warning(program, self.any_arguments))
            && !output.json
        {
            output.say(&warning);
        }
        output.confirm(&format!("Allow {what} on {node} {time}?"), self.yes)?;
        let grant = PolicyGrant {
            program: self.program,
            for_ms: self.for_ms,
            any_arguments: self.any_arguments,
            root: self.root.map(|given| given.root),
            port: self.port,
            kill: false,
        };
        let policy: PolicyView = client.post(&format!("{}/allow", path(&node)), &grant).await?;
        changed(context, &policy, &format!("{what} is allowed on {node} {time}"))
    }
}

/// What somebody who allows a program should know of it.
fn warning(program: &str, any_arguments: bool) -> Option<String> {
    let shown = args::show_argv(&[program.to_owned()]);
    if is_interpreter(program) {
        return Some(format!(
            "{shown} runs any code that it is given: what holds it is the sandbox, not the list of programs."
        ));
    }
    match (is_launcher(program), any_arguments) {
        (true, true) => Some(format!("{shown} starts whatever it is given: what holds that is the sandbox.")),
        (true, false) => Some(format!(
            "{shown} starts whatever it is given, so it may have no arguments; `--any-arguments` lifts that."
        )),
        (false, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_allows_an_interpreter_or_a_launcher_is_told_what_that_means() {
        assert!(warning("python3", false).expect("a warning").contains("any code"));
        assert!(warning("/usr/bin/env", false).expect("a warning").contains("--any-arguments"));
        assert!(warning("env", true).expect("a warning").contains("sandbox"));
        assert_eq!(warning("cargo", false), None);
    }
}
