//! `cortex audit ls|get|export`.

use cortex_core::Code;
use cortex_wire::http::{AuditView, Page};
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
}

impl Audit {
    pub(crate) async fn run(self, context: &Context) -> Result {
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
                let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
                output.facts(
                    &row,
                    &[
                        ("seq", row.seq.to_string()),
                        ("at", row.at.clone()),
                        ("actor", row.actor.clone()),
                        ("action", row.action.clone()),
                        ("outcome", row.outcome.clone()),
                        ("reason", or_dash(&row.reason)),
                        ("node", or_dash(&row.node)),
                        ("run", or_dash(&row.run)),
                        ("command", args::show_argv(&row.argv)),
                        ("detail", or_dash(&row.detail)),
                        ("hash", row.hash.clone()),
                    ],
                )
            }
            Action::Export => export(&mut client, context).await,
        }
    }
}

/// Widest actor in a list.
const ACTOR_CHARS_MAX: usize = 20;

fn row(row: &AuditView) -> Vec<String> {
    let reason = row.reason.clone().unwrap_or_else(|| "-".to_owned());
    let (actor, action) = (short(&row.actor, ACTOR_CHARS_MAX), row.action.clone());
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

/// For a column; `audit get` shows the whole.
fn short(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_actor_is_cut_and_a_short_one_is_not() {
        assert_eq!([short("token:admin", 20), short("ééé", 2)], ["token:admin", "éé…"]);
    }
}
