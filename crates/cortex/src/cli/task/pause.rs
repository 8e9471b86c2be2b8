//! `cortex task pause|drain|resume|pauses`: parts of the pool that stand still.

use cortex_wire::http::{PauseRequest, PauseView};
use http::Method;

use crate::cli::{Context, args};
use crate::client::{Call, Client, encode};
use crate::error::Result;

const HEAD: [&str; 5] = ["PART", "SINCE", "BY", "DRAINED", "MESSAGE"];

/// Let a part of the pool stand still: nothing new is handed out there, and what runs goes on.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex task pause node:build-2 --message 'new disk'\n  cortex task pause kind:resize"
)]
pub(super) struct Pause {
    /// `node:NAME`, `label:KEY=VALUE` or `kind:KIND`; `kind:command` is all commands.
    part: String,
    /// What those who wait are told.
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
}

/// Let a part of the pool stand still, and give what is worked on there to others.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex task drain node:build-2 --within 10m")]
pub(super) struct Drain {
    /// `node:NAME`, `label:KEY=VALUE` or `kind:KIND`.
    part: String,
    /// What is worked on may end by itself in that time; then it is ended and given to others.
    #[arg(long, value_name = "SPAN", value_parser = args::span_ms, default_value = "5m")]
    within: u64,
    /// What those who wait are told.
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
}

/// Let a part of the pool go on.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex task resume node:build-2")]
pub(super) struct Resume {
    /// The part, as it was paused.
    part: String,
}

impl Pause {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let Self { part, message } = self;
        stop(context, client, &PauseRequest { part, message, drain_ms: None }).await
    }
}

impl Drain {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let Self { part, within, message } = self;
        stop(context, client, &PauseRequest { part, message, drain_ms: Some(within) }).await
    }
}

impl Resume {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let path = format!("/pool/pauses/{}", encode(&self.part));
        client.done(Method::DELETE, &path, Call::default()).await?;
        if context.output.json {
            return context.output.json(&serde_json::json!({"resumed": self.part}));
        }
        context.output.say("It goes on.");
        Ok(())
    }
}

/// Lists what stands still.
pub(super) async fn list(context: &Context, client: &mut Client) -> Result {
    let all: Vec<PauseView> = client.list("/pool/pauses", usize::MAX).await?;
    context.output.list(&all, &HEAD, row, "Nothing stands still. Next: cortex task pause node:NAME")
}

async fn stop(context: &Context, client: &mut Client, request: &PauseRequest) -> Result {
    let pause: PauseView = client.post("/pool/pauses", request).await?;
    if context.output.json {
        return context.output.json(&pause);
    }
    let shown = shown(&pause);
    context
        .output
        .say(&format!("Nothing new is handed out there. Let it go on with: cortex task resume {shown}"));
    Ok(())
}

fn shown(pause: &PauseView) -> String {
    pause.node.as_ref().map_or_else(|| pause.part.clone(), |node| format!("node:{node}"))
}

fn row(pause: &PauseView) -> Vec<String> {
    vec![
        shown(pause),
        args::age(Some(&pause.since)),
        args::short(&pause.by, args::ACTOR_CHARS_MAX),
        pause
            .drained_at
            .as_deref()
            .map_or_else(|| "-".to_owned(), |at| at.get(..16).unwrap_or(at).replace('T', " ")),
        args::or_dash(pause.message.as_deref()),
    ]
}
