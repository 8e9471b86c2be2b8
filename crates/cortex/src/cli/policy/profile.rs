//! `cortex policy profile ls|get|put|rm`.

use std::path::PathBuf;

use cortex_wire::http::ProfileView;
use http::Method;
use serde_json::json;

use super::read_document;
use crate::cli::{Context, args};
use crate::client::{Call, Client, encode};
use crate::error::Result;

/// Profiles of your own, beside strict, ci, dev and permissive. A node that is set to one holds a
/// copy: changing the profile later changes no node.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex policy profile put web --file web.json")]
pub(super) struct Profile {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// List all profiles.
    #[command(before_help = "Example:\n  cortex policy profile ls")]
    Ls,
    /// Print a profile's document.
    #[command(before_help = "Example:\n  cortex policy profile get dev > web.json")]
    Get {
        /// The profile.
        name: String,
    },
    /// Keep a profile, new or in place of the one of that name.
    #[command(before_help = "Example:\n  cortex policy profile put web --file web.json")]
    Put {
        /// The profile.
        name: String,
        /// A JSON document; standard input when not given.
        #[arg(long, value_name = "FILE", default_value = "-")]
        file: PathBuf,
    },
    /// Remove a profile. Nodes that were set to it keep what they have.
    #[command(before_help = "Example:\n  cortex policy profile rm web")]
    Rm {
        /// The profile.
        name: String,
    },
}

impl Profile {
    pub(super) async fn run(self, context: &Context, client: &mut Client) -> Result {
        let output = context.output;
        match self.action {
            Action::Ls => {
                let all: Vec<ProfileView> = client.list("/profiles", usize::MAX).await?;
                output.list(&all, &["NAME", "MODE", "BY", "CHANGED"], row, "There are no profiles.")
            }
            Action::Get { name } => {
                let profile: ProfileView = client.get(&path(&name)).await?;
                if output.json {
                    return output.json(&profile);
                }
                output.line(&serde_json::to_string_pretty(&profile.document).unwrap_or_default())
            }
            Action::Put { name, file } => {
                let call = Call::json(&read_document(&file)?)?;
                let profile: ProfileView = client.call(Method::PUT, &path(&name), call).await?;
                if output.json {
                    return output.json(&profile);
                }
                output.say(&format!("Kept. Next: cortex policy set NODE {name}"));
                Ok(())
            }
            Action::Rm { name } => {
                client.done(Method::DELETE, &path(&name), Call::default()).await?;
                if output.json {
                    return output.json(&json!({"removed": name}));
                }
                output.say("Removed; nodes that were set to it keep what they have.");
                Ok(())
            }
        }
    }
}

fn path(name: &str) -> String {
    format!("/profiles/{}", encode(name))
}

fn row(profile: &ProfileView) -> Vec<String> {
    vec![
        profile.name.clone(),
        profile.mode.to_uppercase(),
        profile.changed_by.clone().unwrap_or_else(|| "(built in)".to_owned()),
        profile.changed_at.as_deref().map_or_else(|| "-".to_owned(), |at| args::age(Some(at))),
    ]
}
