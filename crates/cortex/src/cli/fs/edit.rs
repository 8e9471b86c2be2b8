//! `cortex fs edit`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use cortex_core::limits::BODY_BYTES_MAX;
use cortex_wire::http::{EditStep, FilePatch, FileWrittenView};
use http::Method;
use serde::Deserialize;

use super::{Files, Terms, show};
use crate::cli::Context;
use crate::client::Call;
use crate::error::{Failure, Result};

/// Replace text in a file: all of the replacements, or none. Prints the difference.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex fs edit build-2:/srv/app/config.toml --old 'port = 80' --new 'port = 8080'\n  cortex fs edit build-2:/srv/app/config.toml --edits edits.json --dry-run"
)]
pub(super) struct Edit {
    /// The file.
    #[arg(value_name = "NODE:PATH")]
    pub(super) place: String,
    /// The text that is there, just once, unless --all is given.
    #[arg(
        long,
        value_name = "TEXT",
        required_unless_present = "edits",
        requires = "new",
        allow_hyphen_values = true
    )]
    old: Option<String>,
    /// The text that comes in its place.
    #[arg(long, value_name = "TEXT", requires = "old", allow_hyphen_values = true)]
    new: Option<String>,
    /// At each place.
    #[arg(long, requires = "old")]
    all: bool,
    /// Several replacements, `-` for standard input: [{"old": "…", "new": "…", "all": false}, …].
    #[arg(long, value_name = "FILE.json", conflicts_with = "old")]
    edits: Option<PathBuf>,
    /// Only show the difference.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    terms: Terms,
}

/// A file of replacements: the list itself, or what the HTTP API takes.
#[derive(Deserialize)]
#[serde(untagged)]
enum Steps {
    List(Vec<EditStep>),
    Body { edits: Vec<EditStep> },
}

impl Edit {
    pub(super) async fn run(self, context: &Context, files: &mut Files) -> Result {
        let edits = match (self.edits, self.old, self.new) {
            (Some(file), ..) => read(&file)?,
            (None, old, new) => {
                let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
                vec![EditStep { old, new, all: self.all }]
            }
        };
        if edits.is_empty() {
            return Err(Failure::usage("There is no replacement in it.", HINT));
        }
        let patch = FilePatch { edits, dry_run: self.dry_run, ..FilePatch::default() };
        let call = self.terms.on(Call::json(&patch)?);
        let written: FileWrittenView = files.call(Method::PATCH, files.url(), call).await?;
        show::written(context, files, &written, show::How::Edited)
    }
}

const HINT: &str =
    "Write the replacements as [{\"old\": \"what is there\", \"new\": \"what comes in its place\"}].";

fn read(file: &Path) -> Result<Vec<EditStep>> {
    let bound = u64::try_from(BODY_BYTES_MAX).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().lock().take(bound + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(bound + 1).read_to_end(&mut bytes))
    };
    let shown = file.display();
    read.map_err(|error| Failure::usage(format!("{shown} cannot be read: {error}."), HINT))?;
    if bytes.len() > BODY_BYTES_MAX {
        return Err(Failure::new(
            cortex_core::Code::TooLarge,
            format!("{shown} is longer than {BODY_BYTES_MAX} bytes."),
            "Make the replacements in several calls, or write the whole file with `cortex fs write`.",
        ));
    }
    let steps = serde_json::from_slice(&bytes);
    let steps = steps
        .map_err(|error| Failure::usage(format!("{shown} holds no list of replacements: {error}."), HINT))?;
    Ok(match steps {
        Steps::List(edits) | Steps::Body { edits } => edits,
    })
}
