//! `cortex workspace set`.

use cortex_core::name::printable;
use cortex_wire::http::{WorkspacePatch, WorkspaceView};
use http::Method;

use super::{Held, bytes, changed, path};
use crate::cli::Context;
use crate::client::{Call, Client};
use crate::error::{Failure, Result};

/// Change what belongs to a workspace. What is not given stays; every folder is looked at anew.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex workspace set notes --exclude target/ --exclude '*.o'\n  cortex workspace set notes --vcs yes --bytes-max 2G"
)]
pub(super) struct Set {
    /// The workspace.
    name: String,
    /// Leave this out everywhere, as a line of an ignore file says it; may be repeated, and replaces what
    /// was left out before.
    #[arg(long, value_name = "GLOB", conflicts_with = "no_exclude")]
    exclude: Vec<String>,
    /// Leave nothing out by such lines.
    #[arg(long)]
    no_exclude: bool,
    /// Whether `.gitignore` and `.cortexignore` files are heeded.
    #[arg(long, value_name = "YES|NO", value_parser = yes)]
    ignore_files: Option<bool>,
    /// Whether `.git` and its like belong to it.
    #[arg(long, value_name = "YES|NO", value_parser = yes)]
    vcs: Option<bool>,
    /// Whether links that lead out of the folder are kept, as text.
    #[arg(long, value_name = "YES|NO", value_parser = yes)]
    links_outside: Option<bool>,
    /// Bytes that one tree may have, such as 2G.
    #[arg(long, value_name = "N", value_parser = bytes)]
    bytes_max: Option<u64>,
    #[command(flatten)]
    held: Held,
}

fn yes(text: &str) -> std::result::Result<bool, String> {
    match text {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err("write `yes` or `no`".to_owned()),
    }
}

impl Set {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let flags = [self.ignore_files, self.vcs, self.links_outside];
        let has_rules = !self.exclude.is_empty() || self.no_exclude || flags.iter().any(Option::is_some);
        if !has_rules && self.bytes_max.is_none() {
            return Err(Failure::usage(
                "Nothing is named that is to be changed.",
                "Give what changes, such as `--exclude target/` or `--bytes-max 2G`.",
            ));
        }
        let rules = if has_rules {
            let view: WorkspaceView = client.get(&path(&self.name, "")).await?;
            let mut rules = view.rules;
            if self.no_exclude || !self.exclude.is_empty() {
                rules.exclude = self.exclude;
            }
            rules.ignore_files = self.ignore_files.unwrap_or(rules.ignore_files);
            rules.vcs = self.vcs.unwrap_or(rules.vcs);
            rules.links_outside = self.links_outside.unwrap_or(rules.links_outside);
            Some(rules)
        } else {
            None
        };
        let patch = WorkspacePatch { rules, bytes_max: self.bytes_max };
        let call = self.held.on(Call::json(&patch)?);
        let view: WorkspaceView = client.call(Method::PATCH, &path(&self.name, ""), call).await?;
        changed(context, &view, &format!("Workspace {} is changed.", printable(&view.name, 80)), None)
    }
}
