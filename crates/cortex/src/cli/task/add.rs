//! `cortex task add`: a task from arguments, and with `--wait` what comes of it.

use std::io::Read as _;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cortex_core::{Code, Refusal};
use cortex_wire::http::{TaskBackoff, TaskConcurrency, TaskRequest, TaskView};
use http::Method;

use super::follow::follow;
use crate::cli::watch::Patience;
use crate::cli::{Context, args};
use crate::client::{Call, Client};
use crate::duration;
use crate::error::{Failure, Result};

/// Add a task: a command for nodes, or with --kind a payload for workers that ask for it.
///
/// With --wait the exit code is that of the command; 124 when it did not start in its time, 1 when it was
/// cancelled, 255 when nobody saw how its last attempt ended.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex task add -l role=ci --wait -- cargo test\n  cortex task add --priority 8 --attempts 5 --run-limit 10m --key nightly-2030-01-31 -- ./nightly\n  cortex task add --concurrency deploy=1 --not-before 30m -- ./deploy\n  cortex task add --kind resize --payload-file job.json"
)]
pub(super) struct Add {
    #[command(flatten)]
    what: What,
    /// A task that must be done before; may be repeated.
    #[arg(long, value_name = "ID")]
    after: Vec<String>,
    /// Your own key: the same key is the same task.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Not before that moment (RFC 3339), or not before that time has passed, such as 30m.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    not_before: Option<String>,
    /// Stay until it has ended: show its output, and leave with its exit code.
    #[arg(long)]
    wait: bool,
}

/// What a task is, whenever it is made.
#[derive(clap::Args, Debug)]
pub(super) struct What {
    /// Labels that its node must have, such as role=ci,os=linux.
    #[arg(short = 'l', long, value_name = "SEL", value_parser = args::selector)]
    selector: Option<String>,
    /// Labels of nodes that are asked first.
    #[arg(long, value_name = "SEL", value_parser = args::selector)]
    prefer: Option<String>,
    /// How soon: 0 (last) to 8 (first), 5 when missing; 9 is for administrators.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: Option<u8>,
    /// Length of its lease: a worker that is silent for longer has lost it. 5m when missing.
    #[arg(long, value_name = "SPAN", value_parser = args::span_ms)]
    lease: Option<u64>,
    /// End each attempt after that time; it counts as failed.
    #[arg(long, value_name = "SPAN", value_parser = args::span_ms)]
    run_limit: Option<u64>,
    /// Attempts in all; 3 when missing.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    attempts: Option<u32>,
    /// Wait after the first failed attempt; it doubles up to 5m. 5s when missing.
    #[arg(long, value_name = "SPAN", value_parser = args::span_ms)]
    backoff: Option<u64>,
    /// It must start in that time, or it expires.
    #[arg(long, value_name = "SPAN", value_parser = args::span_ms)]
    start_within: Option<u64>,
    /// That time begins anew while no node is enrolled that could have it.
    #[arg(long, requires = "start_within")]
    start_within_pauses: bool,
    /// At most N tasks with this key at once, whoever submitted them.
    #[arg(long, value_name = "KEY=N", value_parser = concurrency)]
    concurrency: Option<TaskConcurrency>,
    /// A label for people and lists; may be repeated.
    #[arg(long = "label", value_name = "K=V", value_parser = args::label)]
    labels: Vec<(String, String)>,
    /// Working directory on the node, an absolute path.
    #[arg(long, value_name = "DIR", conflicts_with = "kind")]
    cwd: Option<String>,
    /// Set a variable for the command; may be repeated.
    #[arg(long = "env", value_name = "K=V", value_parser = args::variable, conflicts_with = "kind")]
    env: Vec<(String, String)>,
    /// Of a payload: which workers may have it.
    #[arg(long, value_name = "KIND", conflicts_with_all = ["argv", "selector", "prefer", "run_limit"])]
    kind: Option<String>,
    /// Of a payload: the file with its bytes; `-` is standard input.
    #[arg(long, value_name = "FILE", requires = "kind")]
    payload_file: Option<PathBuf>,
    /// The program and its arguments, after `--`. No shell sees them.
    #[arg(last = true, required_unless_present = "kind", value_name = "ARGV")]
    argv: Vec<String>,
}

impl Add {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let (output, wait) = (context.output, self.wait);
        let task = submit(context, client, &self.request()?).await?;
        if output.json {
            output.json(&task)?;
        } else if wait {
            output.say(&format!("Task {} is {}.", task.id, task.state));
        } else {
            output.line(&task.id)?;
            output.say(&format!("It is {}. Look: cortex task get {}", task.state, task.id));
        }
        if wait { follow(context, client, &task.id).await } else { Ok(()) }
    }

    fn request(self) -> Result<TaskRequest> {
        Ok(TaskRequest {
            after: self.after,
            not_before: self.not_before,
            key: Some(self.key.map_or_else(fresh_key, Ok)?),
            ..self.what.request()?
        })
    }
}

impl What {
    pub(super) fn request(self) -> Result<TaskRequest> {
        let payload = self
            .payload_file
            .as_deref()
            .map(|path| read(path, cortex_core::limits::PAYLOAD_BYTES_MAX))
            .transpose()?;
        let (payload, payload_base64) = match payload.map(String::from_utf8) {
            Some(Ok(text)) => (Some(text), None),
            Some(Err(bytes)) => (None, Some(STANDARD.encode(bytes.as_bytes()))),
            None => (None, None),
        };
        Ok(TaskRequest {
            argv: self.argv,
            cwd: self.cwd,
            env: self.env.into_iter().collect(),
            run_limit_ms: self.run_limit,
            kind: self.kind,
            payload,
            payload_base64,
            selector: self.selector,
            prefer: self.prefer,
            priority: self.priority,
            attempts: self.attempts,
            backoff: self.backoff.map(|ms| TaskBackoff { initial_ms: Some(ms), ..TaskBackoff::default() }),
            start_within_ms: self.start_within,
            start_within_pauses: self.start_within_pauses,
            lease_ms: self.lease,
            concurrency: self.concurrency,
            labels: self.labels.into_iter().collect(),
            ..TaskRequest::default()
        })
    }
}

/// Submits it. When the answer is lost on the way it is sent again: by its key the hub knows it.
async fn submit(context: &Context, client: &mut Client, request: &TaskRequest) -> Result<TaskView> {
    let mut patience = Patience::new(client.target().reconnect_max);
    let mut sent = false;
    loop {
        let call = Call::json(request)?;
        let failure = match client.call(Method::POST, "/pool/tasks", call).await {
            Ok(task) => return Ok(task),
            Err(failure) => failure,
        };
        if !sent && crate::client::was_sent(&failure) {
            context.output.say("The connection to the hub broke before its answer. Asking again …");
            sent = true;
        }
        if !sent || !failure.is_transport() || !patience.wait(false).await {
            return Err(failure);
        }
    }
}

fn fresh_key() -> Result<String> {
    let mut random = [0; 16];
    getrandom::fill(&mut random)
        .map_err(|error| Refusal::new(Code::Internal, format!("No random numbers: {error}.")))?;
    Ok(uuid::Builder::from_random_bytes(random).into_uuid().to_string())
}

/// A file, `-` for standard input; at most one byte more than may be, so that the hub says so.
pub(super) fn read(path: &std::path::Path, bytes_max: usize) -> Result<Vec<u8>> {
    let most = bytes_max as u64 + 1;
    let mut bytes = Vec::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().take(most).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes))
    };
    read.map(|_| bytes).map_err(|error| {
        Failure::usage(
            format!("`{}` cannot be read: {error}.", path.display()),
            "Name a file that is there, or `-` for standard input.",
        )
    })
}

fn concurrency(text: &str) -> std::result::Result<TaskConcurrency, String> {
    let wrong = || "write it as KEY=N, such as deploy=1".to_owned();
    let (key, limit) = text.rsplit_once('=').ok_or_else(wrong)?;
    let limit = limit.parse().map_err(|_| wrong())?;
    Ok(TaskConcurrency { key: key.to_owned(), limit })
}

/// A moment, or a time from now.
fn moment(text: &str) -> std::result::Result<String, String> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(at.to_string());
    }
    let span = duration::parse(text)
        .map_err(|_| "write a moment such as 2030-01-31T08:00:00Z, or a time such as 30m".to_owned())?;
    let at = jiff::Timestamp::now().checked_add(span).map_err(|_| "it is too far away".to_owned())?;
    Ok(at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_hold_equal_signs_and_its_number_is_the_last_part() {
        let read = concurrency("db=main=2").expect("good");
        assert_eq!((read.key.as_str(), read.limit), ("db=main", 2));
        for text in ["deploy", "deploy=", "deploy=many", "deploy=-1"] {
            assert!(concurrency(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_moment_is_one_or_a_time_from_now() {
        assert_eq!(moment("2030-01-31T08:00:00Z").expect("a moment"), "2030-01-31T08:00:00Z");
        let soon: jiff::Timestamp = moment("30m").expect("a span").parse().expect("a moment");
        let away = soon.as_second() - jiff::Timestamp::now().as_second();
        assert!((1_795..=1_800).contains(&away), "{away}");
        assert!(moment("tomorrow").is_err());
    }
}
