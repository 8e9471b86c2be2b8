//! `cortex policy diff`.

use cortex_wire::http::{PolicyCompare, PolicyDifference};

use super::{FileArg, path, read_document};
use crate::cli::Context;
use crate::client::Client;
use crate::error::Result;

/// Say what setting a node to a profile, a document or an earlier revision would change.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex policy diff build-2 dev\n  cortex policy diff build-2 --revision 4",
    override_usage = "cortex policy diff [OPTIONS] <NODE> <PROFILE|--file <FILE>|--revision <REVISION>>",
    group(clap::ArgGroup::new("what").required(true).args(["profile", "file", "revision"]))
)]
pub(super) struct Diff {
    /// The node.
    pub(super) node: String,
    /// A profile.
    profile: Option<String>,
    #[command(flatten)]
    file: FileArg,
    /// An earlier revision of `cortex policy history`.
    #[arg(long)]
    revision: Option<u64>,
}

impl Diff {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let document = self.file.file.as_deref().map(read_document).transpose()?;
        let compare = PolicyCompare { profile: self.profile, document, revision: self.revision };
        let difference: PolicyDifference =
            client.post(&format!("{}/diff", path(&self.node)), &compare).await?;
        let output = context.output;
        if output.json {
            return output.json(&difference);
        }
        difference.lines.iter().try_for_each(|line| output.line(line))
    }
}
