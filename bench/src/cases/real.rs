//! Real input: the sources of a large crate, mirrored from a node that leads to two others, refactored through
//! the hub under a lock, built on one of them, and put right there after changes by hand. What each step says
//! is shown as a person sees it.

mod sources;
mod story;

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use self::story::Story;
use crate::hub::Hub;
use crate::report::{self, Samples};
use crate::sync::ours::hand_over;

const LEAD: &str = "lead";
const FOLLOWERS: [&str; 2] = ["left", "right"];
/// The node that builds, and whose folder is changed by hand.
const BUILDER: &str = "left";
const WS: &str = "crate";
/// The identifier that is renamed, as those who use it write it, and its definition.
const OLD: &str = "crate::BitWriter<";
const NEW: &str = "crate::BitSetter<";
const DEFINITION: &str = r#"[{"old": "bit_proxy!(BitWriter, BitM)", "new": "bit_proxy!(BitSetter, BitM)"},
 {"old": "impl<'a, REG, FI> BitWriter<'a, REG, FI>", "new": "impl<'a, REG, FI> BitSetter<'a, REG, FI>"}]"#;
/// No step takes longer.
const STEP_MAX: Duration = Duration::from_secs(120);
/// How long the lock holds without a write.
const TTL: &str = "2m";

pub(crate) fn run(cortex: &Path, sources: Option<&Path>) -> Result<()> {
    report::heading("real: the sources of a large crate on three nodes");
    let kept = tempfile::tempdir()?;
    let sources = match sources {
        Some(sources) => sources.to_owned(),
        None => sources::bring(&kept.path().join("sources"))?,
    };
    let mut hub = Hub::start(cortex)?;
    for node in [LEAD].iter().chain(&FOLLOWERS) {
        hub.add_node(node)?;
    }
    let story = Story::new(&hub, STEP_MAX);
    let folder = |node: &str| hub.work(node).join("src");
    let place = |node: &str| format!("{node}:{}", folder(node).display());

    story.chapter("The lead has the sources; two nodes follow.");
    let lead = folder(LEAD);
    report::note(&format!(
        "{} files, {:.1} MB",
        story::files(&sources)?,
        story::bytes(&sources)? as f64 / 1e6
    ));
    // As it comes a node lets nobody do anything: the refusal says what would.
    story.says(5, &["workspace", "create", WS, "--lead", &place(LEAD)])?;
    for node in [LEAD].iter().chain(&FOLLOWERS) {
        story.says(0, &["policy", "set", node, "ci", "--yes"])?;
    }
    // Runs have another user when the node is root: the folder for their work, which the node makes, is theirs.
    story.quiet(0, &["exec", LEAD, "--", "true"])?;
    std::fs::create_dir_all(&lead)?;
    story::copy(&sources, &lead)?;
    hand_over(&hub.work(LEAD), &lead)?;
    story.says(0, &["workspace", "create", WS, "--lead", &place(LEAD), "--exclude", "/target/"])?;
    for node in FOLLOWERS {
        story.says(0, &["workspace", "attach", WS, &place(node)])?;
    }
    story.says(0, &["workspace", "wait", WS])?;
    story.says(0, &["workspace", "status", WS])?;
    for node in FOLLOWERS {
        story::same(&lead, &folder(node))?;
    }

    story.chapter("A refactoring under a lock.");
    let users = users(&story, &place(LEAD))?;
    refactor(&story, &place(LEAD), &users)?;
    story.says(0, &["workspace", "resync", WS, "--wait"])?;
    for node in FOLLOWERS {
        story::same(&lead, &folder(node))?;
        let left = story.quiet(1, &["fs", "grep", "-F", OLD, &place(node)])?;
        ensure!(left.out.is_empty(), "{node} has the old name still: {}", left.out);
    }

    story.chapter("It is built where it arrived.");
    let at = folder(BUILDER).display().to_string();
    let build = ["exec", BUILDER, "--cwd", &at, "--timeout", "5m", "--", "cargo", "build", "--offline"];
    story.says(0, &build)?;
    story.says(0, &["workspace", "resync", WS, "--wait"])?;
    story::same(&lead, &folder(BUILDER))?;

    story.chapter("Somebody changes the folder by hand, and it is put right.");
    by_hand(&hub.work(BUILDER), &folder(BUILDER))?;
    story.says(8, &["workspace", "resync", WS, "--wait"])?;
    story.says(0, &["workspace", "status", WS])?;
    story.says(0, &["workspace", "diff", WS, BUILDER])?;
    story.says(0, &["workspace", "resync", WS, BUILDER, "--repair", "--wait"])?;
    story.says(0, &["workspace", "status", WS])?;
    story::no_less(&lead, &folder(BUILDER))?;
    for node in FOLLOWERS.iter().filter(|node| **node != BUILDER) {
        story::same(&lead, &folder(node))?;
    }
    story.end();
    Ok(())
}

/// Files of the lead that use the old name.
fn users(story: &Story<'_>, place: &str) -> Result<BTreeSet<String>> {
    let found = story.quiet(0, &["fs", "grep", "-F", OLD, place, "--json"])?;
    let of = |line: &str| {
        let found: Value = serde_json::from_str(line)?;
        found["file"].as_str().map(str::to_owned).context("a match without a file")
    };
    let users: BTreeSet<String> = found.out.lines().map(of).collect::<Result<_>>()?;
    ensure!(users.len() >= 500, "only {} files use {OLD}", users.len());
    Ok(users)
}

/// Takes the lock, renames in every file, and gives the lock back. Meanwhile a second client tries the same
/// again and again, without the lock and by its number.
fn refactor(story: &Story<'_>, place: &str, users: &BTreeSet<String>) -> Result<()> {
    let other = story.second_client()?;
    let first = users.first().context("no file")?;
    let epoch = story.says(0, &["workspace", "lock", WS, "--ttl", TTL])?.out.trim().to_owned();
    let of = |file: &str| format!("{place}/{file}");
    let rename = ["--old", OLD, "--new", NEW, "--all"];
    let one = of(first);
    story.says(4, &[&["fs", "edit", &one][..], &rename].concat())?;
    story.says_as(&other, 4, &[&["fs", "edit", &one][..], &rename, &["--lock", &epoch]].concat())?;
    let over = AtomicBool::new(false);
    let (took, refused) = std::thread::scope(|scope| {
        let second = scope.spawn(|| tries(story, &other, &one, &epoch, &over));
        let took = renames(story, users, &of, &epoch);
        over.store(true, Ordering::Release);
        (took, second.join())
    });
    let (took, refused) = (took?, refused.map_err(|_| anyhow::anyhow!("the second client panicked"))??);
    report::note(&format!(
        "\n{} edits by the command line, one after the other: {:.1} s; each {:.0} ms (p99 {:.0} ms); the second client was refused {refused} times",
        took.each().len(),
        took.each().iter().sum::<f64>() / 1e3,
        took.median(),
        took.quantile(0.99),
    ));
    let generic = of("src/generic.rs");
    let edits = story.file("edits.json", DEFINITION)?;
    story.says(0, &["fs", "edit", &generic, "--edits", &edits, "--lock", &epoch])?;
    story.says(0, &["workspace", "unlock", WS, &epoch])?;
    Ok(())
}

fn renames(
    story: &Story<'_>,
    users: &BTreeSet<String>,
    of: &impl Fn(&str) -> String,
    epoch: &str,
) -> Result<Samples> {
    let mut took = Samples::default();
    for file in users {
        let began = Instant::now();
        story.quiet(0, &["fs", "edit", &of(file), "--old", OLD, "--new", NEW, "--all", "--lock", epoch])?;
        took.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(took)
}

/// The second client's tries until the first has done its work; how many there were.
fn tries(story: &Story<'_>, other: &Path, place: &str, epoch: &str, over: &AtomicBool) -> Result<usize> {
    let edit = ["fs", "edit", place, "--old", "type R", "--new", "type Q"];
    let mut count = 0;
    while !over.load(Ordering::Acquire) {
        for lock in [&[][..], &["--lock", epoch]] {
            let refused = story.quiet_as(other, 4, &[&edit[..], lock].concat())?;
            ensure!(refused.err.contains("locked"), "refused otherwise: {}", refused.err);
            count += 1;
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    Ok(count)
}

/// What people do: a file is changed, one goes, one comes, one has an Arabic name, and a link is made.
fn by_hand(work: &Path, folder: &Path) -> Result<()> {
    let text = std::fs::read_to_string(folder.join("README.md"))?;
    std::fs::write(folder.join("README.md"), format!("{text}\nChanged by hand.\n"))?;
    std::fs::remove_file(folder.join("device.x"))?;
    std::fs::write(folder.join("notes.txt"), "to do\n")?;
    std::fs::write(folder.join("ملاحظات.txt"), "مرحبا\n")?;
    symlink("README.md", folder.join("read me"))?;
    hand_over(work, folder)
}
