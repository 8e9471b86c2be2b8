//! `cortex fs rm`.

use cortex_core::words::count;
use cortex_wire::http::FileDoneView;
use http::Method;

use super::{Files, Terms};
use crate::cli::Context;
use crate::client::Call;
use crate::error::Result;

/// Remove a file or a link, or with -r a folder with all that is in it.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex fs rm build-2:/srv/app/old.toml\n  cortex fs rm build-2:/srv/app/cache -r --dry-run"
)]
pub(super) struct Rm {
    /// What is removed.
    #[arg(value_name = "NODE:PATH")]
    pub(super) place: String,
    /// A folder with all that is in it; how much that is, is shown before.
    #[arg(short, long)]
    recursive: bool,
    /// Only say how much would go.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    terms: Terms,
}

impl Rm {
    pub(super) async fn run(self, context: &Context, files: &mut Files) -> Result {
        let (output, place) = (context.output, files.place.shown());
        if self.dry_run {
            let done = remove(files, self.recursive, true, self.terms.on(Call::default())).await?;
            if output.json {
                return output.json(&done);
            }
            let entries = count(done.removed, "entry", "entries");
            return output.line(&format!("would remove {place}: {entries}; nothing was changed"));
        }
        if self.recursive && !self.yes {
            // Nobody who cannot be asked waits for the count.
            let count = if output.can_ask() {
                let done = remove(files, true, true, Call::default()).await?;
                format!(": {}", count(done.removed, "entry", "entries"))
            } else {
                String::new()
            };
            output.confirm(&format!("Remove {place} and all that is in it{count}?"), false)?;
        }
        let done = remove(files, self.recursive, false, self.terms.on(Call::default())).await?;
        if output.json {
            return output.json(&done);
        }
        output.say(&format!("removed {place}: {}", count(done.removed, "entry", "entries")));
        Ok(())
    }
}

async fn remove(files: &mut Files, recursive: bool, dry_run: bool, call: Call) -> Result<FileDoneView> {
    let url = files.url().flag("recursive", recursive).flag("dry_run", dry_run);
    files.call(Method::DELETE, url, call).await
}
