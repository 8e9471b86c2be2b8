//! `cortex fs write`.

use std::fs::File;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use cortex_core::Code;
use cortex_wire::http::FileWrittenView;
use http::Method;

use super::{Files, Terms, show};
use crate::cli::Context;
use crate::client::{Call, Source};
use crate::error::{Failure, Result};

/// Write a file of a node, whole: nobody sees half of it, and it is on the disk when the command ends.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex fs write build-2:/srv/app/config.toml config.toml\n  date | cortex fs write build-2:/srv/app/log --append\n  cortex fs write build-2:/srv/app/config.toml config.toml --dry-run"
)]
pub(super) struct Write {
    /// The file on the node.
    #[arg(value_name = "NODE:PATH")]
    pub(super) place: String,
    /// The file here that holds the content; standard input when missing, or `-`.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Only if nothing is there.
    #[arg(long, conflicts_with_all = ["append", "if_match"])]
    create: bool,
    /// After what is there.
    #[arg(long)]
    append: bool,
    /// Make the folders above it that are missing.
    #[arg(long)]
    mkdirs: bool,
    /// Permissions of a new file, octal.
    #[arg(long, value_name = "0644", value_parser = super::mode)]
    mode: Option<String>,
    /// Only show the difference.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    terms: Terms,
}

impl Write {
    pub(super) async fn run(self, context: &Context, files: &mut Files) -> Result {
        let how = match (self.create, self.append) {
            (true, _) => "create",
            (false, true) => "append",
            (false, false) => "put",
        };
        let url = files.url().with("mode", how).flag("mkdirs", self.mkdirs).flag("dry_run", self.dry_run);
        let url = url.maybe("perm", self.mode);
        let source = source(context, self.file.as_deref())?;
        let call = self.terms.on(Call::source(source));
        let mut written = files.call::<FileWrittenView>(Method::PUT, url, call).await;
        if !self.mkdirs {
            let is_folder = |failure: &Failure| failure.code() == Some(Code::NotFound);
            written = written.map_err(|failure| match is_folder(&failure) {
                true => failure.way("its folder", "add --mkdirs to make it".to_owned()),
                false => failure,
            });
        }
        let written = written?;
        let how = if self.append { show::How::Appended } else { show::How::Wrote };
        show::written(context, files, &written, how)
    }
}

/// The content, not read so far. The length of a regular file is known.
fn source(context: &Context, file: Option<&Path>) -> Result<Source> {
    let Some(path) = file.filter(|path| *path != Path::new("-")) else {
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            context.output.say("Reading the content from the terminal; Ctrl-D on a line of its own ends it.");
        }
        return Ok(Source::new(stdin, None));
    };
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
    let (about, file) = opened.map_err(|error| {
        Failure::usage(
            format!("{} cannot be read: {error}.", path.display()),
            "Give the path of a file on this machine, or its content on standard input.",
        )
    })?;
    if about.is_dir() {
        return Err(Failure::usage(
            format!("{} is a folder.", path.display()),
            "Give the path of a file; `cortex push` copies a folder, and `cortex fs mkdir` makes one.",
        ));
    }
    // Files of the kernel say that they are empty, and are not.
    let length = Some(about.len()).filter(|length| about.is_file() && *length > 0);
    Ok(Source::new(file, length))
}
