//! Commands as a person types them, with what they say and how long they took; and comparisons of folders.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::hub::Hub;
use crate::report;

/// Lines of one answer that are shown.
const LINES_MAX: usize = 30;
/// How often it is looked whether a command has ended.
const LOOK: Duration = Duration::from_millis(2);

/// What a command said.
pub(super) struct Said {
    pub(super) out: String,
    pub(super) err: String,
}

/// Commands for one hub.
pub(super) struct Story<'h> {
    hub: &'h Hub,
    step_max: Duration,
    began: Instant,
    /// Names files of output.
    count: AtomicU64,
}

impl<'h> Story<'h> {
    pub(super) fn new(hub: &'h Hub, step_max: Duration) -> Self {
        Self { hub, step_max, began: Instant::now(), count: AtomicU64::new(0) }
    }

    pub(super) fn chapter(&self, title: &str) {
        report::note(&format!("\n### {title}\n"));
    }

    pub(super) fn end(&self) {
        report::note(&format!("\nAll of it: {:.1} s", self.began.elapsed().as_secs_f64()));
    }

    /// A command whose answer is shown, and its status is that.
    pub(super) fn says(&self, status: i32, args: &[&str]) -> Result<Said> {
        self.shown(None, status, args)
    }

    /// The same with another token.
    pub(super) fn says_as(&self, token: &Path, status: i32, args: &[&str]) -> Result<Said> {
        self.shown(Some(token), status, args)
    }

    /// A command that is not shown.
    pub(super) fn quiet(&self, status: i32, args: &[&str]) -> Result<Said> {
        self.ended(None, status, args)
    }

    /// The same with another token.
    pub(super) fn quiet_as(&self, token: &Path, status: i32, args: &[&str]) -> Result<Said> {
        self.ended(Some(token), status, args)
    }

    /// The token of another client.
    pub(super) fn second_client(&self) -> Result<PathBuf> {
        let file = self.hub.dir().join("second.token");
        self.quiet(
            0,
            &["token", "create", "second", "--role", "operator", "--out", &file.display().to_string()],
        )?;
        Ok(file)
    }

    /// A file with this text, by its path.
    pub(super) fn file(&self, name: &str, text: &str) -> Result<String> {
        let path = self.hub.dir().join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    }

    fn shown(&self, token: Option<&Path>, status: i32, args: &[&str]) -> Result<Said> {
        let began = Instant::now();
        let said = self.ended(token, status, args)?;
        let who = if token.is_some() { "(second client) $" } else { "$" };
        let typed = args.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ");
        let dir = self.hub.dir().display().to_string();
        let text = format!("{}{}", said.out, said.err);
        let lines: Vec<&str> = text.lines().collect();
        let mut shown = format!("{who} cortex {typed}   [{:.2} s]", began.elapsed().as_secs_f64());
        for line in lines.iter().take(LINES_MAX) {
            shown.push_str(&format!("\n{line}"));
        }
        if lines.len() > LINES_MAX {
            shown.push_str(&format!("\n… {} lines more", lines.len() - LINES_MAX));
        }
        report::note(&shown.replace(&dir, "/srv"));
        Ok(said)
    }

    fn ended(&self, token: Option<&Path>, status: i32, args: &[&str]) -> Result<Said> {
        let mut command = self.hub.command(args);
        if let Some(token) = token {
            command.env("CORTEX_TOKEN_FILE", token);
        }
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let of = |kind: &str| self.hub.dir().join(format!("{kind}-{number}"));
        let (out, err) = (of("out"), of("err"));
        let mut child = command.stdout(File::create(&out)?).stderr(File::create(&err)?).spawn()?;
        let until = Instant::now() + self.step_max;
        let ended = loop {
            if let Some(ended) = child.try_wait()? {
                break ended;
            }
            if Instant::now() >= until {
                child.kill()?;
                child.wait()?;
                bail!("cortex {args:?} did not end within {:?}", self.step_max);
            }
            std::thread::sleep(LOOK);
        };
        let read = |path: &Path| -> Result<String> {
            let text = String::from_utf8_lossy(&std::fs::read(path)?).into_owned();
            std::fs::remove_file(path)?;
            Ok(text)
        };
        let said = Said { out: read(&out)?, err: read(&err)? };
        if ended.code() != Some(status) {
            bail!("cortex {args:?} ended with {ended} and not {status}:\n{}{}", said.out, said.err);
        }
        Ok(said)
    }
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:=,+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) { word.to_owned() } else { format!("'{word}'") }
}

/// Copies what is in a folder.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status()?;
    ensure!(status.success(), "{} is not copied", from.display());
    Ok(())
}

/// How many files a folder has.
pub(super) fn files(folder: &Path) -> Result<usize> {
    Ok(listed(folder, "%y\\n")?.lines().filter(|kind| *kind == "f").count())
}

/// Bytes of its files.
pub(super) fn bytes(folder: &Path) -> Result<u64> {
    Ok(listed(folder, "%y %s\\n")?
        .lines()
        .filter_map(|line| line.strip_prefix("f ")?.parse::<u64>().ok())
        .sum())
}

fn listed(folder: &Path, format: &str) -> Result<String> {
    let mut find = Command::new("find");
    find.arg(folder).args(["-name", ".cortex", "-prune", "-o", "-printf", format]);
    let output = find.output()?;
    ensure!(output.status.success(), "{} is not listed", folder.display());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Two folders are the same byte by byte, but for the nodes' own notes and what is built.
pub(super) fn same(one: &Path, other: &Path) -> Result<()> {
    let differences = differences(one, other)?;
    ensure!(differences.is_empty(), "the folders differ:\n{differences}");
    report::note(&format!("compared byte by byte: {} is the lead's", name(other)));
    Ok(())
}

/// What the first folder has, the other one has byte by byte; it may have more.
pub(super) fn no_less(one: &Path, other: &Path) -> Result<()> {
    let more = format!("Only in {}", other.display());
    let differences = differences(one, other)?;
    let (more, rest): (Vec<&str>, Vec<&str>) = differences.lines().partition(|line| line.starts_with(&more));
    ensure!(rest.is_empty(), "the folders differ:\n{}", rest.join("\n"));
    report::note(&format!("compared byte by byte: {} has all of the lead's", name(other)));
    for line in more {
        let kept = line.rsplit_once(": ").map_or(line, |(_, kept)| kept);
        report::note(&format!("beside it is kept: {kept}"));
    }
    Ok(())
}

fn name(folder: &Path) -> String {
    let above = folder.parent().and_then(Path::file_name).unwrap_or_default();
    above.to_string_lossy().into_owned()
}

fn differences(one: &Path, other: &Path) -> Result<String> {
    let mut diff = Command::new("diff");
    diff.args(["-rq", "--no-dereference", "-x", ".cortex", "-x", "target"]).args([one, other]);
    let output = diff.stdin(Stdio::null()).output().context("diff does not start")?;
    let status = output.status.code();
    ensure!(matches!(status, Some(0 | 1)), "diff: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
