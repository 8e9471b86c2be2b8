//! The command line: one file per command, which holds its arguments, its call and its output.
//! Doc comments on arguments are the help texts.

mod args;
mod ask;
mod audit;
mod completions;
mod config;
mod consent;
mod exec;
mod fs;
mod hub;
mod interrupt;
mod invite;
mod join;
mod lock;
mod login;
mod node;
mod node_start;
mod password;
mod policy;
mod pull;
mod push;
mod run;
mod skill;
mod status;
mod task;
mod token;
mod transfer;
mod up;
mod user;
mod version;
mod watch;
mod workspace;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use cortex_core::{Code, Refusal};

use crate::client::{Client, Target};
use crate::config::{Config, Flag};
use crate::error::{Failure, Result};
use crate::logging::{self, Voice};
use crate::output::Output;

/// How long events are waited for before the hub is asked once more: a hub that vanished without
/// a word ends its stream by nothing, and is found out by not answering.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Hands on every machine you have, from one self-hosted place.
#[derive(Parser, Debug)]
#[command(
    name = "cortex",
    version,
    max_term_width = 110,
    before_help = "Example:\n  cortex up                          # a hub and a node on this machine, to try things out\n  cortex exec build-2 -- cargo test  # exit code and output are the remote ones",
    after_help = "Results go to standard output, talk to standard error. Every command takes --json.\nExit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 authentication, 5 denied by policy, 6 consent pending,\n7 node offline, 8 conflict, 64 configuration, 124 timeout; `exec` passes the remote code, 255 is the transport."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

/// What every command takes.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct Global {
    /// Print results as JSON; a refusal is the error object.
    #[arg(long, global = true)]
    json: bool,
    /// Read this configuration file.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the hub [CORTEX_HUB; default http://127.0.0.1:7440].
    #[arg(long = "hub-url", global = true, value_name = "URL")]
    hub_url: Option<String>,
    /// File that holds the API token [CORTEX_TOKEN_FILE].
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<String>,
}

#[derive(Subcommand, Debug)]
enum Command {
    Up(up::Up),
    Hub(hub::Hub),
    Node(node::Node),
    Join(join::Join),
    Invite(invite::Invite),
    Exec(exec::Exec),
    Consent(consent::Consent),
    Run(run::Run),
    Fs(Box<fs::Fs>),
    Push(Box<push::Push>),
    Pull(Box<pull::Pull>),
    Transfer(transfer::Transfer),
    Workspace(Box<workspace::Workspace>),
    Skill(skill::Skill),
    Task(Box<task::Task>),
    Policy(policy::Policy),
    Token(token::Token),
    Lock(lock::Lock),
    User(user::User),
    Login(login::Login),
    Logout(login::Logout),
    Audit(audit::Audit),
    Status(status::Status),
    Config(config::ConfigCommand),
    Completions(completions::Completions),
    Version(version::Version),
}

impl Command {
    /// Whether it is a question to the hub, or serves.
    const fn voice(&self) -> Voice {
        match self {
            Self::Up(_) | Self::Hub(_) | Self::Join(_) => Voice::Server,
            Self::Node(node) if node.serves() => Voice::Server,
            Self::Node(_)
            | Self::Invite(_)
            | Self::Exec(_)
            | Self::Consent(_)
            | Self::Run(_)
            | Self::Fs(_)
            | Self::Push(_)
            | Self::Pull(_)
            | Self::Transfer(_)
            | Self::Workspace(_)
            | Self::Skill(_)
            | Self::Task(_)
            | Self::Policy(_)
            | Self::Token(_)
            | Self::Lock(_)
            | Self::User(_)
            | Self::Login(_)
            | Self::Logout(_)
            | Self::Audit(_)
            | Self::Status(_)
            | Self::Config(_)
            | Self::Completions(_)
            | Self::Version(_) => Voice::Client,
        }
    }
}

/// What a command may use.
pub(crate) struct Context {
    /// What was given before and after the command.
    global: Global,
    /// How to speak.
    pub(crate) output: Output,
}

impl Context {
    /// The configuration with the flags of a command on top.
    pub(crate) fn config(&self, mut flags: Vec<Flag>) -> Result<Config> {
        flags.push(("client.hub", "--hub-url", self.global.hub_url.clone()));
        flags.push(("client.token_file", "--token-file", self.global.token_file.clone()));
        Ok(Config::load(self.global.config.as_deref(), flags)?)
    }

    /// A client for the configured hub.
    pub(crate) fn client(&self) -> Result<Client> {
        Ok(Client::new(Target::new(&self.config(Vec::new())?, self.output)?))
    }
}

/// Reads the command line. Secrets in it are refused before anything can repeat them.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> (Output, Result<Cli>) {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let ours = arguments.iter().take_while(|argument| *argument != "--");
    let output = Output::new(ours.clone().any(|argument| argument == "--json"));
    if let Err(failure) = no_secrets(ours) {
        return (output, Err(failure));
    }
    let parsed = Cli::command().try_get_matches_from(arguments).and_then(|m| Cli::from_arg_matches(&m));
    (output, parsed.map_err(|error| usage(&error, output)))
}

/// Runs the command on a runtime that fits it: one thread for a question to the hub, all
/// processors for the hub and for nodes.
pub(crate) fn run(cli: Cli, output: Output) -> Result {
    let voice = cli.command.voice();
    let mut builder = if voice == Voice::Client {
        tokio::runtime::Builder::new_current_thread()
    } else {
        // Only these speak TLS; a client saves the time.
        crate::serve::install_crypto();
        tokio::runtime::Builder::new_multi_thread()
    };
    logging::start(voice);
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| Refusal::new(Code::Internal, format!("The runtime cannot start: {error}.")))?;
    let context = Context { global: cli.global, output };
    let result = runtime.block_on(dispatch(cli.command, &context));
    runtime.shutdown_background();
    result
}

async fn dispatch(command: Command, context: &Context) -> Result {
    match command {
        Command::Up(up) => up.run(context).await,
        Command::Hub(hub) => hub.run(context).await,
        Command::Node(node) => node.run(context).await,
        Command::Join(join) => join.run(context).await,
        Command::Invite(invite) => invite.run(context).await,
        Command::Exec(exec) => exec.run(context).await,
        Command::Consent(consent) => consent.run(context).await,
        Command::Run(run) => run.run(context).await,
        Command::Fs(fs) => fs.run(context).await,
        Command::Push(push) => push.run(context).await,
        Command::Pull(pull) => pull.run(context).await,
        Command::Transfer(transfer) => transfer.run(context).await,
        Command::Workspace(workspace) => workspace.run(context).await,
        Command::Skill(skill) => skill.run(context).await,
        Command::Task(task) => task.run(context).await,
        Command::Policy(policy) => policy.run(context).await,
        Command::Token(token) => token.run(context).await,
        Command::Lock(lock) => lock.run(context).await,
        Command::User(user) => user.run(context).await,
        Command::Login(login) => login.run(context).await,
        Command::Logout(logout) => logout.run(context).await,
        Command::Audit(audit) => audit.run(context).await,
        Command::Status(status) => status.run(context).await,
        Command::Config(config) => config.run(context),
        Command::Completions(completions) => completions.run(context),
        Command::Version(version) => version.run(context),
    }
}

/// Arguments can be seen by everybody on the machine: a secret there is refused (ABUSE 88), and
/// never repeated in the answer.
fn no_secrets<'a>(arguments: impl Iterator<Item = &'a OsString>) -> Result {
    for argument in arguments.skip(1) {
        let text = argument.to_string_lossy();
        if text == "--password" || text.starts_with("--password=") {
            return Err(Failure::usage(
                "A password is not taken as an argument: everybody on this machine could see it.",
                "Give `--password-file FILE`, or `--password-file -` for standard input.",
            ));
        }
        if text == "--token" || text.starts_with("--token=") {
            return Err(Failure::usage(
                "A token is not taken as an argument: everybody on this machine could see it.",
                "Put it into a file of mode 0600 and point CORTEX_TOKEN_FILE or --token-file at it.",
            ));
        }
        if text.contains("CXI1.") {
            return Err(Failure::usage(
                "An invite is not taken as an argument: everybody on this machine could see it.",
                "Put it into a file and give `--invite-file FILE`, or `--invite-file -` for standard input; make a new one with `cortex invite`, since this one was shown.",
            ));
        }
        if text.contains("cxt_") || text.contains("cxs_") {
            return Err(Failure::usage(
                "An argument looks like a token: everybody on this machine could see it.",
                "Put it into a file of mode 0600, point CORTEX_TOKEN_FILE at it, and end the one that was shown with `cortex token revoke` or `cortex logout`.",
            ));
        }
    }
    Ok(())
}

/// Help and version are results; everything else is wrong use.
fn usage(error: &clap::Error, output: Output) -> Failure {
    if !error.use_stderr() {
        let text = error.render();
        let shown = if output.colour { text.ansi().to_string() } else { text.to_string() };
        return output.bytes(shown.as_bytes()).err().unwrap_or(Failure::Exit(0));
    }
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return incomplete(error, output);
    }
    let text = error.render().to_string();
    let (message, rest) = text.trim().split_once("\n\n").unwrap_or((text.trim(), ""));
    let message = message.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ");
    let rest = rest.trim();
    let hint = if rest.is_empty() { "Run `cortex --help`.".to_owned() } else { one_line(rest) };
    Failure::usage(message, hint)
}

/// A command without what has to follow: people see its help, programs the error object.
fn incomplete(error: &clap::Error, output: Output) -> Failure {
    if output.json {
        return Failure::usage(
            "The command is not complete.",
            "Run it with `--help`, and add what has to follow.",
        );
    }
    output.say(error.render().to_string().trim_end());
    Failure::Exit(2)
}

fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let joined = lines.collect::<Vec<_>>().join(" · ");
    joined.replace("For more information, try '--help'.", "Run it with `--help` for examples.")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<(String, String)>) {
        let path = format!("{path} {}", command.get_name());
        let example = command.get_before_help().map(ToString::to_string).unwrap_or_default();
        found.push((path.trim().to_owned(), example));
        for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
            leaves(below, &path, found);
        }
    }

    #[test]
    fn the_help_of_every_command_opens_with_an_example_of_itself() {
        let mut found = Vec::new();
        leaves(&Cli::command(), "", &mut found);
        assert!(found.len() > 25, "the commands of UX.md are there");
        for (path, example) in found {
            assert!(example.starts_with("Example"), "`{path}` has no example");
            assert!(example.contains(&path), "the example of `{path}` shows something else: {example}");
        }
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_secret_in_an_argument_is_refused_and_never_repeated() {
        for argument in [
            "--token",
            "--token=abc",
            "CXI1.aa.bb.cc",
            "--invite-file=CXI1.aa",
            "cxt_canary",
            "cxs_canary",
            "--password",
            "--password=abc",
        ] {
            let (_, parsed) = parse(["cortex", "status", argument].map(OsString::from));
            let failure = parsed.expect_err("a secret");
            assert_eq!(failure.exit(), 2, "{argument}");
            let shown = format!("{failure:?}");
            assert!(!["CXI1.aa", "_canary", "abc"].iter().any(|secret| shown.contains(secret)), "{shown}");
        }
    }

    #[test]
    fn what_follows_the_dashes_belongs_to_the_remote_program() {
        let (output, parsed) =
            parse(["cortex", "exec", "a", "--", "x", "--token", "t", "--json"].map(OsString::from));
        assert!(parsed.is_ok() && !output.json);
    }
}
