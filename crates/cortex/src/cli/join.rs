//! `cortex join`: enrols this machine with an invite, then runs the node.

use std::io::Read;
use std::path::Path;

use cortex_core::invite::InviteText;
use cortex_core::limits::INVITE_BYTES_MAX;
use cortex_core::name::Name;
use cortex_core::{Code, Refusal};
use serde_json::json;

use super::node_start::NodeFlags;
use super::{Context, node_start};
use crate::error::{Failure, Result};
use crate::serve::node;

/// Join a hub with an invite, and run the node.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Example:\n  cortex join hub.lan:7441 --invite-file invite.txt --name build-2\n  cortex join hub.lan:7441 --invite-file - --name build-2 --work /srv/build"
)]
pub(crate) struct Join {
    /// The hub's address for nodes, HOST:PORT.
    #[arg(value_name = "HUB")]
    hub: String,
    /// File with the invite; `-` reads standard input. An invite is never an argument.
    #[arg(long, value_name = "FILE")]
    invite_file: String,
    /// Name of this node; the host's name when missing.
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    node: NodeFlags,
    /// Only join; run the node later with `cortex node start`.
    #[arg(long)]
    no_start: bool,
}

impl Join {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let config = context.config(self.node.flags())?;
        let hub = address(&self.hub)?;
        let name = Name::parse(&self.name.clone().unwrap_or_else(host_name))?;
        let invite = read_invite(&self.invite_file)?;
        let data_dir = config.path("node.data_dir");
        let enrolled = node::enrol(hub, invite, name, data_dir.clone()).await?;
        let output = context.output;
        if self.no_start {
            if output.json {
                return output.json(&json!({
                    "joined": true, "node": enrolled.name, "node_id": enrolled.node_id.to_string(), "data_dir": data_dir,
                }));
            }
            output.line(&format!("{} has joined as {}.", enrolled.name, enrolled.node_id))?;
            output.say(&format!("Next: cortex node start --data-dir {}", data_dir.display()));
            return Ok(());
        }
        output.say(&format!("{} has joined; it is being started.", enrolled.name));
        node_start::run(context, &config).await
    }
}

/// HOST:PORT; a URL in front is forgiven, a path behind is not.
fn address(text: &str) -> Result<String> {
    let bare = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
    let good =
        bare.parse::<http::uri::Authority>().is_ok_and(|a| a.port_u16().is_some() && !a.host().is_empty());
    if good && !bare.contains('@') {
        return Ok(bare.to_owned());
    }
    let shown = cortex_core::name::printable(text, 80);
    Err(Failure::usage(
        format!("`{shown}` is not the address of a hub for nodes."),
        "Write it as HOST:PORT, such as hub.lan:7441; `cortex invite` prints the whole command.",
    ))
}

fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
}

/// Reads at most a little more than an invite can be long, so that a wrong file is no trouble.
fn read_invite(file: &str) -> Result<InviteText> {
    let bytes_max = INVITE_BYTES_MAX as u64 + 1;
    let unreadable = |error: std::io::Error| {
        Failure::usage(
            format!("The invite file {} cannot be read: {error}.", Path::new(file).display()),
            "Give `--invite-file` the file with the invite, or `-` for standard input.",
        )
    };
    let mut bytes = Vec::new();
    if file == "-" {
        std::io::stdin().take(bytes_max).read_to_end(&mut bytes).map_err(unreadable)?;
    } else {
        let opened = std::fs::File::open(file).map_err(unreadable)?;
        opened.take(bytes_max).read_to_end(&mut bytes).map_err(unreadable)?;
    }
    if bytes.len() > INVITE_BYTES_MAX {
        let refusal = Refusal::new(
            Code::TooLarge,
            format!("The invite is above {INVITE_BYTES_MAX} bytes, more than any invite has."),
        );
        return Err(refusal.hint("Copy the invite again, whole and alone, from `cortex invite`.").into());
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Refusal::new(Code::InviteMalformed, "The invite cannot be read: it is not text."))?;
    Ok(InviteText::parse(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hub_is_named_by_host_and_port() {
        assert_eq!(address("https://hub.lan:7441/").expect("forgiven"), "hub.lan:7441");
        for text in ["hub.lan", "hub:port", "user@hub:1", "hub:1/x", ""] {
            assert_eq!(address(text).expect_err("no address").exit(), 2, "{text}");
        }
    }
}
