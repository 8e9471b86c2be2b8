//! `cortex consent ls|show|approve|deny|withdraw|rules|forget`.

use std::collections::BTreeSet;

use cortex_core::name::printable;
use cortex_wire::http::{ConsentApprove, ConsentDeny, ConsentDetails, ConsentRuleView, ConsentView};
use http::Method;
use tokio::time::timeout;

use super::{Context, LOOK_AGAIN, args};
use crate::client::{Call, Client, ServerEvents, encode};
use crate::error::{Failure, Result};

/// Answer commands that wait for a person.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex consent ls -w\n  cortex consent approve 0198a1c2-0000-7000-8000-000000000000 --for 1h"
)]
pub(crate) struct Consent {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// List the commands that wait, the newest first.
    #[command(before_help = "Examples:\n  cortex consent ls\n  cortex consent ls -w")]
    Ls {
        /// Stay, and show those that come.
        #[arg(short = 'w', long, conflicts_with = "all")]
        watch: bool,
        /// Those that were answered, or have ended, too.
        #[arg(long)]
        all: bool,
        /// How many.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Show the whole command, what to notice, and what was answered to its like.
    #[command(before_help = "Example:\n  cortex consent show 0198a1c2-0000-7000-8000-000000000000")]
    Show {
        /// Its id.
        id: String,
    },
    /// Say yes: the command starts. Without an option it is this once.
    #[command(
        before_help = "Examples:\n  cortex consent approve 0198a1c2-0000-7000-8000-000000000000\n  cortex consent approve 0198a1c2-0000-7000-8000-000000000000 --for 1h\n  cortex consent approve 0198a1c2-0000-7000-8000-000000000000 --pattern 2 --for 1d"
    )]
    Approve {
        /// Its id.
        id: String,
        /// The answer holds for so long, for this very command, or with --pattern for those like it.
        #[arg(long = "for", value_name = "SPAN", value_parser = args::span_ms)]
        for_ms: Option<u64>,
        /// The answer holds for every command that begins with this many words of it.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        pattern: Option<u32>,
    },
    /// Say no, and why: the note reaches whoever asked.
    #[command(
        before_help = "Example:\n  cortex consent deny 0198a1c2-0000-7000-8000-000000000000 --note \"push to a branch\""
    )]
    Deny {
        /// Its id.
        id: String,
        /// Words for whoever asked.
        #[arg(long, value_name = "TEXT")]
        note: String,
    },
    /// Take back what you asked yourself.
    #[command(before_help = "Example:\n  cortex consent withdraw 0198a1c2-0000-7000-8000-000000000000")]
    Withdraw {
        /// Its id.
        id: String,
    },
    /// List the answers that last.
    #[command(before_help = "Example:\n  cortex consent rules")]
    Rules,
    /// End an answer that lasts.
    #[command(before_help = "Example:\n  cortex consent forget 0198a1c2-0000-7000-8000-000000000000")]
    Forget {
        /// Its id, from `cortex consent rules`.
        id: String,
    },
}

impl Consent {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let mut client = context.client()?;
        match self.action {
            Action::Ls { watch: true, .. } => watch(context, &mut client).await,
            Action::Ls { all, limit, .. } => ls(context, &mut client, all, limit).await,
            Action::Show { id } => show(context, &mut client, &id).await,
            Action::Approve { id, for_ms, pattern } => {
                approve(context, &mut client, &id, for_ms, pattern).await
            }
            Action::Deny { id, note } => {
                let denied: ConsentView =
                    client.post(&format!("{}/deny", path(&id)), &ConsentDeny { note }).await?;
                done(context, &denied, &format!("Denied; {} is told why.", denied.caller))
            }
            Action::Withdraw { id } => {
                let back: ConsentView = client.call(Method::DELETE, &path(&id), Call::default()).await?;
                done(context, &back, "Taken back.")
            }
            Action::Rules => rules(context, &mut client).await,
            Action::Forget { id } => {
                let path = format!("/consent-rules/{}", encode(&id));
                let ended: ConsentRuleView = client.call(Method::DELETE, &path, Call::default()).await?;
                if context.output.json {
                    return context.output.json(&ended);
                }
                context.output.say("Ended: a person is asked again.");
                Ok(())
            }
        }
    }
}

const HEAD: [&str; 7] = ["ID", "NODE", "STANDING", "CALLER", "ASKED", "COMMAND", "REASON"];

fn path(id: &str) -> String {
    format!("/consents/{}", encode(id))
}

fn row(consent: &ConsentView) -> Vec<String> {
    vec![
        consent.id.clone(),
        consent.node.clone(),
        consent.standing.clone(),
        consent.caller.clone(),
        args::age(Some(&consent.created_at)),
        args::show_argv(&consent.argv),
        printable(&consent.reason, 60),
    ]
}

async fn ls(context: &Context, client: &mut Client, all: bool, limit: usize) -> Result {
    let path = if all { "/consents" } else { "/consents?standing=pending" };
    let consents: Vec<ConsentView> = client.list(path, limit).await?;
    context.output.list(&consents, &HEAD, row, "Nothing waits for a person.")
}

/// Shows what waits, and what comes, until it is left.
async fn watch(context: &Context, client: &mut Client) -> Result {
    let output = context.output;
    let mut known = BTreeSet::new();
    // The stream begins before the list is read, so that no question falls between the two.
    let mut events = client.another().events(None).await?;
    let mut last = None;
    output.say("Waiting for questions; leave with Ctrl-C.");
    loop {
        let waiting: Vec<ConsentView> = client.list("/consents?standing=pending", usize::MAX).await?;
        for consent in waiting.iter().rev().filter(|consent| known.insert(consent.id.clone())) {
            if output.json {
                output.json(consent)?;
            } else {
                output.line(&row(consent).join("  "))?;
                for note in &consent.notes {
                    output.line(&format!("  ! {note}"))?;
                }
            }
        }
        let ids: BTreeSet<&String> = waiting.iter().map(|consent| &consent.id).collect();
        known.retain(|id| ids.contains(id));
        heard(context, client, &mut events, &mut last).await?;
    }
}

/// Comes back when there is something new to look at, or a while has passed.
async fn heard(
    context: &Context,
    client: &Client,
    events: &mut ServerEvents,
    last: &mut Option<String>,
) -> Result {
    loop {
        let Ok(heard) = timeout(LOOK_AGAIN, events.next()).await else { return Ok(()) };
        match heard {
            Ok(Some(event)) => {
                *last = event.id.or(last.take());
                if event.kind.starts_with("consent.") || event.kind == "gap" {
                    return Ok(());
                }
            }
            Ok(None) | Err(_) => {
                context.output.say("The connection to the hub broke. Connecting again …");
                *events = client.events_again(last.as_deref()).await?;
                return Ok(());
            }
        }
    }
}

async fn show(context: &Context, client: &mut Client, id: &str) -> Result {
    let details: ConsentDetails = client.get(&path(id)).await?;
    let output = context.output;
    output.facts(&details, &facts(&details))?;
    if output.json || details.similar.is_empty() {
        return Ok(());
    }
    output.line("answered before")?;
    output.table(&HEAD, details.similar.iter().map(row))
}

fn facts(details: &ConsentDetails) -> Vec<(&'static str, String)> {
    let consent = &details.consent;
    // Whole: a person decides by it, and every text of it is bounded.
    let shown = |text: &str| printable(text, usize::MAX);
    let or_dash = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), shown);
    let env = match &details.env {
        Some(env) => env.iter().map(|(name, value)| format!("{}={}", shown(name), shown(value))).collect(),
        None => consent.env_names.iter().map(|name| shown(name)).collect::<Vec<_>>(),
    };
    let mut facts = vec![
        ("id", consent.id.clone()),
        ("standing", consent.standing.clone()),
        ("node", consent.node.clone()),
        ("caller", shown(&consent.caller)),
        ("command", args::whole_argv(&consent.argv)),
        ("cwd", or_dash(&consent.cwd)),
        ("variables", if env.is_empty() { "-".to_owned() } else { env.join(" ") }),
        ("reason", if consent.reason.is_empty() { "-".to_owned() } else { shown(&consent.reason) }),
        ("rule", shown(&consent.rule)),
    ];
    facts.extend(consent.notes.iter().map(|note| ("notice", shown(note))));
    facts.extend([
        ("asked", consent.created_at.clone()),
        ("expires", consent.expires_at.clone()),
        ("run", consent.run_id.clone()),
        ("answered by", or_dash(&consent.answered_by)),
        ("note", or_dash(&consent.note)),
    ]);
    facts
}

async fn approve(
    context: &Context,
    client: &mut Client,
    id: &str,
    for_ms: Option<u64>,
    pattern: Option<u32>,
) -> Result {
    let words = pattern.map(usize::try_from).transpose().map_err(|_| {
        Failure::usage(
            "The pattern has too many words.",
            "Give how many of the first words must stay the same.",
        )
    })?;
    let approved: ConsentView =
        client.post(&format!("{}/approve", path(id)), &ConsentApprove { for_ms, words }).await?;
    let lasts = match (words, for_ms) {
        (None, None) => String::new(),
        (None, Some(_)) => " The same command is answered by this for that time.".to_owned(),
        (Some(words), _) => {
            let begins = args::show_argv(&approved.argv[..words.min(approved.argv.len())]);
            format!(" Commands of {} that begin with `{begins}` are answered by this.", approved.caller)
        }
    };
    let node = &approved.node;
    done(context, &approved, &format!("Approved; {node} runs it as {}.{lasts}", approved.run_id))
}

async fn rules(context: &Context, client: &mut Client) -> Result {
    let rules: Vec<ConsentRuleView> = client.list("/consent-rules", usize::MAX).await?;
    let row = |rule: &ConsentRuleView| {
        let rest = if rule.exact { "" } else { " …" };
        vec![
            rule.id.clone(),
            rule.node.clone(),
            rule.token.clone(),
            format!("{}{rest}", args::show_argv(&rule.pattern)),
            rule.cwd.as_deref().map_or_else(|| "-".to_owned(), |cwd| printable(cwd, 100)),
            rule.until.clone().unwrap_or_else(|| "never".to_owned()),
            rule.made_by.clone(),
        ]
    };
    let head = ["ID", "NODE", "TOKEN", "COMMANDS", "CWD", "ENDS", "GIVEN BY"];
    context.output.list(&rules, &head, row, "No answer lasts.")
}

fn done(context: &Context, consent: &ConsentView, words: &str) -> Result {
    if context.output.json {
        return context.output.json(consent);
    }
    context.output.say(words);
    Ok(())
}
