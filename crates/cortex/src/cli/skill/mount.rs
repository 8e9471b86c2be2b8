//! `cortex skill mount|unmount`.

use cortex_core::name::printable;
use cortex_wire::http::{MountRequest, MountView};
use http::Method;

use super::path;
use crate::cli::{Context, args};
use crate::client::{Call, encode};
use crate::error::Result;

/// Have a folder of a node follow a skill. Nobody but the hub writes it, and nothing of it reaches the library.
///
/// The folder is made when it is not there. What somebody changes in it is kept beside its name, and is shown as
/// drift.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex skill mount deploy build-2:/srv/app/.skills/deploy\n  cortex skill mount deploy build-2:/srv/app/.skills/deploy --revision 3"
)]
pub(super) struct Mount {
    /// The skill.
    #[arg(value_name = "NAME")]
    name: String,
    /// The folder.
    #[arg(value_name = "NODE:PATH")]
    place: String,
    /// Stay at this revision; else it follows the newest one.
    #[arg(long, value_name = "N")]
    revision: Option<u64>,
}

impl Mount {
    pub(super) async fn run(self, context: &Context) -> Result {
        let place = args::place(&self.place)?;
        let shown = place.shown();
        let request = MountRequest { node: place.node, path: place.path, revision: self.revision };
        let mount: MountView =
            context.client()?.post(&format!("{}/mounts", path(&self.name)), &request).await?;
        if context.output.json {
            return context.output.json(&mount);
        }
        let name = printable(&mount.skill, 120);
        let what = mount.pin.map_or_else(|| "follows".to_owned(), |n| format!("stays at revision {n} of"));
        context.output.say(&format!("{shown} {what} {name}. See how it stands: cortex skill show {name}"));
        Ok(())
    }
}

/// Have a folder follow a skill no more. It stays as it is.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex skill unmount deploy build-2:/srv/app/.skills/deploy")]
pub(super) struct Unmount {
    /// The skill.
    #[arg(value_name = "NAME")]
    name: String,
    /// The folder.
    #[arg(value_name = "NODE:PATH")]
    place: String,
}

impl Unmount {
    pub(super) async fn run(self, context: &Context) -> Result {
        let place = args::place(&self.place)?;
        let query = format!("node={}&path={}", encode(&place.node), encode(&place.path));
        let url = format!("{}/mounts?{query}", path(&self.name));
        context.client()?.done(Method::DELETE, &url, Call::default()).await?;
        if context.output.json {
            return context.output.json(&serde_json::json!({"unmounted": [self.place]}));
        }
        let shown = place.shown();
        context.output.say(&format!("{shown} follows nothing any more, and stays as it is, read-only."));
        Ok(())
    }
}

pub(super) const HEAD: [&str; 5] = ["MOUNT", "REVISION", "STATE", "SEEN", "PROBLEM"];

pub(super) fn row(mount: &MountView) -> Vec<String> {
    let pin = if mount.pin.is_some() { " (stays)" } else { "" };
    vec![
        printable(&format!("{}:{}", mount.node, mount.path), 300),
        format!("{}{pin}", mount.revision),
        mount.state.clone(),
        args::age(mount.seen_at.as_deref()),
        args::or_dash(mount.problem.as_ref().map(|problem| problem.message.as_str())),
    ]
}
