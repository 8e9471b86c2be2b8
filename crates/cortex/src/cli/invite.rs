//! `cortex invite [ls|revoke]`.

use std::collections::BTreeMap;
use std::time::Duration;

use cortex_core::Code;
use cortex_wire::http::{InviteCreated, InviteRequest, InviteView, NodeView};
use http::Method;
use serde_json::json;
use tokio::time::timeout;

use super::interrupt::Interrupt;
use super::{Context, LOOK_AGAIN, args};
use crate::client::{Call, Client, encode};
use crate::duration;
use crate::error::{Failure, Result};

/// Make an invite for one machine: prints what to paste there, and waits for it to appear.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex invite --label role=ci --profile dev\n  cortex invite --json --ttl 1h",
    args_conflicts_with_subcommands = true
)]
pub(crate) struct Invite {
    #[command(subcommand)]
    action: Option<Action>,
    /// A label for the joining node; may be repeated.
    #[arg(long = "label", value_name = "K=V", value_parser = args::label)]
    labels: Vec<(String, String)>,
    /// The joining node's policy: strict, ci, dev or permissive; strict when missing.
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// The profile beyond which the node's policy may never be set.
    #[arg(long, value_name = "NAME")]
    max_profile: Option<String>,
    /// The user whose the node will be.
    #[arg(long, value_name = "USER")]
    owner: Option<String>,
    /// How long it can be used.
    #[arg(long, value_name = "SPAN", default_value = "15m", value_parser = args::span_ms)]
    ttl: u64,
    /// Do not wait for the node.
    #[arg(long, conflicts_with = "wait")]
    no_wait: bool,
    /// Wait for the node with `--json` too; its record is the second line.
    #[arg(long)]
    wait: bool,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// List invites, without their secrets.
    #[command(before_help = "Example:\n  cortex invite ls")]
    Ls,
    /// End an invite that was not used.
    #[command(before_help = "Example:\n  cortex invite revoke 0198a1c2-0000-7000-8000-000000000000")]
    Revoke {
        /// Its id.
        id: String,
    },
}

impl Invite {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let mut client = context.client()?;
        let output = context.output;
        match &self.action {
            None => self.create(context, &mut client).await,
            Some(Action::Ls) => {
                let invites: Vec<InviteView> = client.list("/invites", usize::MAX).await?;
                let head = ["ID", "STATE", "PROFILE", "LABELS", "BY", "ENDS"];
                output.list(&invites, &head, row, "There are no invites. Next: cortex invite")
            }
            Some(Action::Revoke { id }) => {
                client.done(Method::DELETE, &format!("/invites/{}", encode(id)), Call::default()).await?;
                if output.json {
                    return output.json(&json!({"revoked": id}));
                }
                output.say("Revoked; nobody can join with it.");
                Ok(())
            }
        }
    }

    async fn create(self, context: &Context, client: &mut Client) -> Result {
        let waits = self.wait || !(self.no_wait || context.output.json);
        let labels: BTreeMap<String, String> = self.labels.into_iter().collect();
        let request = InviteRequest {
            labels,
            profile: self.profile,
            max_profile: self.max_profile,
            owner: self.owner,
            ttl_ms: Some(self.ttl),
        };
        let created: InviteCreated = client.post("/invites", &request).await?;
        show(context, &created, self.ttl)?;
        if !waits {
            return Ok(());
        }
        context.output.say("\nWaiting for the node to appear; Ctrl-C leaves, and the invite stays good.");
        let mut interrupt = Interrupt::new()?;
        let joined = timeout(Duration::from_millis(self.ttl), joined(client, &created.id));
        tokio::select! {
            node = joined => match node {
                Ok(node) => appeared(context, &node?),
                Err(_) => Err(Failure::new(
                    Code::InviteExpired,
                    "Nobody joined while the invite was good.",
                    "Make a new one with `cortex invite`; `--ttl 1h` gives more time.",
                )),
            },
            status = interrupt.wait() => {
                context.output.say("Left; the invite stays good. Look with `cortex node ls`.");
                Err(Failure::Exit(status))
            }
        }
    }
}

fn row(invite: &InviteView) -> Vec<String> {
    let (profile, labels) = (invite.profile.clone(), args::show_labels(&invite.labels));
    vec![
        invite.id.clone(),
        invite.state.clone(),
        profile,
        labels,
        invite.created_by.clone(),
        invite.expires_at.clone(),
    ]
}

fn show(context: &Context, created: &InviteCreated, ttl_ms: u64) -> Result {
    let output = context.output;
    if output.json {
        return output.json(created);
    }
    output.say(&format!(
        "Paste this line on the machine that is to join (good once, for {}):\n",
        duration::show(ttl_ms)
    ));
    output.line(&paste(created))?;
    if loopback_only(&created.command) {
        output.say("\nThe hub is heard on this machine only. For other machines start it with");
        output.say("  cortex hub start --grpc 0.0.0.0:7441 --public-url http://NAME-OF-THIS-MACHINE:7440");
    }
    Ok(())
}

/// Whether the address to join at means the machine that it is typed on.
fn loopback_only(command: &str) -> bool {
    ["127.", "localhost", "[::1]"].iter().any(|host| command.contains(&format!(" join {host}")))
}

/// One line for a shell. `printf` is part of the shell, so that the invite is no argument of any
/// process.
fn paste(created: &InviteCreated) -> String {
    let command =
        created.command.replace("--invite-file FILE", "--invite-file -").replace(" --name NAME", "");
    format!("printf %s {} | {command}", created.invite)
}

/// Waits until the invite is used and its node is online.
async fn joined(client: &mut Client, invite: &str) -> Result<NodeView> {
    // The stream begins before the first look, so that no join falls between the two.
    let mut events = client.another().events(None).await?;
    loop {
        if let Some(node) = node_of(client, invite).await? {
            return Ok(node);
        }
        loop {
            let Ok(heard) = timeout(LOOK_AGAIN, events.next()).await else { break };
            match heard? {
                Some(event) if event.kind.starts_with("node.") || event.kind == "gap" => break,
                Some(_) => {}
                None => {
                    let gone = cortex_core::Refusal::new(
                        Code::HubUnreachable,
                        "The hub ended the stream of events.",
                    );
                    return Err(gone.into());
                }
            }
        }
    }
}

async fn node_of(client: &mut Client, invite: &str) -> Result<Option<NodeView>> {
    let invites: Vec<InviteView> = client.list("/invites", usize::MAX).await?;
    let Some(ours) = invites.into_iter().find(|candidate| candidate.id == invite) else { return Ok(None) };
    if ours.state == "revoked" {
        return Err(Failure::new(Code::InviteUnknown, "The invite was revoked.", Code::InviteUnknown.hint()));
    }
    let Some(id) = ours.used_by else { return Ok(None) };
    let node: NodeView = client.get(&format!("/nodes/{}", encode(&id))).await?;
    Ok(Some(node).filter(|node| node.state == "online"))
}

fn appeared(context: &Context, node: &NodeView) -> Result {
    if context.output.json {
        return context.output.json(node);
    }
    let mode = node.policy_mode.to_uppercase();
    context.output.say(&format!(
        "{} is online: {}/{}, {} processors, policy {mode} ({}), sandbox {}.",
        node.name, node.os, node.arch, node.cpus, node.policy_profile, node.sandbox
    ));
    context.output.say(&format!("Next: cortex exec {} -- uname -sr", node.name));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pasted_is_one_line_and_gives_the_invite_by_standard_input() {
        let command = "cortex join h:1 --invite-file FILE --name NAME".to_owned();
        let (invite, id, expires_at) = ("CXI1.x".to_owned(), String::new(), String::new());
        let line = paste(&InviteCreated { invite, id, expires_at, command });
        assert!(!loopback_only(&line) && loopback_only("cortex join 127.0.0.1:7441 --name x"));
        assert_eq!(line, "printf %s CXI1.x | cortex join h:1 --invite-file -");
    }
}
