//! `cortex policy ls|get|set|allow|deny|test`.

use std::collections::BTreeSet;

use cortex_core::id::{NodeId, Revision};
use cortex_core::policy::{PROFILES, Policy as CorePolicy};
use cortex_core::time::WallTime;
use cortex_core::{Code, Refusal};
use cortex_wire::http::{PolicyGrant, PolicySet, PolicyTest, PolicyVerdict, PolicyView};
use http::Method;

use super::{Context, args, ask};
use crate::client::{Call, Client, encode};
use crate::config::nearest;
use crate::error::{Failure, Result};

/// See and change what may run where. STRICT is the default of every node.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex policy get build-2\n  cortex policy allow build-2 cargo --for 1h"
)]
pub(crate) struct Policy {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// List the policies of all nodes.
    #[command(before_help = "Example:\n  cortex policy ls")]
    Ls,
    /// Show one node's policy.
    #[command(before_help = "Example:\n  cortex policy get build-2")]
    Get {
        /// The node.
        node: String,
    },
    /// Give a node a built-in profile; the difference is shown first.
    #[command(before_help = "Example:\n  cortex policy set build-2 dev --yes")]
    Set {
        /// The node.
        node: String,
        /// strict, ci, dev or permissive.
        profile: String,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Allow a program on a node, for good or for a time.
    #[command(before_help = "Example:\n  cortex policy allow build-2 cargo --for 1h --yes")]
    Allow {
        /// The node.
        node: String,
        /// Name or absolute path.
        program: String,
        /// Only for that time.
        #[arg(long = "for", value_name = "SPAN", value_parser = args::span_ms)]
        for_ms: Option<u64>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Deny a program on a node, whatever else is allowed.
    #[command(before_help = "Example:\n  cortex policy deny build-2 curl")]
    Deny {
        /// The node.
        node: String,
        /// Name or absolute path.
        program: String,
        /// Taken for symmetry; taking rights away is never asked about.
        #[arg(long)]
        yes: bool,
    },
    /// Say what would be answered to a command; nothing runs. Exit 5 when it would be denied.
    #[command(before_help = "Example:\n  cortex policy test build-2 -- cargo build")]
    Test {
        /// The node.
        node: String,
        /// The program and its arguments.
        #[arg(last = true, required = true, value_name = "ARGV")]
        argv: Vec<String>,
    },
}

impl Policy {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let mut client = context.client()?;
        let node = match &self.action {
            Action::Ls => String::new(),
            Action::Get { node }
            | Action::Set { node, .. }
            | Action::Allow { node, .. }
            | Action::Deny { node, .. }
            | Action::Test { node, .. } => node.clone(),
        };
        match self.action.run(context, &mut client).await {
            Ok(()) => Ok(()),
            Err(failure) => Err(ask::with_nearest(failure, &client, &node).await),
        }
    }
}

impl Action {
    async fn run(self, context: &Context, client: &mut Client) -> Result {
        let output = context.output;
        match self {
            Self::Ls => {
                let policies: Vec<PolicyView> = client.list("/policies", usize::MAX).await?;
                let head = ["NODE", "MODE", "PROFILE", "REVISION", "ALLOWED", "DENIED", "CHANGED"];
                output.list(&policies, &head, row, "There are no nodes. Next: cortex invite")
            }
            Self::Get { node } => {
                let policy: PolicyView = client.get(&path(&node)).await?;
                output.facts(&policy, &facts(&policy))
            }
            Self::Set { node, profile, yes } => set(context, client, &node, profile, yes).await,
            Self::Allow { node, program, for_ms, yes } => {
                let time =
                    for_ms.map_or("for good".to_owned(), |ms| format!("for {}", crate::duration::show(ms)));
                let shown = args::show_argv(std::slice::from_ref(&program));
                output.confirm(&format!("Allow {shown} on {node} {time}?"), yes)?;
                let grant = PolicyGrant { program, for_ms };
                let policy = client.post(&format!("{}/allow", path(&node)), &grant).await?;
                changed(context, &policy, &format!("{shown} is allowed on {node} {time}"))
            }
            Self::Deny { node, program, yes: _ } => {
                let shown = args::show_argv(std::slice::from_ref(&program));
                let grant = PolicyGrant { program, for_ms: None };
                let policy = client.post(&format!("{}/deny", path(&node)), &grant).await?;
                changed(context, &policy, &format!("{shown} is denied on {node}"))
            }
            Self::Test { node, argv } => test(context, client, &node, argv).await,
        }
    }
}

fn path(node: &str) -> String {
    format!("/policies/{}", encode(node))
}

fn row(policy: &PolicyView) -> Vec<String> {
    vec![
        policy.node.clone(),
        policy.mode.to_uppercase(),
        policy.profile.clone(),
        policy.revision.to_string(),
        policy.allow.len().to_string(),
        policy.deny.len().to_string(),
        args::age(Some(&policy.changed_at)),
    ]
}

fn facts(policy: &PolicyView) -> Vec<(&'static str, String)> {
    let allow = policy.allow.iter().map(|grant| match &grant.until {
        Some(until) => format!("{} (until {until})", grant.program),
        None => grant.program.clone(),
    });
    vec![
        ("node", policy.node.clone()),
        ("mode", policy.mode.to_uppercase()),
        ("profile", policy.profile.clone()),
        ("revision", policy.revision.to_string()),
        ("allow", allow.collect::<Vec<_>>().join(" ")),
        ("deny", if policy.deny.is_empty() { "-".to_owned() } else { policy.deny.join(" ") }),
        ("env", policy.env.join(" ")),
        ("longest run", crate::duration::show(policy.timeout_ms_max)),
        ("changed", policy.changed_at.clone()),
    ]
}

fn changed(context: &Context, policy: &PolicyView, what: &str) -> Result {
    if context.output.json {
        return context.output.json(policy);
    }
    context.output.say(&format!("{what} (revision {}).", policy.revision));
    Ok(())
}

async fn set(context: &Context, client: &mut Client, node: &str, profile: String, yes: bool) -> Result {
    let current: PolicyView = client.get(&path(node)).await?;
    let target = CorePolicy::from_profile(NodeId::new(uuid::Uuid::nil()), &profile, Revision(0), WallTime(0));
    let Some(target) = target else { return Err(no_profile(&profile)) };
    let output = context.output;
    let lines = difference(&current, &target);
    if !output.json {
        output.say(&format!("{node}: {} → {profile}", current.profile));
        lines.iter().for_each(|line| output.say(&format!("  {line}")));
    }
    output.confirm(&format!("Set {node} to {profile}?"), yes)?;
    let call = Call::json(&PolicySet { profile: profile.clone() })?;
    // Somebody else's change between the look and the answer is not overwritten unseen.
    let call = call.header("if-match", format!("\"{}\"", current.revision));
    let policy: PolicyView = client.call(Method::PUT, &path(node), call).await?;
    changed(context, &policy, &format!("{node} is set to {profile}"))
}

fn no_profile(profile: &str) -> Failure {
    let shown = cortex_core::name::printable(profile, 40);
    let near = nearest(profile, PROFILES.iter().copied()).unwrap_or("strict");
    Refusal::new(Code::InvalidArgument, format!("There is no profile `{shown}`."))
        .hint(format!("Use `{near}`, or another of: {}.", PROFILES.join(", ")))
        .into()
}

/// What a profile would change, as lines that begin with `+`, `-` or `!`.
fn difference(current: &PolicyView, target: &CorePolicy) -> Vec<String> {
    let before: BTreeSet<&str> = current.allow.iter().map(|grant| grant.program.as_str()).collect();
    let after: BTreeSet<&str> = target.allow.iter().map(|grant| grant.program.as_str()).collect();
    let env_before: BTreeSet<&str> = current.env.iter().map(String::as_str).collect();
    let env_after: BTreeSet<&str> = target.env.iter().map(String::as_str).collect();
    let denied: BTreeSet<&str> = current.deny.iter().map(String::as_str).collect();
    let mut lines = Vec::new();
    if current.mode != target.mode.as_str() {
        let (from, to) = (current.mode.to_uppercase(), target.mode.as_str().to_uppercase());
        let meaning = if to == "PERMISSIVE" { ": everything runs that is not denied" } else { "" };
        lines.push(format!("! mode {from} → {to}{meaning}"));
    }
    let mut push = |sign: &str, what: &str, names: Vec<&str>| {
        if !names.is_empty() {
            lines.push(format!("{sign} {what} {}", names.join(" ")));
        }
    };
    push("+", "allow", after.difference(&before).copied().collect());
    push("-", "allow", before.difference(&after).copied().collect());
    push("-", "deny", denied.into_iter().collect());
    push("+", "env", env_after.difference(&env_before).copied().collect());
    push("-", "env", env_before.difference(&env_after).copied().collect());
    if lines.is_empty() {
        lines.push("= no difference".to_owned());
    }
    lines
}

async fn test(context: &Context, client: &mut Client, node: &str, argv: Vec<String>) -> Result {
    let shown = args::show_argv(&argv);
    let verdict: PolicyVerdict = client.post(&format!("{}/test", path(node)), &PolicyTest { argv }).await?;
    let output = context.output;
    if output.json {
        output.json(&verdict)?;
    } else if verdict.allowed {
        output.line(&format!("allowed  `{shown}` may run on {node} (rule {})", verdict.rule))?;
    } else {
        let why = verdict.error.as_ref().map_or("", |problem| problem.message.as_str());
        output.line(&format!("denied   `{shown}` may not run on {node} (rule {}): {why}", verdict.rule))?;
    }
    if verdict.allowed { Ok(()) } else { Err(Failure::Exit(5)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(profile: &str) -> PolicyView {
        let policy =
            CorePolicy::from_profile(NodeId::new(uuid::Uuid::nil()), profile, Revision(1), WallTime(0))
                .expect("built in");
        let grant = |grant: &cortex_core::policy::Grant| cortex_wire::http::GrantView {
            program: grant.program.clone(),
            until: None,
        };
        PolicyView {
            node: "a".to_owned(),
            revision: 1,
            profile: profile.to_owned(),
            mode: policy.mode.as_str().to_owned(),
            allow: policy.allow.iter().map(grant).collect(),
            deny: Vec::new(),
            env: policy.env.clone(),
            timeout_ms_max: policy.timeout_ms_max,
            changed_at: String::new(),
        }
    }

    fn target(profile: &str) -> CorePolicy {
        CorePolicy::from_profile(NodeId::new(uuid::Uuid::nil()), profile, Revision(0), WallTime(0))
            .expect("built in")
    }

    #[test]
    fn the_difference_names_what_is_gained_and_what_is_lost() {
        let wider = difference(&view("strict"), &target("ci")).join("\n");
        assert!(
            wider.contains("+ allow") && wider.contains("cargo") && !wider.contains("- allow"),
            "{wider}"
        );
        let narrower = difference(&view("dev"), &target("strict")).join("\n");
        assert!(narrower.contains("- allow") && !narrower.contains("+ allow"), "{narrower}");
        assert_eq!(difference(&view("ci"), &target("ci")), ["= no difference"]);
    }

    #[test]
    fn permissive_is_called_by_its_name_and_meaning() {
        let lines = difference(&view("strict"), &target("permissive")).join("\n");
        assert!(lines.contains("! mode STRICT → PERMISSIVE: everything runs"), "{lines}");
    }
}
