//! `cortex policy set`.

use cortex_wire::http::{PolicyCompare, PolicySet, PolicyView};
use cortex_wire::policy::NetworkText;
use http::Method;

use super::{FileArg, changed, path, read_document, show_difference};
use crate::cli::Context;
use crate::client::{Call, Client};
use crate::error::Result;

/// Give a node a profile or a document; the difference is shown first.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex policy set build-2 dev --yes\n  cortex policy set build-2 --network 443 --yes",
    override_usage = "cortex policy set [OPTIONS] <NODE> <PROFILE|--file <FILE>|--network <NETWORK>|--sandbox <LEVEL>>",
    group(clap::ArgGroup::new("what").required(true).args(["profile", "file", "network", "sandbox"]))
)]
pub(super) struct Set {
    /// The node.
    pub(super) node: String,
    /// strict, ci, dev, permissive, or a profile of `cortex policy profile ls`.
    profile: Option<String>,
    #[command(flatten)]
    file: FileArg,
    /// Only which connections runs may open: none, all, or ports such as `80,443`.
    #[arg(long, value_parser = network)]
    network: Option<NetworkText>,
    /// Only the least level of the sandbox: partial, kernel or full.
    #[arg(long, value_name = "LEVEL", value_parser = ["partial", "kernel", "full"])]
    sandbox: Option<String>,
    /// End live runs that the new policy would refuse.
    #[arg(long)]
    kill: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Set {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let (node, output) = (self.node.as_str(), context.output);
        let document = self.file.file.as_deref().map(read_document).transpose()?;
        let current: PolicyView = client.get(&path(node)).await?;
        let what = match (&self.profile, &self.file.file, &self.network, &self.sandbox) {
            (Some(profile), ..) => profile.clone(),
            (None, Some(file), ..) => file.display().to_string(),
            (None, None, Some(_), _) => "another network".to_owned(),
            (None, None, None, level) => format!("the level {}", level.as_deref().unwrap_or_default()),
        };
        if self.profile.is_some() || document.is_some() {
            let compare =
                PolicyCompare { profile: self.profile.clone(), document: document.clone(), revision: None };
            let title = format!("{node}: {} → {what}", current.profile);
            show_difference(context, client, node, &title, &compare).await?;
        }
        output.confirm(&format!("Set {node} to {what}?"), self.yes)?;
        let set = PolicySet {
            profile: self.profile,
            document,
            network: self.network,
            sandbox: self.sandbox,
            kill: self.kill,
        };
        // Somebody else's change between the look and the answer is not overwritten unseen.
        let call = Call::json(&set)?.header("if-match", format!("\"{}\"", current.revision));
        let policy: PolicyView = client.call(Method::PUT, &path(node), call).await?;
        changed(context, &policy, &format!("{node} is set to {what}"))
    }
}

fn network(given: &str) -> std::result::Result<NetworkText, String> {
    match given {
        "none" => Ok(NetworkText::None),
        "all" => Ok(NetworkText::All),
        ports => {
            let ports = ports
                .split(',')
                .map(|port| port.trim().parse::<u16>())
                .collect::<std::result::Result<_, _>>();
            ports.map(NetworkText::Ports).map_err(|_| "write none, all, or ports such as 80,443".to_owned())
        }
    }
}
