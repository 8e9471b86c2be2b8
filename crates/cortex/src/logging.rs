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
    /// The hub or a node.
    Server,
}

/// What is said when nobody asks for more or less. HTTP/2 warns of each flood that it ends: whoever
/// reaches the port could fill the log with that, and nobody needs to be woken for it.
const USUAL: &str = "info,h2=error";

/// Starts the log. A client without `CORTEX_LOG` starts none: it has nothing to say there, and
/// every millisecond of a cold start counts.
pub(crate) fn start(voice: Voice) {
    let wanted = env::get(env::LOG);
    if voice == Voice::Client && wanted.is_none() {
        return;
    }
    let filter = wanted.unwrap_or_else(|| USUAL.to_owned());
    let filter = EnvFilter::builder().parse_lossy(filter);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        log.with_ansi(env::get("NO_COLOR").is_none()).with_target(false).init();
    } else {
        log.json().init();
    }
}
