//! `cortex audit ls|get|export|verify`.

use std::io::BufReader;
use std::path::{Path, PathBuf};

use cortex_core::Code;
use cortex_core::id::Seq;
use cortex_core::invite::from_hex;
use cortex_core::node::AuditHead;
use cortex_hub::http::export::{verdict_view, verify_export};
use cortex_hub::service::audit::verify::Witness;
use cortex_wire::http::{AuditVerdictView, AuditView, Page};
use http::Method;

use super::{Context, args};
use crate::client::{Call, Client, NDJSON};
use crate::error::{Failure, Result};

/// Read the append-only log of everything that was asked, allowed and refused.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex audit ls --limit 20\n  cortex audit export > audit.ndjson")]
pub(crate) struct Audit {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// List rows.
    #[command(before_help = "Example:\n  cortex audit ls --limit 20")]
    Ls {
        /// How many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// Show one row.
    #[command(before_help = "Example:\n  cortex audit get 42")]
    Get {
        /// Its number.
        seq: u64,
    },
    /// Write all rows as NDJSON.
    #[command(before_help = "Example:\n  cortex audit export > audit.ndjson")]
    Export,
    /// Tell whether the log is what was written: its hash chain, its anchor, and what nodes saw.
    #[command(before_help = "Example:\n  cortex audit verify\n  cortex audit verify --file audit.ndjson")]
    Verify {
        /// An export to verify on its own, without a hub; `-` is standard input.
        #[arg(long)]
        file: Option<PathBuf>,
        /// What you kept of its end, as `verify` printed it: ROWS:HEAD. Finds what was cut off.
        #[arg(long, requires = "file")]
        head: Option<String>,
    },
}

impl Audit {
    pub(crate) async fn run(self, context: &Context) -> Result {
        if let Action::Verify { file: Some(file), head } = self.action {
            return verify_file(context, &file, head.as_deref());
        }
        let mut client = context.client()?;
        let output = context.output;
        match self.action {
            Action::Ls { limit } => {
                let rows: Vec<AuditView> = client.list("/audit", limit).await?;
                let head = ["SEQ", "AT (UTC)", "ACTOR", "ACTION", "OUTCOME", "REASON", "COMMAND"];
                output.list(&rows, &head, row, "The audit log is empty.")
            }
            Action::Get { seq } => {
                let row = one(&mut client, seq).await?;
                output.facts(
                    &row,
                    &[
                        ("seq", row.seq.to_string()),
                        ("at", row.at.clone()),
                        ("actor", row.actor.clone()),
                        ("action", row.action.clone()),
                        ("outcome", row.outcome.clone()),
                        ("reason", args::or_dash(row.reason.as_deref())),
                        ("node", args::or_dash(row.node.as_deref())),
                        ("run", args::or_dash(row.run.as_deref())),
                        ("command", args::whole_argv(&row.argv)),
                        ("detail", args::or_dash(row.detail.as_deref())),
                        ("token", args::or_dash(row.token.as_deref())),
                        ("policy hash", args::or_dash(row.policy_hash.as_deref())),
                        ("consent", args::or_dash(row.consent.as_deref())),
                        ("hash", row.hash.clone()),
                    ],
                )
            }
            Action::Export => export(&mut client, context).await,
            Action::Verify { .. } => {
                let verdict: AuditVerdictView = client.get("/audit/verify").await?;
                told(context, &verdict)
            }
        }
    }
}

fn row(row: &AuditView) -> Vec<String> {
    let reason = row.reason.clone().unwrap_or_else(|| "-".to_owned());
    let (actor, action) = (args::short(&row.actor, args::ACTOR_CHARS_MAX), row.action.clone());
    vec![
        row.seq.to_string(),
        row.at.get(..19).unwrap_or(&row.at).replace('T', " "),
        actor,
        action,
        row.outcome.clone(),
        reason,
        args::show_argv(&row.argv),
    ]
}

/// The row of that number: the first one after the number before it.
async fn one(client: &mut Client, seq: u64) -> Result<AuditView> {
    let before = seq.saturating_sub(1);
    let page: Page<AuditView> = client.get(&format!("/audit?cursor={before}&limit=1")).await?;
    page.items.into_iter().find(|row| row.seq == seq).ok_or_else(|| {
        Failure::new(
            Code::NotFound,
            format!("There is no audit row {seq}."),
            "List the rows with `cortex audit ls` and use one of those numbers.",
        )
    })
}

/// Line by line, so that a long log needs no memory. What was cut off is an error.
async fn export(client: &mut Client, context: &Context) -> Result {
    let call = Call::default().accept(NDJSON);
    let mut lines = client.lines(Method::GET, "/audit/export", call).await?;
    while let Some(row) = lines.json::<AuditView>().await? {
        context.output.json(&row)?;
    }
    Ok(())
}

/// An export tells nothing that a hub would have to confirm.
fn verify_file(context: &Context, file: &Path, head: Option<&str>) -> Result {
    let kept = head.map(parse_head).transpose()?;
    let verdict = if file == Path::new("-") {
        verify_export(std::io::stdin().lock(), kept)
    } else {
        let opened = std::fs::File::open(file).map_err(|error| {
            let message = format!("{} cannot be read: {error}.", file.display());
            Failure::new(Code::BadConfig, message, "Check the path given with `--file`.")
        })?;
        verify_export(BufReader::new(opened), kept)
    };
    told(context, &verdict_view(&verdict.map_err(Failure::from)?))
}

fn parse_head(text: &str) -> Result<Witness> {
    let parsed = text.split_once(':').and_then(|(rows, hash)| {
        let head = AuditHead { seq: Seq(rows.parse().ok()?), hash: from_hex(hash)? };
        Some(Witness { name: "`--head`".to_owned(), head })
    });
    parsed.ok_or_else(|| {
        Failure::new(
            Code::InvalidArgument,
            "`--head` is not of the form ROWS:HEAD.",
            "Copy it from the `head` line of an earlier `cortex audit verify`.",
        )
    })
}

/// A broken log is an answer on standard output and a failure.
fn told(context: &Context, verdict: &AuditVerdictView) -> Result {
    let standing = match &verdict.why {
        None => "whole".to_owned(),
        Some(why) => format!("BROKEN: {why}"),
    };
    context.output.facts(
        verdict,
        &[
            ("audit log", standing),
            ("rows", verdict.rows.to_string()),
            ("head", format!("{}:{}", verdict.rows, verdict.head)),
            ("witnesses that agree", verdict.witnesses.to_string()),
        ],
    )?;
    let Some(why) = &verdict.why else { return Ok(()) };
    let broken = Failure::new(Code::AuditBroken, why, Code::AuditBroken.hint());
    // Programs have read it in the verdict: the answer stays one object.
    if context.output.json { Err(Failure::Exit(broken.exit())) } else { Err(broken) }
}
