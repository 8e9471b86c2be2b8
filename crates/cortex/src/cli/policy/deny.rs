//! `cortex policy deny`.

use cortex_wire::http::{PolicyGrant, PolicyView};

use super::{Given, changed, path, root, what};
use crate::cli::Context;
use crate::client::Client;
use crate::error::Result;

/// Deny a program on a node, whatever else is allowed; or take files or a port away.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex policy deny build-2 curl\n  cortex policy deny build-2 --root /srv/app --kill",
    override_usage = "cortex policy deny [OPTIONS] <NODE> <PROGRAM|--root <PATH>|--port <PORT>>",
    group(clap::ArgGroup::new("what").required(true).args(["program", "root", "port"]))
)]
pub(super) struct Deny {
    /// The node.
    pub(super) node: String,
    /// Name or absolute path of a program.
    program: Option<String>,
    /// Files that were allowed by this path.
    #[arg(long, value_name = "PATH", value_parser = root)]
    root: Option<Given>,
    /// A port that was allowed.
    #[arg(long)]
    port: Option<u16>,
    /// End live runs that the new policy would refuse.
    #[arg(long)]
    kill: bool,
    /// Taken for symmetry; taking rights away is never asked about.
    #[arg(long)]
    yes: bool,
}

impl Deny {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let Self { node, program, root, port, kill, yes: _ } = self;
        let what = what(program.as_ref(), port, root.as_ref());
        let root = root.map(|given| given.root);
        let grant = PolicyGrant { program, root, port, kill, ..PolicyGrant::default() };
        let policy: PolicyView = client.post(&format!("{}/deny", path(&node)), &grant).await?;
        changed(context, &policy, &format!("{what} is denied on {node}"))
    }
}
