//! The log of this process, on standard error: for people on a terminal, JSON otherwise.
//! Arguments of commands and contents never appear in it above TRACE.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::env;

/// Who logs: how much is said unless `CORTEX_LOG` says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    /// A command that asks the hub: silent.
    Client,
    /// The hub or a node: all that changes; on a terminal warnings, beside what the command shows.
    Server,
}

/// What is said when nobody asks for more or less. HTTP/2 warns of each flood that it ends: whoever
/// reaches the port could fill the log with that, and nobody needs to be woken for it.
const USUAL: &str = "info,h2=error";
/// The same on a terminal, beside what the command shows.
const USUAL_ON_A_TERMINAL: &str = "warn,h2=error";

/// Starts the log. A client without `CORTEX_LOG` starts none: it has nothing to say there, and
/// every millisecond of a cold start counts.
pub(crate) fn start(voice: Voice) {
    let terminal = std::io::stderr().is_terminal();
    let usual = match (voice, terminal) {
        (Voice::Client, _) => None,
        (Voice::Server, true) => Some(USUAL_ON_A_TERMINAL.to_owned()),
        (Voice::Server, false) => Some(USUAL.to_owned()),
    };
    let Some(filter) = env::get(env::LOG).or(usual) else { return };
    let filter = EnvFilter::builder().parse_lossy(filter);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if terminal {
        log.with_ansi(env::get("NO_COLOR").is_none()).with_target(false).init();
    } else {
        log.json().init();
    }
}
