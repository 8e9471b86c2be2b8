//! `cortex skill promote`.

use std::time::Duration;

use cortex_core::name::printable;
use cortex_core::words::count;
use cortex_wire::http::{PromoteRequest, PromotedView};
use http::Method;
use indicatif::HumanBytes;

use super::path;
use crate::cli::{Context, args};
use crate::client::Call;
use crate::error::Result;

/// How long the folder may take to the hub: 256 MiB at 150 KB/s.
const PATIENCE: Duration = Duration::from_secs(1_800);

/// Make a folder with a SKILL.md the newest revision of a skill.
///
/// Of several who promote one skill at once one wins, and the others are told who it was. What the newest
/// revision holds already makes no other.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex skill promote deploy --from build-2:/srv/skills/deploy\n  cortex skill promote deploy --workspace notes:skills/deploy --expect 3",
    group = clap::ArgGroup::new("source").required(true)
)]
pub(super) struct Promote {
    /// The skill.
    #[arg(value_name = "NAME")]
    name: String,
    /// The folder on a node.
    #[arg(long, value_name = "NODE:PATH", group = "source")]
    from: Option<String>,
    /// The folder in the newest revision of a workspace; all of it without a path.
    #[arg(long, value_name = "WORKSPACE[:PATH]", group = "source")]
    workspace: Option<String>,
    /// Only on top of this revision, 0 for a new skill; else on top of whatever is the newest.
    #[arg(long, value_name = "N")]
    expect: Option<u64>,
}

impl Promote {
    pub(super) async fn run(self, context: &Context) -> Result {
        let mut request = PromoteRequest { expect: self.expect, ..PromoteRequest::default() };
        if let Some(from) = &self.from {
            let place = args::place(from)?;
            request.from = Some(format!("{}:{}", place.node, place.path));
        }
        if let Some(text) = &self.workspace {
            let (name, path) = text.split_once(':').map_or((text.as_str(), None), |(a, b)| (a, Some(b)));
            request.workspace = Some(name.to_owned());
            request.path = path.map(|path| path.trim_matches('/').to_owned());
        }
        let call = Call::json(&request)?.patient(PATIENCE);
        let promote = format!("{}/promote", path(&self.name));
        let promoted: PromotedView = context.client()?.call(Method::POST, &promote, call).await?;
        if context.output.json {
            return context.output.json(&promoted);
        }
        let (name, n) = (printable(&promoted.head.name, 120), promoted.head.revision);
        context.output.line(&if promoted.already {
            format!("{name} is at revision {n}, which has this content already")
        } else {
            let (files, bytes) = (count(promoted.files, "file", "files"), HumanBytes(promoted.bytes));
            format!("{name} is at revision {n}: {files}, {bytes}")
        })
    }
}
