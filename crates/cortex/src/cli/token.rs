//! `cortex token create|ls|revoke`.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use cortex_core::Code;
use cortex_wire::http::{TokenCreated, TokenRequest, TokenView};
use http::Method;
use serde_json::json;

use super::{Context, args};
use crate::client::{Call, encode};
use crate::error::{Failure, Result};

/// Make, list and revoke API tokens.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex token create ci --role operator --out ci.token")]
pub(crate) struct Token {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// Make a token, which can do no more than yours. Its secret is shown this once.
    #[command(
        before_help = "Examples:\n  cortex token create ci --role operator -l role=ci --ttl 30d --out ci.token\n  cortex token create agent --client --tool exec,run_get --node build-2 --out agent.token"
    )]
    Create {
        /// Its name.
        name: String,
        /// What it may do.
        #[arg(long, default_value = "operator", value_parser = ["viewer", "operator", "admin"])]
        role: String,
        /// Of its role only these rights, such as runs:start,runs:read.
        #[arg(long, value_name = "RIGHTS", value_delimiter = ',')]
        rights: Option<Vec<String>>,
        /// Only on these nodes.
        #[arg(long = "node", value_name = "NODE", value_delimiter = ',', conflicts_with = "selector")]
        nodes: Vec<String>,
        /// Only on nodes with these labels, such as role=ci.
        #[arg(short = 'l', long, value_name = "SEL", value_parser = args::selector)]
        selector: Option<String>,
        /// For an AI client: only by the tools that are named, never over what holds it.
        #[arg(long, requires = "tools")]
        client: bool,
        /// A tool of the AI client, such as exec; may be repeated.
        #[arg(long = "tool", id = "tools", value_name = "TOOL", value_delimiter = ',', requires = "client")]
        tools: Vec<String>,
        /// How long it lives, such as 12h or 30d; without end when missing.
        #[arg(long, value_parser = args::span_ms, value_name = "SPAN")]
        ttl: Option<u64>,
        /// Write the secret to a new file of mode 0600 instead of printing it.
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List the tokens, without their secrets.
    #[command(before_help = "Example:\n  cortex token ls")]
    Ls,
    /// End a token at once.
    #[command(before_help = "Example:\n  cortex token revoke 0198a1c2-0000-7000-8000-000000000000")]
    Revoke {
        /// Its id, from `cortex token ls`.
        id: String,
    },
}

impl Token {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let mut client = context.client()?;
        let output = context.output;
        match self.action {
            Action::Create { name, role, rights, nodes, selector, client: is_client, tools, ttl, out } => {
                // The place is taken first: a secret that cannot be kept is not made.
                let file = out.as_deref().map(new_secret_file).transpose()?;
                let kind = is_client.then(|| "client".to_owned());
                let request = TokenRequest { name, role, kind, rights, nodes, selector, tools, ttl_ms: ttl };
                let created = client.post::<TokenCreated>("/tokens", &request).await;
                let created = created.inspect_err(|_| give_back(out.as_deref()))?;
                show(context, &created, out.as_deref().zip(file))
            }
            Action::Ls => {
                let tokens: Vec<TokenView> = client.list("/tokens", usize::MAX).await?;
                let row = |token: &TokenView| {
                    let end = token.expires_at.clone().unwrap_or_else(|| "never".to_owned());
                    let (id, name, state) = (token.id.clone(), token.name.clone(), token.state.clone());
                    let (kind, user) =
                        (token.kind.clone(), token.user.clone().unwrap_or_else(|| "-".to_owned()));
                    vec![id, name, kind, user, token.role.clone(), bounds(token), state, end]
                };
                output.list(
                    &tokens,
                    &["ID", "NAME", "KIND", "USER", "ROLE", "ONLY", "STATE", "ENDS"],
                    row,
                    "There are no tokens. Next: cortex token create NAME",
                )
            }
            Action::Revoke { id } => {
                client.done(Method::DELETE, &format!("/tokens/{}", encode(&id)), Call::default()).await?;
                if output.json {
                    return output.json(&json!({"revoked": id}));
                }
                output.say("Revoked; it is refused from now on.");
                Ok(())
            }
        }
    }
}

/// What bounds a token beside its role: `rights runs:start; nodes build-2; tools exec`.
fn bounds(token: &TokenView) -> String {
    let list = |what: &str, items: &Option<Vec<String>>| {
        items.as_ref().map(|items| format!("{what} {}", items.join(",")))
    };
    let labels = token.selector.as_ref().map(|selector| format!("nodes with {selector}"));
    let parts =
        [list("rights", &token.rights), list("nodes", &token.nodes), labels, list("tools", &token.tools)];
    let words: Vec<String> = parts.into_iter().flatten().collect();
    if words.is_empty() { "-".to_owned() } else { words.join("; ") }
}

fn show(context: &Context, created: &TokenCreated, file: Option<(&Path, std::fs::File)>) -> Result {
    let output = context.output;
    let Some((path, mut file)) = file else {
        if output.json {
            return output.json(created);
        }
        output.line(&created.token)?;
        output.say("This is the only time that it is shown. Keep it in a file of mode 0600.");
        return Ok(());
    };
    let written = file.write_all(created.token.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|error| not_writable(path, &error))?;
    if output.json {
        return output.json(&json!({"record": created.record, "file": path}));
    }
    output.say(&format!("Written to {}. Use it: CORTEX_TOKEN_FILE={}", path.display(), path.display()));
    Ok(())
}

fn new_secret_file(path: &Path) -> Result<std::fs::File> {
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.map_err(|error| not_writable(path, &error))
}

/// Without a secret the place is free again, so that the next try finds it so.
fn give_back(path: Option<&Path>) {
    if let Some(Err(error)) = path.map(std::fs::remove_file) {
        tracing::debug!(%error, "an empty file stays behind");
    }
}

fn not_writable(path: &Path, error: &std::io::Error) -> Failure {
    let code = if error.kind() == std::io::ErrorKind::AlreadyExists {
        Code::Conflict
    } else {
        Code::InvalidArgument
    };
    Failure::new(
        code,
        format!("{} cannot be written: {error}.", path.display()),
        "Give `--out` a path that does not exist yet, in a folder that you may write.",
    )
}
