//! One file to eight nodes, one of them behind a slow link: how long until the others have it, and
//! what more nodes cost the hub. Beside it, that many clients of rsync at once.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cpu;
use crate::hub::Hub;
use crate::report::{self, Samples};
use crate::ssh::Ssh;
use crate::sync::ours::has;
use crate::sync::peers::{Daemon, installed, remove};
use crate::sync::place::{Far, Ground, apart};
use crate::sync::trees::{self, Change, Kind, Size, Tree};

/// What is chosen on the command line.
pub(crate) struct Choice<'a> {
    pub(crate) nodes: usize,
    pub(crate) bytes: u64,
    /// What the slow link lets through, bytes a second.
    pub(crate) slow: u64,
    pub(crate) passes: usize,
    pub(crate) on: Option<&'a Path>,
}

/// Seconds until all but the slow one have it.
#[derive(Default)]
struct Row {
    alone: Samples,
    beside: Samples,
}

/// What the hub spent, CPU seconds.
#[derive(Default)]
struct Spent {
    one: Samples,
    all: Samples,
}

pub(crate) fn run(cortex: &Path, choice: &Choice<'_>) -> Result<()> {
    ensure!((2..=63).contains(&choice.nodes), "from 2 to 63 nodes");
    let ground = Ground::new(choice.on, choice.bytes * (2 * choice.nodes as u64 + 4) + (512 << 20))?;
    let fars: Vec<Far> =
        (1..=choice.nodes).map(|number| Far::new(u8::try_from(number)?)).collect::<Result<_>>()?;
    let limited = fars.last().map_or(Ok(false), |far| far.limit(choice.slow))?;
    let size = Size { bytes: choice.bytes, files: 1 };
    let (dir, spare) = (ground.path().join("tree"), ground.path().join("spare"));
    let tree = Tree::make(&dir, &spare, Kind::Random, Change::Nothing, size)?;
    report::heading(&format!(
        "broadcast: {:.0} MB to {} nodes, one at {:.1} MB/s",
        choice.bytes as f64 / 1e6,
        choice.nodes,
        choice.slow as f64 / 1e6
    ));
    if !limited {
        report::note("left out: the slow link, which needs root; all nodes are fast");
    }
    let mut clients = Clients::start(&fars, &ground)?;
    let pushes = has(cortex, "push") && apart();
    if !apart() {
        report::note("left out: cortex: several nodes with one path need root");
    } else if !pushes {
        report::note("left out: cortex: this cortex has no push");
    }
    let (mut daemon, mut ssh, mut ours, mut spent) =
        (Row::default(), Row::default(), Row::default(), Spent::default());
    for pass in 0..=choice.passes {
        if pass == 1 {
            (daemon, ssh, ours, spent) = Default::default();
        }
        for slow in [false, true] {
            let count = choice.nodes - usize::from(!slow);
            for (over_ssh, row) in [(false, &mut daemon), (true, &mut ssh)] {
                if let Some(seconds) = clients.copy(&tree, over_ssh, count, choice.nodes - 1)? {
                    row.take(slow, seconds);
                }
            }
            if pushes {
                let (seconds, cpu) = push(cortex, &ground, &fars[..count], &tree, choice.nodes - 1)?;
                ours.take(slow, seconds);
                if !slow {
                    spent.all.push(cpu);
                }
            }
        }
        if pushes {
            spent.one.push(push(cortex, &ground, &fars[..1], &tree, 1)?.1);
        }
    }
    report::head(&["way", "all but one, s", "the same beside the slow one, s", "ratio", "goal"]);
    for (name, row, goal) in
        [("rsync-daemon", &daemon, "peer"), ("rsync-ssh", &ssh, "peer"), ("cortex push", &ours, "<= 1.05x")]
    {
        if !row.alone.each().is_empty() {
            let (alone, beside) = (row.alone.median(), row.beside.median());
            report::row(&[
                name,
                &format!("{alone:.2}"),
                &format!("{beside:.2}"),
                &format!("{:.2}x", beside / alone),
                goal,
            ]);
        }
    }
    if pushes {
        let (one, all) = (spent.one.median(), spent.all.median());
        report::note(&format!(
            "\nCPU of the hub, sending with TLS included: {one:.2} s for one node, {all:.2} s for {} \
             (goal for what it encodes: 1.1x).",
            choice.nodes - 1
        ));
    }
    Ok(())
}

impl Row {
    fn take(&mut self, slow: bool, seconds: f64) {
        if slow { self.beside.push(seconds) } else { self.alone.push(seconds) }
    }
}

/// Pushes to nodes with a hub of their own, until `wanted` of them have it; seconds, and CPU seconds
/// of the hub.
fn push(cortex: &Path, ground: &Ground, fars: &[Far], tree: &Tree, wanted: usize) -> Result<(f64, f64)> {
    let near = fars.first().context("no node")?.near();
    let mut hub = Hub::start_on(cortex, ground.folder()?, near, &[])?;
    let grpc = hub.grpc.clone();
    let names: Vec<String> = (0..fars.len()).map(|index| format!("n{index}")).collect();
    let seen = hub.dir().join("work");
    std::fs::create_dir(&seen)?;
    for (name, far) in names.iter().zip(fars) {
        hub.add_node_seeing(name, far, &grpc, &seen)?;
        hub.give(name, &seen)?;
    }
    let target = format!("{}:{}", names.join(","), seen.join("copy").display());
    let before = cpu::seconds(&[hub.pid()])?;
    let begun = Instant::now();
    let mut child = hub
        .command(&["push", &tree.path().display().to_string(), &target, "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let lines = BufReader::new(child.stdout.take().context("stdout")?).lines();
    let done = until_done(lines, wanted);
    let seconds = begun.elapsed().as_secs_f64();
    let spent = cpu::seconds(&[hub.pid()])? - before;
    end(&mut child);
    done?;
    for name in names.iter().take(wanted) {
        trees::compare(tree.path(), &hub.work(name).join("copy"))?;
    }
    Ok((seconds, spent))
}

fn until_done(lines: impl Iterator<Item = std::io::Result<String>>, wanted: usize) -> Result<()> {
    let mut done = 0;
    for line in lines {
        let event: Value = serde_json::from_str(&line?)?;
        ensure!(event.get("error").is_none(), "cortex push: {event}");
        done += usize::from(event["type"] == "done");
        if done == wanted {
            return Ok(());
        }
    }
    anyhow::bail!("cortex push ended when {done} of {wanted} nodes were done")
}

/// Servers of rsync at each far end.
struct Clients<'a> {
    ground: &'a Ground,
    daemons: Vec<Daemon>,
    ssh: Vec<Ssh>,
}

impl<'a> Clients<'a> {
    fn start(fars: &[Far], ground: &'a Ground) -> Result<Self> {
        let mut clients = Self { ground, daemons: Vec::new(), ssh: Vec::new() };
        if !installed("rsync") {
            report::note("left out: rsync is not installed");
            return Ok(clients);
        }
        for (index, far) in fars.iter().enumerate() {
            let room = ground.path().join(format!("room{index}"));
            std::fs::create_dir_all(&room)?;
            clients.daemons.push(Daemon::start(far, &room)?);
            clients.ssh.extend(Ssh::start_at(far)?);
        }
        Ok(clients)
    }

    /// That many clients at once, until `wanted` have ended; seconds.
    fn copy(&mut self, tree: &Tree, over_ssh: bool, count: usize, wanted: usize) -> Result<Option<f64>> {
        let there = if over_ssh { self.ssh.len() } else { self.daemons.len() };
        if there < count {
            return Ok(None);
        }
        let source = format!("{}/", tree.path().display());
        let copy = |index: usize| self.ground.path().join(format!("room{index}/copy"));
        for index in 0..count {
            remove(&copy(index))?;
        }
        let begun = Instant::now();
        let mut children = Vec::new();
        for index in 0..count {
            let mut command = Command::new("rsync");
            command.args(["-a", &source]);
            if over_ssh {
                let ssh = &self.ssh[index];
                command.args(["-e", &format!("ssh -p {} {}", ssh.port(), ssh.options_new().join(" "))]);
                command.arg(format!("{}:{}/", ssh.host(), copy(index).display()));
            } else {
                command.arg(self.daemons[index].url("copy/"));
            }
            children.push(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?);
        }
        for child in children.iter_mut().take(wanted) {
            let status = child.wait()?;
            ensure!(status.success(), "rsync: {status}");
        }
        let seconds = begun.elapsed().as_secs_f64();
        children.iter_mut().skip(wanted).for_each(end);
        // Its server sees the end when what waits in the slow link has drained.
        std::thread::sleep(Duration::from_millis(500));
        for index in 0..wanted {
            trees::compare(tree.path(), &copy(index))?;
        }
        for index in 0..count {
            remove(&copy(index))?;
        }
        Ok(Some(seconds))
    }
}

fn end(child: &mut Child) {
    // It may have ended by itself; either way it is gone afterwards.
    drop(child.kill());
    drop(child.wait());
}
