//! `cortex completions`.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Context};
use crate::error::Result;

/// Print the completion script of a shell.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Example:\n  cortex completions bash > ~/.local/share/bash-completion/completions/cortex"
)]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self, context: &Context) -> Result {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "cortex", &mut script);
        context.output.bytes(&script)
    }
}
