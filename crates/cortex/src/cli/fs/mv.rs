//! `cortex fs mv`.

use cortex_wire::http::FilePatch;
use http::Method;

use super::show::Came;
use super::{Files, Terms, target};
use crate::cli::Context;
use crate::client::Call;
use crate::error::Result;

/// Give a file or folder another path on the same node.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex fs mv build-2:/srv/app/old.toml /srv/app/new.toml")]
pub(super) struct Mv {
    /// The file or folder.
    #[arg(value_name = "NODE:SRC")]
    pub(super) place: String,
    /// Where to, on the same node; with a `/` at the end into that folder.
    #[arg(value_name = "[NODE:]DEST")]
    to: String,
    /// Replace a file that is there already.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    terms: Terms,
}

impl Mv {
    pub(super) async fn run(self, context: &Context, files: &mut Files) -> Result {
        let to = target(&files.place, &self.to)?;
        let (shown, move_to) = (to.shown(), Some(to.path));
        let patch = FilePatch { move_to, replace: self.replace, ..FilePatch::default() };
        let call = self.terms.on(Call::json(&patch)?);
        let came: Came = files.call(Method::PATCH, files.url(), call).await?;
        came.show(context, &format!("moved {} to {shown}", files.place.shown()))
    }
}
