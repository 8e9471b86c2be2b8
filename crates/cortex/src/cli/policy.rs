//! `cortex policy ls|get|set|allow|deny|diff|test|history|rollback|profile`: one file per verb.

mod allow;
mod deny;
mod diff;
mod get;
mod history;
mod ls;
mod profile;
mod rollback;
mod set;
mod test;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use cortex_core::policy::Document;
use cortex_core::sandbox::{Access, Root};
use cortex_wire::http::{PolicyCompare, PolicyDifference, PolicyView};
use cortex_wire::policy::{self as text, DocumentText, RootText};

use super::{Context, args, ask};
use crate::client::{Client, encode};
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
    Ls(ls::Ls),
    Get(get::Get),
    Set(set::Set),
    Allow(allow::Allow),
    Deny(deny::Deny),
    Diff(diff::Diff),
    Test(test::Test),
    History(history::History),
    Rollback(rollback::Rollback),
    Profile(profile::Profile),
}

impl Policy {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let mut client = context.client()?;
        let node = self.action.node().to_owned();
        match self.action.run(context, &mut client).await {
            Ok(()) => Ok(()),
            Err(failure) => Err(ask::with_nearest(failure, &client, &node).await),
        }
    }
}

impl Action {
    /// The node that it is about, when it is about one.
    fn node(&self) -> &str {
        match self {
            Self::Ls(_) | Self::Profile(_) => "",
            Self::Get(get::Get { node, .. })
            | Self::Set(set::Set { node, .. })
            | Self::Allow(allow::Allow { node, .. })
            | Self::Deny(deny::Deny { node, .. })
            | Self::Diff(diff::Diff { node, .. })
            | Self::Test(test::Test { node, .. })
            | Self::History(history::History { node, .. })
            | Self::Rollback(rollback::Rollback { node, .. }) => node,
        }
    }

    async fn run(self, context: &Context, client: &mut Client) -> Result {
        match self {
            Self::Ls(verb) => verb.run(context, client).await,
            Self::Get(verb) => verb.run(context, client).await,
            Self::Set(verb) => verb.run(context, client).await,
            Self::Allow(verb) => verb.run(context, client).await,
            Self::Deny(verb) => verb.run(context, client).await,
            Self::Diff(verb) => verb.run(context, client).await,
            Self::Test(verb) => verb.run(context, client).await,
            Self::History(verb) => verb.run(context, client).await,
            Self::Rollback(verb) => verb.run(context, client).await,
            Self::Profile(verb) => verb.run(context, client).await,
        }
    }
}

fn path(node: &str) -> String {
    format!("/policies/{}", encode(node))
}

/// Tells that a policy was changed.
fn changed(context: &Context, policy: &PolicyView, what: &str) -> Result {
    if context.output.json {
        return context.output.json(policy);
    }
    context.output.say(&format!("{what} (revision {}).", policy.revision));
    Ok(())
}

/// Shows what setting a node to something would change.
async fn show_difference(
    context: &Context,
    client: &mut Client,
    node: &str,
    title: &str,
    compare: &PolicyCompare,
) -> Result {
    let difference: PolicyDifference = client.post(&format!("{}/diff", path(node)), compare).await?;
    if !context.output.json {
        context.output.say(title);
        difference.lines.iter().for_each(|line| context.output.say(&format!("  {line}")));
    }
    Ok(())
}

/// A document from a file, or from standard input for `-`.
fn read_document(file: &Path) -> Result<DocumentText> {
    let mut bytes = Vec::new();
    let bound = u64::try_from(cortex_core::limits::POLICY_BYTES_MAX).unwrap_or(u64::MAX) + 1;
    let read = if file == Path::new("-") {
        std::io::stdin().lock().take(bound).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(bound).read_to_end(&mut bytes))
    };
    read.map_err(|error| {
        Failure::usage(
            format!("{} cannot be read: {error}.", file.display()),
            "Give the path of a JSON document, or `-` for standard input.",
        )
    })?;
    let document: Document = text::read_document(&bytes)?;
    Ok(DocumentText::from(&document))
}

/// A root, and how it was written.
#[derive(Clone, Debug)]
struct Given {
    text: String,
    root: RootText,
}

/// `PATH[:rw]`: `r` to read (the default), `w` to write, `x` to execute programs below it.
fn root(given: &str) -> std::result::Result<Given, String> {
    let (path, letters) = match given.rsplit_once(':') {
        Some((path, letters)) if matches!(letters, "r" | "rw" | "rx" | "rwx") => (path, letters),
        Some(_) | None => (given, "r"),
    };
    let access = if letters.contains('w') { Access::Write } else { Access::Read };
    let root = Root { path: text::root_path(path), access, exec: letters.contains('x') };
    let document = Document { roots: vec![root.clone()], ..Document::nothing() };
    document.check().map_err(|refusal| refusal.message)?;
    Ok(Given { text: given.to_owned(), root: RootText::from(&root) })
}

/// What is given or taken: a program, a port, or a root as it was written.
fn what(program: Option<&String>, port: Option<u16>, root: Option<&Given>) -> String {
    match (program, port, root) {
        (Some(text), ..) | (None, None, Some(Given { text, .. })) => {
            args::show_argv(std::slice::from_ref(text))
        }
        (None, Some(port), _) => format!("port {port}"),
        (None, None, None) => "nothing".to_owned(),
    }
}

/// Where a document is read from.
#[derive(clap::Args, Debug)]
struct FileArg {
    /// A JSON document, `-` for standard input; `policy get NODE --document` shows one.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_read_with_its_letters_and_refused_when_it_means_nothing() {
        let json = |given: &str| serde_json::to_value(root(given).expect(given).root).expect("JSON");
        for (given, path, access, exec) in [
            ("/srv", "/srv", "read", false),
            ("/srv:rw", "/srv", "write", false),
            ("~/x:rwx", "~/x", "write", true),
            ("work:rx", "work", "read", true),
            ("/srv:a", "/srv:a", "read", false),
        ] {
            let expected = serde_json::json!({"path": path, "access": access, "exec": exec});
            assert_eq!(json(given), expected, "{given}");
        }
        assert_eq!(what(None, None, Some(&root("/srv:rw").expect("a root"))), "/srv:rw");
        for given in ["", "/", "srv", "/a/../b", "~/", "/a//b:rw"] {
            root(given).expect_err(given);
        }
    }
}
