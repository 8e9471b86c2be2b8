//! `cortex`: the hub, a node, and every command for people and scripts, in one program.
//!
//! Starts things in the right order and turns how a command ends into the exit status. It holds
//! no logic of its own.

mod cli;
mod client;
mod config;
mod duration;
mod env;
mod error;
#[cfg(feature = "failpoints")]
mod kills;
mod logging;
mod output;
mod remembered;
mod serve;

fn main() -> std::process::ExitCode {
    // A nursery hands them down to its clerks.
    #[cfg(feature = "failpoints")]
    kills::prepare();
    serve::node::run_if_guard();
    let (output, parsed) = cli::parse(std::env::args_os());
    std::process::ExitCode::from(output.end(parsed.and_then(|command| cli::run(command, output))))
}
