//! `cortex workspace diff`.

use cortex_wire::http::{DriftPathView, DriftView};

use super::path;
use crate::cli::Context;
use crate::cli::fs::show;
use crate::client::{Client, encode};
use crate::error::{Failure, Result};
use crate::output::Output;

/// Show in what folders differ from the workspace, as their nodes say at this moment.
///
/// `-` is the workspace's, `+` the member's. Binary and long files are named.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex workspace diff notes\n  cortex workspace diff notes build-2 --stat"
)]
pub(super) struct Diff {
    /// The workspace.
    name: String,
    /// Only these members; a node alone is all of its members.
    #[arg(value_name = "NODE[:PATH]")]
    members: Vec<String>,
    /// Only name what differs: M changed, A only the member has it, D only the workspace.
    #[arg(long)]
    stat: bool,
}

impl Diff {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let queries: Vec<String> = if self.members.is_empty() {
            vec![String::new()]
        } else {
            self.members.iter().map(|member| format!("&member={}", encode(member))).collect()
        };
        let mut all: Vec<DriftView> = Vec::new();
        for query in queries {
            let url = path(&self.name, &format!("/drift?diff={}{query}", !self.stat));
            let found: Vec<DriftView> = client.get(&url).await?;
            for drift in found {
                // A member that was named twice is shown once.
                if !all.iter().any(|known| known.member == drift.member) {
                    all.push(drift);
                }
            }
        }
        let output = context.output;
        if output.json {
            output.json(&all)?;
        } else {
            all.iter().try_for_each(|drift| self.show(drift, output))?;
            if all.iter().all(|drift| drift.paths.is_empty() && drift.error.is_none()) {
                output.say("No folder differs.");
            }
        }
        // With `--json` the reason stands with its member.
        match all.into_iter().find_map(|drift| drift.error) {
            Some(problem) if output.json => Err(Failure::Exit(Failure::from(problem).exit())),
            Some(problem) => Err(problem.into()),
            None => Ok(()),
        }
    }

    fn show(&self, drift: &DriftView, output: Output) -> Result {
        let terminal = output.is_terminal();
        let member = show::name(&drift.member, terminal).into_owned();
        if let Some(problem) = &drift.error {
            output.say(&format!("{member}: {} {}", problem.message, problem.hint));
            return Ok(());
        }
        for one in &drift.paths {
            match one.diff.as_deref().filter(|diff| !diff.is_empty() && !self.stat) {
                Some(diff) => {
                    output.bytes(show::difference(diff, output).as_bytes())?;
                    if one.diff_cut {
                        output.say(&format!(
                            "The difference of {} is longer; this is its beginning.",
                            one.path
                        ));
                    }
                }
                None => output.line(&named(one, &member, terminal))?,
            }
        }
        if drift.cut {
            output.say(&format!("{member}: more paths differ; these are the first {}.", drift.paths.len()));
        }
        Ok(())
    }
}

/// One path that is only named.
fn named(one: &DriftPathView, member: &str, terminal: bool) -> String {
    let letter = match (&one.hub, &one.node) {
        (None, _) => 'A',
        (Some(_), None) => 'D',
        (Some(_), Some(_)) => 'M',
    };
    let kind = |side: &Option<String>| {
        side.as_deref().filter(|side| *side == "dir" || *side == "link").map(str::to_owned)
    };
    let note = match (kind(&one.hub), kind(&one.node)) {
        (None, None) => String::new(),
        (Some(hub), Some(node)) if hub == node => format!("  ({hub})"),
        (Some(one), None) | (None, Some(one)) if letter != 'M' => format!("  ({one})"),
        (hub, node) => {
            let word = |kind: Option<String>| kind.unwrap_or_else(|| "file".to_owned());
            format!("  ({} there, {} here)", word(hub), word(node))
        }
    };
    format!("{letter}  {member}/{}{note}", show::name(&one.path, terminal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_named_says_who_has_what() {
        let view = |hub: Option<&str>, node: Option<&str>| DriftPathView {
            path: "ملف".to_owned(),
            hub: hub.map(str::to_owned),
            node: node.map(str::to_owned),
            diff: None,
            diff_cut: false,
        };
        for (hub, node, expected) in [
            (Some("h"), Some("n"), "M  a:/x/ملف"),
            (None, Some("n"), "A  a:/x/ملف"),
            (Some("dir"), None, "D  a:/x/ملف  (dir)"),
            (Some("link"), Some("link"), "M  a:/x/ملف  (link)"),
            (Some("dir"), Some("n"), "M  a:/x/ملف  (dir there, file here)"),
        ] {
            assert_eq!(named(&view(hub, node), "a:/x", false), expected);
        }
    }
}
