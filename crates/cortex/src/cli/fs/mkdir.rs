//! `cortex fs mkdir`.

use http::Method;

use super::show::Came;
use super::{Files, Key};
use crate::cli::Context;
use crate::client::Call;
use crate::error::Result;

/// Make a folder.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex fs mkdir build-2:/srv/app/data -p")]
pub(super) struct Mkdir {
    /// The folder.
    #[arg(value_name = "NODE:PATH")]
    pub(super) place: String,
    /// Make the folders above it that are missing; one that is there already is good.
    #[arg(short, long)]
    parents: bool,
    /// Its permissions, octal.
    #[arg(long, value_name = "0755", value_parser = super::mode)]
    mode: Option<String>,
    #[command(flatten)]
    key: Key,
}

impl Mkdir {
    pub(super) async fn run(self, context: &Context, files: &mut Files) -> Result {
        let url = files.url().with("kind", "dir").flag("mkdirs", self.parents).maybe("perm", self.mode);
        let came: Came = files.call(Method::PUT, url, self.key.on(Call::default())).await?;
        let made = matches!(&came, Came::Done(done) if done.made > 0);
        let place = files.place.shown();
        came.show(context, &if made { format!("made {place}") } else { format!("{place} is there already") })
    }
}
