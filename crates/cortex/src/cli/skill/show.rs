//! `cortex skill show`.

use cortex_core::name::printable;
use cortex_core::words::count;
use cortex_core::{Code, Refusal};
use cortex_wire::http::{MountView, SkillDetailView, SkillEntryView, SkillFileView, SkillView};
use indicatif::HumanBytes;

use super::{mount, path};
use crate::cli::{Context, args};
use crate::client::{Client, encode};
use crate::error::Result;

/// Show the revisions of a skill, its SKILL.md, or what else it holds.
#[derive(clap::Args, Debug)]
#[command(
    before_help = "Examples:\n  cortex skill show deploy\n  cortex skill show deploy --text\n  cortex skill show deploy --files bin\n  cortex skill show deploy --text bin/run.sh --revision 2"
)]
pub(super) struct Show {
    /// The skill.
    #[arg(value_name = "NAME")]
    name: String,
    /// Write a file of it to standard output, byte for byte: its SKILL.md, or the one at this path.
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = "SKILL.md", conflicts_with = "files")]
    text: Option<String>,
    /// List its folder, or the one at this path.
    #[arg(long, value_name = "PATH", num_args = 0..=1, default_missing_value = "")]
    files: Option<String>,
    /// Of this revision; else the newest one.
    #[arg(long, value_name = "N")]
    revision: Option<u64>,
}

impl Show {
    pub(super) async fn run(self, context: &Context) -> Result {
        let mut client = context.client()?;
        match (&self.text, &self.files) {
            (Some(file), _) => self.text(context, &mut client, file).await,
            (None, Some(folder)) => self.files(context, &mut client, folder).await,
            (None, None) => {
                let skill: SkillDetailView = client.get(&path(&self.name)).await?;
                let mounts: Vec<MountView> = client.get(&format!("{}/mounts", path(&self.name))).await?;
                if context.output.json {
                    return context.output.json(&WithMounts { skill, mounts });
                }
                told(context, &skill, &mounts)
            }
        }
    }

    fn url(&self, of: &str, more: &str) -> String {
        let revision = self.revision.map(|n| format!("&revision={n}")).unwrap_or_default();
        format!("{}/files?path={}{revision}{more}", path(&self.name), encode(of))
    }

    /// A file, part by part.
    async fn text(&self, context: &Context, client: &mut Client, file: &str) -> Result {
        let mut offset = 0;
        let mut of = self.revision;
        loop {
            // All parts are of one revision.
            let more =
                of.filter(|_| self.revision.is_none()).map(|n| format!("&revision={n}")).unwrap_or_default();
            let url = self.url(file, &format!("{more}&offset={offset}"));
            let part: SkillFileView = client.get(&url).await?;
            if context.output.json {
                return context.output.json(&part);
            }
            if part.kind == "dir" {
                let message = format!("`{}` is a folder.", printable(file, 200));
                return Err(Refusal::new(Code::InvalidArgument, message)
                    .hint("List it with `--files PATH`, and name a file of it.")
                    .into());
            }
            context.output.bytes(&content(&part)?)?;
            match part.next_offset {
                Some(next) if next > offset => offset = next,
                Some(_) | None => return Ok(()),
            }
            of = Some(part.revision);
        }
    }

    async fn files(&self, context: &Context, client: &mut Client, folder: &str) -> Result {
        let mut entries: Vec<SkillEntryView> = Vec::new();
        let mut cursor = String::new();
        loop {
            let part: SkillFileView = client.get(&self.url(folder, &cursor)).await?;
            if part.kind != "dir" {
                let message = format!("`{}` is no folder.", printable(folder, 200));
                return Err(Refusal::new(Code::InvalidArgument, message)
                    .hint("Read it with `--text PATH`.")
                    .into());
            }
            entries.extend(part.entries);
            match part.next_cursor {
                Some(next) => cursor = format!("&cursor={}", encode(&next)),
                None => break,
            }
        }
        context.output.list(&entries, &["NAME", "KIND", "SIZE"], row, "The folder is empty.")
    }
}

/// What the two calls said.
#[derive(serde::Serialize)]
struct WithMounts {
    #[serde(flatten)]
    skill: SkillDetailView,
    mounts: Vec<MountView>,
}

fn content(part: &SkillFileView) -> Result<Vec<u8>> {
    if let Some(base64) = &part.data_base64 {
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::STANDARD.decode(base64);
        let strange =
            |error| Refusal::new(Code::Internal, format!("The hub's answer cannot be read: {error}."));
        return Ok(bytes.map_err(strange)?);
    }
    Ok(part.text.clone().unwrap_or_default().into_bytes())
}

fn row(entry: &SkillEntryView) -> Vec<String> {
    let kind = if entry.exec { "file x".to_owned() } else { entry.kind.clone() };
    vec![printable(&entry.name, 300), kind, HumanBytes(entry.size).to_string()]
}

fn told(context: &Context, skill: &SkillDetailView, mounts: &[MountView]) -> Result {
    let head = &skill.head;
    let facts = [
        ("name", head.name.clone()),
        ("revision", head.revision.to_string()),
        ("promoted", format!("{} by {}", args::age(Some(&head.at)), printable(&head.by, 120))),
        ("holds", format!("{}, {}", count(skill.files, "file", "files"), HumanBytes(skill.bytes))),
        ("content", head.content.clone()),
    ];
    context.output.facts(skill, &facts)?;
    context.output.table(&["REVISION", "PROMOTED", "BY", "CONTENT"], skill.revisions.iter().map(revision))?;
    if mounts.is_empty() {
        return Ok(());
    }
    context.output.table(&mount::HEAD, mounts.iter().map(mount::row))
}

fn revision(row: &SkillView) -> Vec<String> {
    let by = args::short(&printable(&row.by, usize::MAX), args::ACTOR_CHARS_MAX);
    vec![row.revision.to_string(), args::age(Some(&row.at)), by, args::short(&row.content, 12)]
}
