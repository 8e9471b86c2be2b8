//! `cortex version`.

use serde_json::json;

use super::Context;
use crate::error::Result;

/// Print the version of this program and of the protocol that it speaks.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex version --json")]
pub(crate) struct Version {}

impl Version {
    pub(crate) fn run(&self, context: &Context) -> Result {
        let (version, protocol) = (env!("CARGO_PKG_VERSION"), cortex_core::limits::PROTOCOL);
        if context.output.json {
            return context.output.json(&json!({"version": version, "protocol": protocol}));
        }
        context.output.line(&format!("cortex {version} (protocol cortex.mesh.v{protocol})"))
    }
}
