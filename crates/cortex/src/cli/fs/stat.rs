//! `cortex fs stat`.

use cortex_wire::http::EntryView;
use http::Method;

use super::{Files, fresh, show};
use crate::cli::Context;
use crate::client::Call;
use crate::error::Result;

/// Say what a file, folder or link is; a link is not followed.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex fs stat build-2:/srv/app/config.toml --hash")]
pub(super) struct Stat {
    /// The entry.
    #[arg(value_name = "NODE:PATH")]
    pub(super) place: String,
    /// The etag of the file, however large it is: what `--if-match` takes.
    #[arg(long)]
    hash: bool,
    #[command(flatten)]
    from: fresh::From,
}

impl Stat {
    pub(super) async fn run(self, context: &Context, files: &mut Files) -> Result {
        let url = files.url().with("view", "stat").flag("hash", self.hash);
        let url = self.from.on(url);
        let entry: EntryView = files.call(Method::GET, url, Call::default()).await?;
        if let Some(fresh) = &entry.fresh {
            fresh::say(context.output, fresh);
        }
        let terminal = context.output.is_terminal();
        let mut facts = vec![
            ("path", show::name(&files.place.path, terminal).into_owned()),
            ("type", entry.kind.clone()),
            ("size", entry.size.to_string()),
            ("mode", entry.mode.clone()),
            ("changed", entry.mtime.clone()),
            ("owner", format!("{}:{}", entry.uid, entry.gid)),
            ("links", entry.links.to_string()),
        ];
        if let Some(target) = &entry.target {
            facts.push(("leads to", show::name(target, terminal).into_owned()));
        }
        if let Some(etag) = &entry.etag {
            facts.push(("etag", etag.clone()));
        }
        context.output.facts(&entry, &facts)
    }
}
