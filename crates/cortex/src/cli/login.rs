//! `cortex login` and `cortex logout`: a person's session, kept in a file that only its owner reads.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use cortex_core::Code;
use cortex_wire::http::{LoggedIn, Login as Request, PasswordText};
use http::Method;
use serde_json::json;

use super::{Context, password};
use crate::client::{Call, Client, Target};
use crate::config::{Config, Origin};
use crate::error::{Failure, Result};

/// Begins every session's secret.
const PREFIX: &str = "cxs_";
/// More than any token has.
const BYTES_MAX: u64 = 4096;

/// Log in with name and password; commands act for that user until the session ends.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex login --user ada\n  cortex login --user ada --password-file -   # from standard input"
)]
pub(crate) struct Login {
    /// Name of the user; your name on this machine when missing.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// File with the password; `-` reads standard input. Asked for on a terminal when missing.
    #[arg(long, value_name = "FILE")]
    password_file: Option<String>,
    /// Keep the session in this file; by default where commands look for it.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// End the session that `cortex login` began.
#[derive(clap::Args, Debug)]
#[command(before_help = "Example:\n  cortex logout")]
pub(crate) struct Logout {}

impl Login {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let config = context.config(Vec::new())?;
        let file = match self.out {
            Some(file) => file,
            None => place(&config),
        };
        // The place is looked at first: a session that cannot be kept is not begun.
        replaceable(&file)?;
        let user = self.user.or_else(|| crate::env::get("USER")).ok_or_else(|| {
            Failure::usage("No user is named.", "Name one with `--user`, such as `cortex login --user ada`.")
        })?;
        let password = password::read(context.output, self.password_file.as_deref(), "Password: ")?;
        let request = Request { user, password: PasswordText(password) };
        let mut client = Client::new(Target::without_token(&config)?);
        let begun: LoggedIn = client.post("/login", &request).await?;
        keep(&file, &begun.token)?;
        let output = context.output;
        if output.json {
            return output.json(&json!({"user": begun.user, "expires_at": begun.expires_at, "file": file}));
        }
        output.say(&format!("Logged in as {} until {}.", begun.user, begun.expires_at));
        if file != context.config(Vec::new())?.path("client.token_file") {
            output.say(&format!("Use it: CORTEX_TOKEN_FILE={}", file.display()));
        }
        Ok(())
    }
}

impl Logout {
    pub(crate) async fn run(self, context: &Context) -> Result {
        let config = context.config(Vec::new())?;
        let file = config.path("client.token_file");
        if !holds_session(&file)? {
            let message = format!("{} holds no session.", file.display());
            let hint = "Point CORTEX_TOKEN_FILE at the file of the session, or end a token with `cortex token revoke`.";
            return Err(Failure::new(Code::InvalidArgument, message, hint));
        }
        let ended = context.client()?.done(Method::POST, "/logout", Call::default()).await;
        // One that the hub does not know has ended already.
        match ended {
            Err(failure) if failure.code() != Some(Code::Unauthenticated) => return Err(failure),
            Ok(()) | Err(_) => {}
        }
        std::fs::remove_file(&file).map_err(|error| {
            let message = format!("The session has ended, and {} stays: {error}.", file.display());
            Failure::new(Code::InvalidArgument, message, "Remove the file; its token is good for nothing.")
        })?;
        if context.output.json {
            return context.output.json(&json!({"logged_out": true}));
        }
        context.output.say("Logged out.");
        Ok(())
    }
}

/// Where commands will look: the file that somebody named, or the usual one.
fn place(config: &Config) -> PathBuf {
    match config.get("client.token_file") {
        Some(value) if value.origin != Origin::Default => config.path("client.token_file"),
        Some(_) | None => config.path("hub.data_dir").join(crate::config::SESSION),
    }
}

/// Refuses a file that holds something else than a session: an administrator's token is not made anew.
fn replaceable(file: &Path) -> Result {
    match std::fs::symlink_metadata(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Ok(_) if holds_session(file)? => Ok(()),
        Ok(_) => Err(Failure::new(
            Code::Conflict,
            format!("{} holds something else than a session, and is left as it is.", file.display()),
            "Give `--out` a path that does not exist yet.",
        )),
        Err(error) => Err(not_kept(file, &error)),
    }
}

fn holds_session(file: &Path) -> Result<bool> {
    let opened = match std::fs::File::open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(not_kept(file, &error)),
    };
    let mut text = Vec::new();
    opened.take(BYTES_MAX).read_to_end(&mut text).map_err(|error| not_kept(file, &error))?;
    Ok(text.trim_ascii().is_empty() || text.starts_with(PREFIX.as_bytes()))
}

/// Whole or not at all, and for its owner alone from its first byte on.
fn keep(file: &Path, token: &str) -> Result {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = || -> std::io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let fresh = folder.join(format!(".session.{}", std::process::id()));
        let mut options = std::fs::OpenOptions::new();
        let mut handle = options.create_new(true).write(true).mode(0o600).open(&fresh)?;
        let done = handle
            .write_all(token.as_bytes())
            .and_then(|()| handle.sync_all())
            .and_then(|()| std::fs::rename(&fresh, file));
        done.inspect_err(|_| drop(std::fs::remove_file(&fresh)))
    };
    written().map_err(|error| not_kept(file, &error))
}

fn not_kept(file: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        Code::InvalidArgument,
        format!("{} cannot be used: {error}.", file.display()),
        "Give `--out` a path in a folder that you may write.",
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_session_replaces_a_session_and_nothing_else_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (session, admin) = (dir.path().join("new").join("session.token"), dir.path().join("admin.token"));
        replaceable(&session).expect("it is free");
        keep(&session, "cxs_one").expect("kept");
        replaceable(&session).expect("it is a session");
        keep(&session, "cxs_two").expect("kept");
        assert_eq!(std::fs::read_to_string(&session).expect("readable"), "cxs_two");
        let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&session), mode(session.parent().expect("a folder"))), (0o600, 0o700));
        std::fs::write(&admin, "cxt_admin").expect("written");
        assert_eq!(replaceable(&admin).expect_err("a token").code(), Some(Code::Conflict));
        let left = std::fs::read_dir(session.parent().expect("a folder")).expect("readable").count();
        assert_eq!(left, 1, "nothing is left beside it");
    }
}
