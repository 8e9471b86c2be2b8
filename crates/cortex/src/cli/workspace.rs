//! `cortex workspace create|ls|status|attach|detach|set|diff|resync|wait|lock|unlock|history|restore|rm`. What
//! may be done is judged by the hub; each verb is one call of the HTTP API, or a few.

mod create;
mod diff;
mod history;
mod import;
mod lock;
mod members;
mod resync;
mod set;
mod show;
mod wait;

use cortex_core::name::printable;
use cortex_wire::http::WorkspaceView;
use http::Method;

use super::args::{self, Place, whole_argv};
use super::{Context, ask};
use crate::client::{Call, Client, encode};
use crate::error::{Failure, Result};

/// Keep folders of several nodes the same: a tree of the hub, and the folders that lead, share or follow it.
///
/// With a lead its folder is the source and all others follow. Without one the hub's copy is the source, and
/// changes of each peer go to all others. What a follower changes by itself is drift: it is shown, stays
/// where it is, and reaches nobody.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex workspace create notes --lead build-1:/srv/notes\n  cortex workspace attach notes build-2:/srv/notes\n  cortex workspace status notes"
)]
pub(crate) struct Workspace {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    Create(create::Create),
    Ls(show::Ls),
    Status(show::Status),
    Attach(members::Attach),
    Detach(members::Detach),
    Set(set::Set),
    Diff(diff::Diff),
    Resync(resync::Resync),
    Wait(wait::Wait),
    Lock(lock::Lock),
    Unlock(lock::Unlock),
    History(history::History),
    Restore(history::Restore),
    Rm(Rm),
}

impl Workspace {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let mut client = context.client()?;
        let node = self.action.node().map(str::to_owned);
        let done = match self.action {
            Action::Create(verb) => verb.run(context, &mut client).await,
            Action::Ls(verb) => verb.run(context, &mut client).await,
            Action::Status(verb) => verb.run(context, &mut client).await,
            Action::Attach(verb) => verb.run(context, &mut client).await,
            Action::Detach(verb) => verb.run(context, &mut client).await,
            Action::Set(verb) => verb.run(context, &mut client).await,
            Action::Diff(verb) => verb.run(context, &mut client).await,
            Action::Resync(verb) => verb.run(context, &mut client).await,
            Action::Wait(verb) => verb.run(context, &mut client).await,
            Action::Lock(verb) => verb.run(context, &mut client).await,
            Action::Unlock(verb) => verb.run(context, &mut client).await,
            Action::History(verb) => verb.run(context, &mut client).await,
            Action::Restore(verb) => verb.run(context, &mut client).await,
            Action::Rm(verb) => verb.run(context, &mut client).await,
        };
        match (done, node) {
            (Err(failure), Some(node)) => Err(ask::with_nearest(failure, &client, &node).await),
            (done, _) => done,
        }
    }
}

impl Action {
    /// The node that is named, where a name that is unknown is worth a second look.
    fn node(&self) -> Option<&str> {
        let place = match self {
            Self::Create(verb) => verb.place(),
            Self::Attach(verb) => Some(&verb.place),
            Self::Ls(_)
            | Self::Status(_)
            | Self::Detach(_)
            | Self::Set(_)
            | Self::Diff(_)
            | Self::Resync(_)
            | Self::Wait(_)
            | Self::Lock(_)
            | Self::Unlock(_)
            | Self::History(_)
            | Self::Restore(_)
            | Self::Rm(_) => None,
        };
        place.map(|place: &Place| place.node.as_str())
    }
}

/// End a workspace. The folders of its members stay as they are.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex workspace rm notes --yes")]
struct Rm {
    /// Its name.
    name: String,
    /// Go ahead without being asked.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    held: Held,
}

impl Rm {
    async fn run(self, context: &Context, client: &mut Client) -> Result {
        let shown = printable(&self.name, 80);
        let question = format!("End workspace {shown}? Its folders stay; its history is not shown any more.");
        context.output.confirm(&question, self.yes)?;
        client.done(Method::DELETE, &path(&self.name, ""), self.held.on(Call::default())).await?;
        if context.output.json {
            return context.output.json(&serde_json::json!({"removed": self.name}));
        }
        context
            .output
            .say(&format!("Workspace {shown} has ended; the folders of its members stay as they are."));
        Ok(())
    }
}

/// The lock of the workspace that the caller holds.
#[derive(clap::Args, Debug)]
struct Held {
    /// The lock that you hold, by the number that `cortex workspace lock` printed.
    #[arg(long = "lock", value_name = "EPOCH")]
    epoch: Option<u64>,
}

impl Held {
    fn on(&self, call: Call) -> Call {
        match self.epoch {
            Some(epoch) => call.header("cortex-lock", epoch.to_string()),
            None => call,
        }
    }
}

fn path(name: &str, rest: &str) -> String {
    format!("/workspaces/{}{rest}", encode(name))
}

/// A place, as clap wants its errors.
fn place(text: &str) -> std::result::Result<Place, String> {
    args::place(text).map_err(|failure| match failure {
        Failure::Refused(refused) => format!("{} {}", refused.problem.message, refused.problem.hint),
        Failure::Exit(_) => "write it as NODE:PATH".to_owned(),
    })
}

/// Bytes, with a unit or without one.
fn bytes(text: &str) -> std::result::Result<u64, String> {
    let bad = || format!("`{}` is no number of bytes; write 500M, 2G or 1073741824", printable(text, 40));
    args::bytes(text).ok_or_else(bad)
}

/// What came of a change: the workspace with `--json`, else a sentence, and what is to be typed next.
fn changed(context: &Context, view: &WorkspaceView, sentence: &str, next: Option<&[&str]>) -> Result {
    if context.output.json {
        return context.output.json(view);
    }
    context.output.say(sentence);
    if let Some(next) = next {
        let argv: Vec<String> = next.iter().map(|word| (*word).to_owned()).collect();
        context.output.say(&format!("Next: {}", whole_argv(&argv)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_have_a_unit_or_none() {
        for (text, expected) in
            [("1", Some(1)), ("2k", Some(2048)), ("3M", Some(3 << 20)), ("1G", Some(1 << 30))]
        {
            assert_eq!(bytes(text).ok(), expected, "{text}");
        }
        for text in ["", "k", "-1", "1.5G", "99999999999G", "1T", "x"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
