//! `cortex fs cp`.

use cortex_wire::http::FilePatch;
use http::Method;

use super::show::Came;
use super::{Files, Terms, target};
use crate::cli::Context;
use crate::client::Call;
use crate::error::Result;

/// Copy a file, or with -r a folder, on one node.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex fs cp build-2:/srv/app/config.toml /srv/app/config.toml.bak\n  cortex fs cp build-2:/srv/app /srv/copies/ -r"
)]
pub(super) struct Cp {
    /// What is copied.
    #[arg(value_name = "NODE:SRC")]
    pub(super) place: String,
    /// Where to, on the same node; with a `/` at the end into that folder.
    #[arg(value_name = "[NODE:]DEST")]
    to: String,
    /// A folder with all that is in it.
    #[arg(short, long)]
    recursive: bool,
    /// Replace a file that is there already.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    terms: Terms,
}

impl Cp {
    pub(super) async fn run(self, context: &Context, files: &mut Files) -> Result {
        let to = target(&files.place, &self.to)?;
        let (shown, copy_to) = (to.shown(), Some(to.path));
        let patch =
            FilePatch { copy_to, recursive: self.recursive, replace: self.replace, ..FilePatch::default() };
        let call = self.terms.on(Call::json(&patch)?);
        let came: Came = files.call(Method::PATCH, files.url(), call).await?;
        came.show(context, &format!("copied {} to {shown}", files.place.shown()))
    }
}
