//! Trees from one end of a wire to the other: ours beside rsync, scp, tar, Unison and Syncthing.

use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::report::{self, Samples};
use crate::ssh::Ssh;
use crate::sync::ours::{self, How, Ours};
use crate::sync::peers::{Peer, installed};
use crate::sync::place::{Far, Ground};
use crate::sync::syncthing::Syncthing;
use crate::sync::trees::{self, Change, Kind, Size, Tree};
use crate::sync::unison::Unison;
use crate::sync::{Job, Way};

/// What is measured, by the name that chooses it.
const CASES: &[Case] = &[
    Case::new(
        "random",
        Kind::Random,
        None,
        "wall <= 0.75x, CPU <= 0.8x of rsync-ssh, bytes <= 1.001x of the file",
    ),
    Case::new("text", Kind::Text, None, "wall <= 0.75x of rsync-ssh-zstd"),
    Case::new(
        "sources",
        Kind::Sources,
        None,
        "wall <= 0.9x of tar-zstd-ssh, bytes <= 1.0x of rsync-ssh-zstd",
    ),
    Case::new("unchanged", Kind::Sources, Some(Change::Nothing), "wall <= 0.5x of unison, bytes <= 1.5 KB"),
    Case::new(
        "edited",
        Kind::Sources,
        Some(Change::Edit),
        "wall <= 0.7x of unison, bytes <= 0.5x of rsync-ssh",
    ),
    Case::new(
        "inserted",
        Kind::Random,
        Some(Change::Insert),
        "wall <= 0.8x of rsync-ssh, bytes <= 1.15x of it cold, <= 0.8x after a push",
    ),
];

struct Case {
    name: &'static str,
    kind: Kind,
    /// What happened since the destination was as the source is; `None`: it is empty.
    change: Option<Change>,
    goal: &'static str,
}

impl Case {
    const fn new(name: &'static str, kind: Kind, change: Option<Change>, goal: &'static str) -> Self {
        Self { name, kind, change, goal }
    }
}

/// What is chosen on the command line.
pub(crate) struct Choice<'a> {
    /// Names of cases; none: all.
    pub(crate) cases: &'a [String],
    /// Names of ways; none: all.
    pub(crate) ways: &'a [String],
    pub(crate) passes: usize,
    /// Of the one file.
    pub(crate) bytes: u64,
    /// Of the tree of sources.
    pub(crate) files: usize,
    /// Where the trees lie; `None`: in memory.
    pub(crate) on: Option<&'a Path>,
}

/// What was measured of one way.
#[derive(Default)]
struct Row {
    wall: Samples,
    synced: Samples,
    cpu: Samples,
    wire: Samples,
    failed: Option<String>,
}

pub(crate) fn run(cortex: &Path, choice: &Choice<'_>) -> Result<()> {
    for name in choice.cases {
        ensure!(
            CASES.iter().any(|case| case.name == name),
            "no case `{name}`: {}",
            names(CASES.iter().map(|case| case.name))
        );
    }
    // The source before and after its change, the destination, a copy that is being made, and what a hub keeps.
    let room = choice.bytes * 7 + (2 << 30);
    let ground = Rc::new(Ground::new(choice.on, room)?);
    let far = Rc::new(Far::new(1)?);
    let mut ways = ways(cortex, &far, &ground, choice.ways)?;
    for case in CASES
        .iter()
        .filter(|case| choice.cases.is_empty() || choice.cases.iter().any(|name| name == case.name))
    {
        measure(case, choice, &ground, &far, &mut ways)?;
    }
    Ok(())
}

/// All ways that are chosen and installed; the others are told.
fn ways(cortex: &Path, far: &Rc<Far>, ground: &Rc<Ground>, chosen: &[String]) -> Result<Vec<Box<dyn Way>>> {
    let mut ways: Vec<Box<dyn Way>> = Vec::new();
    if let Some(ssh) = Ssh::start_at(far)?.map(Rc::new) {
        for peer in Peer::over_ssh(&ssh, ground) {
            ways.push(Box::new(peer));
        }
        if installed("unison") {
            ways.push(Box::new(Unison::new(&ssh, ground)));
        }
    }
    if let Some(peer) = Peer::daemon(far, ground)? {
        ways.push(Box::new(peer));
    }
    if installed("syncthing") {
        ways.push(Box::new(Syncthing::new(far, ground)));
    }
    let peers = ["rsync-ssh", "rsync-ssh-zstd", "rsync-daemon", "scp", "tar-zstd-ssh", "unison", "syncthing"];
    let all: Vec<&str> = peers.into_iter().chain(How::ALL.map(How::name)).collect();
    for name in chosen {
        ensure!(all.contains(&name.as_str()), "no peer `{name}`: {}", names(all.iter().copied()));
    }
    ways.sort_by_key(|way| peers.iter().position(|name| *name == way.name()));
    for name in peers {
        if !ways.iter().any(|way| way.name() == name) {
            report::note(&format!("left out: {name} is not installed"));
        }
    }
    for how in How::ALL {
        if ours::has(cortex, how.command()) {
            ways.push(Box::new(Ours::new(how, cortex, far, ground)));
        } else {
            report::note(&format!("left out: {}: this cortex has no {}", how.name(), how.command()));
        }
    }
    ways.retain(|way| chosen.is_empty() || chosen.iter().any(|name| name == way.name()));
    Ok(ways)
}

fn measure(
    case: &Case,
    choice: &Choice<'_>,
    ground: &Ground,
    far: &Far,
    ways: &mut [Box<dyn Way>],
) -> Result<()> {
    let kept = case.change.is_some();
    let bytes = if case.kind == Kind::Sources { choice.files as u64 * 11_900 } else { choice.bytes };
    let size = Size { bytes, files: choice.files };
    let (dir, spare) = (ground.path().join("tree"), ground.path().join("spare"));
    let mut tree = Tree::make(&dir, &spare, case.kind, case.change.unwrap_or(Change::Nothing), size)?;
    let mut ways: Vec<_> =
        ways.iter_mut().filter(|way| if kept { way.updates() } else { way.copies() }).collect();
    report::heading(&format!("sync, {}: {} files, {:.0} MB", case.name, tree.files, bytes as f64 / 1e6));
    let mut rows: Vec<Row> = ways.iter().map(|_| Row::default()).collect();
    for pass in 0..=choice.passes {
        for (way, row) in ways.iter_mut().zip(&mut rows).filter(|(_, row)| row.failed.is_none()) {
            tree.reset()?;
            let job = Job { source: &dir, files: tree.files, kept };
            let done = way.ready(&job).and_then(|()| once(way.as_mut(), &job, &mut tree, far));
            let cleared = way.clear(&job);
            match done.and_then(|sample| cleared.map(|()| sample)) {
                // The first pass warms everything up.
                Ok(_) if pass == 0 => {}
                Ok(sample) => row.add(&sample),
                Err(error) => row.failed = Some(format!("{error:#}").replace(['\n', '|'], " ")),
            }
        }
    }
    print(case, &ways, &rows);
    drop(ways);
    std::fs::remove_dir_all(&dir)?;
    Ok(std::fs::remove_dir_all(&spare)?)
}

/// One measurement: wall seconds, those with a sync of the destination's file system, CPU seconds
/// and bytes.
struct Sample {
    wall: f64,
    synced: f64,
    cpu: f64,
    wire: Option<u64>,
}

fn once(way: &mut dyn Way, job: &Job<'_>, tree: &mut Tree, far: &Far) -> Result<Sample> {
    tree.change()?;
    way.changed(job)?;
    // What was written is older than the grain of a clock, and what idles has come to rest.
    std::thread::sleep(std::time::Duration::from_millis(300));
    let (cpu, wire) = (way.cpu()?, far.payload()?);
    let begun = Instant::now();
    way.go(job)?;
    let wall = begun.elapsed().as_secs_f64();
    nix::unistd::syncfs(std::fs::File::open(way.copy()?)?)?;
    let synced = begun.elapsed().as_secs_f64();
    let (cpu, wire) = (way.cpu()? - cpu, far.payload()?.zip(wire).map(|(after, before)| after - before));
    trees::compare(job.source, &way.copy()?)?;
    Ok(Sample { wall, synced, cpu, wire })
}

impl Row {
    fn add(&mut self, sample: &Sample) {
        self.wall.push(sample.wall);
        self.synced.push(sample.synced);
        self.cpu.push(sample.cpu);
        if let Some(bytes) = sample.wire {
            self.wire.push(bytes as f64);
        }
    }
}

fn print(case: &Case, ways: &[&mut Box<dyn Way>], rows: &[Row]) {
    report::head(&[
        "way",
        "wall s",
        "with syncfs",
        "CPU s, both ends",
        "on the wire",
        "wall / CPU / bytes to rsync-ssh",
    ]);
    let empty = Row::default();
    let base =
        ways.iter().zip(rows).find(|(way, _)| way.name() == "rsync-ssh").map_or(&empty, |(_, row)| row);
    let ratio = |one: &Samples, other: &Samples| {
        if other.each().is_empty() || one.each().is_empty() {
            "-".to_owned()
        } else {
            format!("{:.2}x", one.median() / other.median())
        }
    };
    for (way, row) in ways.iter().zip(rows) {
        if let Some(failed) = &row.failed {
            report::row(&[way.name(), "failed", "", "", "", failed]);
            continue;
        }
        report::row(&[
            way.name(),
            &format!("{:.2}", row.wall.median()),
            &format!("{:.2}", row.synced.median()),
            &format!("{:.2}", row.cpu.median()),
            &if row.wire.each().is_empty() { "-".to_owned() } else { amount(row.wire.median()) },
            &format!(
                "{} / {} / {}",
                ratio(&row.wall, &base.wall),
                ratio(&row.cpu, &base.cpu),
                ratio(&row.wire, &base.wire)
            ),
        ]);
    }
    report::note(&format!("\nGoal of cortex: {}.", case.goal));
}

/// Bytes as a table shows them.
pub(crate) fn amount(bytes: f64) -> String {
    if bytes < 1e6 { format!("{:.1} KB", bytes / 1e3) } else { format!("{:.2} MB", bytes / 1e6) }
}

fn names<'a>(all: impl Iterator<Item = &'a str>) -> String {
    format!("one of {}", all.collect::<Vec<_>>().join(", "))
}
