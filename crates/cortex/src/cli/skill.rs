//! `cortex skill ls|show|promote|mount|unmount|rm`: the library of skills.

mod mount;
mod promote;
mod show;

use cortex_core::name::printable;
use cortex_wire::http::SkillView;
use http::Method;

use super::Context;
use super::args::{ACTOR_CHARS_MAX, age, short};
use crate::client::{Call, encode};
use crate::error::Result;

/// Share folders with a SKILL.md: promote them from nodes and workspaces, and read them.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex skill promote deploy --from build-2:/srv/skills/deploy\n  cortex skill ls\n  cortex skill show deploy --text"
)]
pub(crate) struct Skill {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    Ls(Ls),
    Show(show::Show),
    Promote(promote::Promote),
    Mount(mount::Mount),
    Unmount(mount::Unmount),
    Rm(Rm),
}

impl Skill {
    pub(crate) async fn run(self, context: &Context) -> Result {
        match self.action {
            Action::Ls(ls) => ls.run(context).await,
            Action::Show(show) => show.run(context).await,
            Action::Promote(promote) => promote.run(context).await,
            Action::Mount(mount) => mount.run(context).await,
            Action::Unmount(unmount) => unmount.run(context).await,
            Action::Rm(rm) => rm.run(context).await,
        }
    }
}

/// Where a skill is asked for.
fn path(name: &str) -> String {
    format!("/skills/{}", encode(name))
}

/// List the newest revision of each skill.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex skill ls")]
struct Ls {}

impl Ls {
    async fn run(self, context: &Context) -> Result {
        let skills: Vec<SkillView> = context.client()?.list("/skills", usize::MAX).await?;
        context.output.list(
            &skills,
            &["NAME", "REVISION", "PROMOTED", "BY"],
            row,
            "The library is empty. Next: cortex skill promote NAME --from NODE:PATH",
        )
    }
}

fn row(skill: &SkillView) -> Vec<String> {
    let by = short(&printable(&skill.by, usize::MAX), ACTOR_CHARS_MAX);
    vec![skill.name.clone(), skill.revision.to_string(), age(Some(&skill.at)), by]
}

/// Remove a skill from the library, with all its revisions.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex skill rm deploy --yes")]
struct Rm {
    /// The skill.
    #[arg(value_name = "NAME")]
    name: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Rm {
    async fn run(self, context: &Context) -> Result {
        let name = &self.name;
        let shown = printable(name, 120);
        let mut client = context.client()?;
        context.output.confirm(&format!("Remove the skill {shown} with all its revisions?"), self.yes)?;
        client.done(Method::DELETE, &path(name), Call::default()).await?;
        if context.output.json {
            return context.output.json(&serde_json::json!({"removed": [name]}));
        }
        context.output.say(&format!("Removed {shown}."));
        Ok(())
    }
}
