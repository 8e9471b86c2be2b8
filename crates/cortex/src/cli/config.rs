//! `cortex config show|check|env`.

use serde_json::json;

use super::Context;
use crate::config::KEYS;
use crate::env::VARIABLES;
use crate::error::Result;

/// Show and check the configuration.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Example:\n  cortex config show\n  cortex config check --config /etc/cortex/cortex.toml"
)]
pub(crate) struct ConfigCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// Print every key with its value and where that came from.
    #[command(before_help = "Example:\n  cortex config show --json")]
    Show,
    /// Read the configuration as every command does; exit 64 and name the key when it is wrong.
    #[command(before_help = "Example:\n  cortex config check --config cortex.toml")]
    Check,
    /// Print every environment variable that is read.
    #[command(before_help = "Example:\n  cortex config env")]
    Env,
}

impl ConfigCommand {
    pub(crate) fn run(&self, context: &Context) -> Result {
        let output = context.output;
        if matches!(self.action, Action::Env) {
            return variables(context);
        }
        let config = context.config(Vec::new())?;
        match self.action {
            Action::Env => Ok(()),
            Action::Check if output.json => output.json(&json!({"ok": true})),
            Action::Check => output.line("The configuration is good."),
            Action::Show if output.json => {
                let rows: Vec<_> = KEYS
                    .iter()
                    .map(|key| {
                        let value = config.get(key.name);
                        json!({"key": key.name, "value": value.map(|v| &v.text),
                               "from": value.map_or("unset".to_owned(), |v| v.origin.to_string()), "doc": key.doc})
                    })
                    .collect();
                output.json(&rows)
            }
            Action::Show => output.table(
                &["KEY", "VALUE", "FROM"],
                KEYS.iter().map(|key| {
                    let value = config.get(key.name);
                    let from = value.map_or("unset".to_owned(), |v| v.origin.to_string());
                    vec![key.name.to_owned(), value.map_or("-".to_owned(), |v| v.text.clone()), from]
                }),
            ),
        }
    }
}

fn variables(context: &Context) -> Result {
    let output = context.output;
    if output.json {
        let rows: Vec<_> = VARIABLES.iter().map(|v| json!({"name": v.name, "doc": v.doc})).collect();
        return output.json(&rows);
    }
    output.table(&["VARIABLE", "WHAT"], VARIABLES.iter().map(|v| vec![v.name.to_owned(), v.doc.to_owned()]))
}
