//! `cortex task schedule add|ls|on|off|rm`.

use cortex_wire::http::{SchedulePatch, ScheduleRequest, ScheduleView};
use http::Method;

use super::add::What;
use crate::cli::{Context, args};
use crate::client::{Call, Client, encode};
use crate::error::Result;

const HEAD: [&str; 5] = ["NAME", "CRON", "ZONE", "NEXT", "WORK"];

/// Make tasks by the clock.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex task schedule add nightly --cron '30 3 * * *' --zone Europe/Berlin -- ./backup\n  cortex task schedule ls\n  cortex task schedule off nightly"
)]
pub(super) struct Schedule {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    Add(Box<Add>),
    /// List schedules.
    #[command(before_help = "Example:\n  cortex task schedule ls")]
    Ls,
    /// Let a schedule make tasks again; ticks that passed meanwhile are none.
    #[command(before_help = "Example:\n  cortex task schedule on nightly")]
    On {
        /// Its name or id.
        name: String,
    },
    /// Let a schedule make no tasks until it is on again.
    #[command(before_help = "Example:\n  cortex task schedule off nightly")]
    Off {
        /// Its name or id.
        name: String,
    },
    /// Remove a schedule. Its tasks stay.
    #[command(before_help = "Example:\n  cortex task schedule rm nightly")]
    Rm {
        /// Its name or id.
        name: String,
    },
}

/// Make a schedule: one task at each of its ticks.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex task schedule add nightly --cron '30 3 * * *' --zone Europe/Berlin -l role=db -- ./backup\n  cortex task schedule add pictures --cron @hourly --missed skip --kind resize"
)]
struct Add {
    /// Its name.
    name: String,
    /// Minute, hour, day of the month, month, day of the week; or @hourly, @daily, @weekly, @monthly.
    #[arg(long, value_name = "TIMES")]
    cron: String,
    /// The time zone, such as Europe/Berlin; UTC when missing.
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// What becomes of ticks that passed while the hub was down: one task for all of them, or none.
    #[arg(long, value_parser = ["once", "skip"], default_value = "once")]
    missed: String,
    #[command(flatten)]
    what: What,
}

impl Schedule {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let output = context.output;
        match self.action {
            Action::Add(add) => {
                let Add { name, cron, zone, missed, what } = *add;
                let request =
                    ScheduleRequest { name, cron, zone, missed: Some(missed), task: what.request()? };
                let made: ScheduleView = client.post("/pool/schedules", &request).await?;
                said(
                    context,
                    &made,
                    &format!("Its first task is made at {}.", moment(made.next_at.as_deref())),
                )
            }
            Action::Ls => {
                let all: Vec<ScheduleView> = client.list("/pool/schedules", usize::MAX).await?;
                let none = "There are no schedules. Next: cortex task schedule add NAME --cron '30 3 * * *' -- COMMAND";
                output.list(&all, &HEAD, row, none)
            }
            Action::On { name } => {
                let schedule = switch(client, &name, true).await?;
                let next = moment(schedule.next_at.as_deref());
                said(context, &schedule, &format!("It is on; its next task is made at {next}."))
            }
            Action::Off { name } => {
                let schedule = switch(client, &name, false).await?;
                said(context, &schedule, "It is off.")
            }
            Action::Rm { name } => {
                let path = format!("/pool/schedules/{}", encode(&name));
                client.done(Method::DELETE, &path, Call::default()).await?;
                if output.json {
                    return output.json(&serde_json::json!({"removed": name}));
                }
                output.say("It is removed. Its tasks stay.");
                Ok(())
            }
        }
    }
}

async fn switch(client: &mut Client, name: &str, on: bool) -> Result<ScheduleView> {
    let path = format!("/pool/schedules/{}", encode(name));
    client.call(Method::PATCH, &path, Call::json(&SchedulePatch { on })?).await
}

fn said(context: &Context, schedule: &ScheduleView, sentence: &str) -> Result {
    if context.output.json {
        return context.output.json(schedule);
    }
    context.output.say(sentence);
    Ok(())
}

fn row(schedule: &ScheduleView) -> Vec<String> {
    let next = if schedule.on { moment(schedule.next_at.as_deref()) } else { "off".to_owned() };
    let work = if schedule.argv.is_empty() { schedule.kind.clone() } else { args::show_argv(&schedule.argv) };
    vec![schedule.name.clone(), schedule.cron.clone(), schedule.zone.clone(), next, work]
}

fn moment(at: Option<&str>) -> String {
    let Some(at) = at else { return "never".to_owned() };
    at.get(..16).unwrap_or(at).replace('T', " ")
}
