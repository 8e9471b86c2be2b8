//! `cortex workspace create`.

use std::path::PathBuf;

use cortex_core::name::printable;
use cortex_wire::http::{WorkspaceRequest, WorkspaceRules, WorkspaceView};

use super::import::Import;
use super::wait::Patient;
use super::{bytes, changed, place};
use crate::cli::Context;
use crate::cli::args::Place;
use crate::client::Client;
use crate::error::Result;

/// Make a workspace: one that the folder of a node leads, or one of the hub, whose copy is the source then.
///
/// One of the hub begins empty, or with the content of a folder. A folder of a node is its first peer from then on.
/// A folder of this machine is read once, and has nothing to do with the workspace afterwards: it begins with the
/// whole folder, or not at all. What cannot be read is named, and has to be left out with --exclude.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex workspace create notes --lead build-1:/srv/notes --exclude target/\n  cortex workspace create shared --from build-1:/srv/shared\n  cortex workspace create site --from ./site"
)]
pub(super) struct Create {
    /// Its name.
    name: String,
    /// The folder that leads it: its changes make revisions, and it is never written.
    #[arg(long, value_name = "NODE:PATH", value_parser = place, conflicts_with = "from")]
    lead: Option<Place>,
    /// The folder with whose content a workspace of the hub begins: of a node, whose folder is its first peer, or of
    /// this machine. One here whose name has a `:` is written as `./NAME`.
    #[arg(long, value_name = "NODE:PATH|DIR", value_parser = source)]
    from: Option<Source>,
    /// Leave this out everywhere, as a line of an ignore file says it; may be repeated.
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
    /// Do not heed `.gitignore` and `.cortexignore` files.
    #[arg(long)]
    no_ignore_files: bool,
    /// Take `.git` and its like too.
    #[arg(long)]
    vcs: bool,
    /// Refuse links that lead out of the folder; they are kept as text otherwise.
    #[arg(long)]
    no_links_outside: bool,
    /// Bytes that one tree may have, such as 2G.
    #[arg(long, value_name = "N", value_parser = bytes)]
    bytes_max: Option<u64>,
    #[command(flatten)]
    patient: Patient,
}

/// What a workspace begins with.
#[derive(Clone, Debug)]
enum Source {
    /// A folder of a node.
    Node(Place),
    /// A folder of this machine.
    Here(PathBuf),
}

/// A `:` in front of every `/` is behind the name of a node, as for `scp`.
fn source(text: &str) -> std::result::Result<Source, String> {
    match text.split_once(':') {
        Some((node, _)) if !node.contains('/') => place(text).map(Source::Node),
        Some(_) | None if text.is_empty() => {
            Err("write it as NODE:PATH, or the path of a folder here".to_owned())
        }
        Some(_) | None => Ok(Source::Here(PathBuf::from(text))),
    }
}

impl Create {
    pub(super) fn place(&self) -> Option<&Place> {
        match (&self.lead, &self.from) {
            (Some(place), _) | (None, Some(Source::Node(place))) => Some(place),
            (None, Some(Source::Here(_)) | None) => None,
        }
    }

    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let text = |place: &Place| format!("{}:{}", place.node, place.path);
        let rules = WorkspaceRules {
            exclude: self.exclude,
            ignore_files: !self.no_ignore_files,
            vcs: self.vcs,
            links_outside: !self.no_links_outside,
        };
        let (name, bytes_max, lead) = (self.name, self.bytes_max, self.lead.as_ref().map(text));
        let (view, of) = match self.from {
            Some(Source::Here(folder)) => {
                let import = Import { name, folder, rules, bytes_max };
                import.run(context, client).await?
            }
            Some(Source::Node(from)) => {
                let from = Some(text(&from));
                let request = WorkspaceRequest { name, lead, from, rules, bytes_max };
                (client.post("/workspaces", &request).await?, String::new())
            }
            None => {
                let request = WorkspaceRequest { name, lead, from: None, rules, bytes_max };
                (client.post("/workspaces", &request).await?, String::new())
            }
        };
        let view: WorkspaceView = self.patient.wait(context.output, client, view).await?;
        let whose = if view.mode == "node" { "a node leads it" } else { "the hub's copy is the source" };
        let sentence = format!("Made workspace {}{of}; {whose}.", printable(&view.name, 80));
        let attach = ["cortex", "workspace", "attach", &view.name, "NODE:PATH"];
        changed(context, &view, &sentence, Some(&attach))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colon_in_front_of_every_slash_is_behind_the_name_of_a_node() {
        for (text, node) in
            [("a:/x", Some("a")), ("./a:b", None), ("/srv/a:b", None), ("مجلد", None), (".", None)]
        {
            let found = match source(text).expect(text) {
                Source::Node(place) => Some(place.node),
                Source::Here(path) => {
                    assert_eq!(path.to_str(), Some(text));
                    None
                }
            };
            assert_eq!(found.as_deref(), node, "{text}");
        }
        for text in ["", "a:x", "a,b:/x", ":/x"] {
            source(text).expect_err(text);
        }
    }
}
