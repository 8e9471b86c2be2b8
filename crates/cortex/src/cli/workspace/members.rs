//! `cortex workspace attach|detach`.

use cortex_core::name::printable;
use cortex_wire::http::{MemberRequest, MemberView, WorkspaceView};
use http::Method;

use super::wait::Patient;
use super::{changed, path, place};
use crate::cli::Context;
use crate::cli::args::Place;
use crate::client::{Call, Client, encode};
use crate::error::Result;

/// Make a folder of a node a member of a workspace.
///
/// What lies in the folder already is not lost: what differs from the workspace is kept beside it, or is
/// drift. A folder that is not there is made.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex workspace attach notes build-2:/srv/notes\n  cortex workspace attach shared build-3:/srv/shared --role follower"
)]
pub(super) struct Attach {
    /// The workspace.
    name: String,
    /// The folder.
    #[arg(value_name = "NODE:PATH", value_parser = place)]
    pub(super) place: Place,
    /// What it does: `lead` is the only source, a `peer` gives and takes, a `follower` takes. When missing
    /// `peer` of a workspace of the hub, else `follower`.
    #[arg(long, value_parser = ["lead", "peer", "follower"])]
    role: Option<String>,
    #[command(flatten)]
    patient: Patient,
}

impl Attach {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let shown = self.place.shown();
        let Place { node, path: folder } = self.place;
        let request = MemberRequest { node: node.clone(), path: folder.clone(), role: self.role };
        let view: WorkspaceView = client.post(&path(&self.name, "/members"), &request).await?;
        let view = self.patient.wait(context.output, client, view).await?;
        let is_it = |member: &&MemberView| member.path == folder && member.node == node;
        let role = view.members.iter().find(is_it).map(|member| member.role.as_str());
        let sentence =
            format!("{shown} is a {} of workspace {}.", role.unwrap_or("member"), printable(&view.name, 80));
        changed(context, &view, &sentence, Some(&["cortex", "workspace", "status", &view.name]))
    }
}

/// Make a folder a member no more. It stays as it is.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex workspace detach notes build-2:/srv/notes")]
pub(super) struct Detach {
    /// The workspace.
    name: String,
    /// The member; a node alone is all of its members.
    #[arg(value_name = "NODE[:PATH]")]
    member: String,
}

impl Detach {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let url = path(&self.name, &format!("/members?member={}", encode(&self.member)));
        let view: WorkspaceView = client.call(Method::DELETE, &url, Call::default()).await?;
        let sentence = format!(
            "{} is no member of workspace {}; its folder stays as it is.",
            printable(&self.member, 200),
            printable(&view.name, 80)
        );
        changed(context, &view, &sentence, None)
    }
}
