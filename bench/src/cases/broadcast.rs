//! One file to eight nodes, one of them behind a slow link: how long until the others have it, and
//! what more nodes cost the hub. Beside it, that many clients of rsync at once.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
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
    /// At most so long for each copy to the fast ones.
    pub(crate) patience: Duration,
    /// Without rsync.
    pub(crate) alone: bool,
    pub(crate) on: Option<&'a Path>,
}

/// Seconds until all but the slow one have it.
#[derive(Default)]
struct Row {
    alone: Samples,
    beside: Samples,
}

/// What pushes to so many nodes cost by the moment at which the fast ones were done.
#[derive(Default)]
struct Costs {
    /// CPU seconds of the hub.
    hub: Samples,
    /// Of that its threads for content: what it packs anew, lays aside and reads back.
    bulk: Samples,
    /// CPU seconds of the command, which cuts, hashes and compresses.
    command: Samples,
    /// The most memory that the hub had, MiB.
    peak: Samples,
    /// What it had on disk, MB.
    disk: Samples,
    /// What the slow one had been sent, MB.
    slow: Samples,
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
    let clients = Clients::start(if choice.alone { &[] } else { &fars }, &ground)?;
    let pushes = has(cortex, "push") && apart();
    if !apart() {
        report::note("left out: cortex: several nodes with one path need root");
    } else if !pushes {
        report::note("left out: cortex: this cortex has no push");
    }
    let (mut daemon, mut ssh, mut ours) = (Row::default(), Row::default(), Row::default());
    let (mut one, mut most, mut all) = (Costs::default(), Costs::default(), Costs::default());
    let fast = choice.nodes - 1;
    for pass in 0..=choice.passes {
        if pass == 1 {
            (daemon, ssh, ours) = Default::default();
            (one, most, all) = Default::default();
        }
        for slow in [false, true] {
            let count = fast + usize::from(slow);
            for (over_ssh, row) in [(false, &mut daemon), (true, &mut ssh)] {
                if let Some(seconds) = clients.copy(&tree, over_ssh, (count, fast), choice.patience)? {
                    row.take(slow, seconds);
                }
            }
            if pushes {
                let costs = if slow { &mut all } else { &mut most };
                let push = Push { cortex, ground: &ground, fars: &fars[..count], tree: &tree, wanted: fast };
                ours.take(slow, push.go(choice.patience, costs)?);
            }
        }
        if pushes {
            let push = Push { cortex, ground: &ground, fars: &fars[..1], tree: &tree, wanted: 1 };
            push.go(choice.patience, &mut one)?;
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
                &format!("{:.2}x (pairs: {})", beside / alone, row.pairs()),
                goal,
            ]);
        }
    }
    if pushes {
        report::note("\nAt the moment at which the fast ones were done:");
        report::head(&[
            "to",
            "command, CPU s",
            "hub, CPU s",
            "of that content",
            "hub MiB",
            "disk MB",
            "slow MB",
        ]);
        let to = [("1".to_owned(), &one), (fast.to_string(), &most), (format!("{fast} + the slow"), &all)];
        for (to, costs) in to {
            costs.row(&to);
        }
        let encode = |costs: &Costs| costs.command.median() + costs.bulk.median();
        report::note(&format!(
            "Command and content of the hub, {fast} + the slow one to one: {:.2}x (goal 1.1x).",
            encode(&all) / encode(&one)
        ));
    }
    Ok(())
}

impl Row {
    fn take(&mut self, slow: bool, seconds: f64) {
        if slow { self.beside.push(seconds) } else { self.alone.push(seconds) }
    }

    /// The ratio of each pass.
    fn pairs(&self) -> String {
        let pairs = self.alone.each().iter().zip(self.beside.each());
        pairs.map(|(alone, beside)| format!("{:.2}", beside / alone)).collect::<Vec<_>>().join(", ")
    }
}

impl Costs {
    fn row(&self, to: &str) {
        let two = |samples: &Samples| format!("{:.2}", samples.median());
        let whole = |samples: &Samples| format!("{:.0}", samples.median());
        report::row(&[
            to,
            &two(&self.command),
            &two(&self.hub),
            &two(&self.bulk),
            &whole(&self.peak),
            &whole(&self.disk),
            &two(&self.slow),
        ]);
    }
}

/// A push to nodes with a hub of their own, until the first `wanted` of them have it.
struct Push<'a> {
    cortex: &'a Path,
    ground: &'a Ground,
    fars: &'a [Far],
    tree: &'a Tree,
    wanted: usize,
}

impl Push<'_> {
    /// Seconds that it took.
    fn go(&self, patience: Duration, costs: &mut Costs) -> Result<f64> {
        let near = self.fars.first().context("no node")?.near();
        let mut hub = Hub::start_on(self.cortex, self.ground.folder()?, near, &[])?;
        let grpc = hub.grpc.clone();
        let names: Vec<String> = (0..self.fars.len()).map(|index| format!("n{index}")).collect();
        let seen = hub.dir().join("work");
        std::fs::create_dir(&seen)?;
        for (name, far) in names.iter().zip(self.fars) {
            hub.add_node_seeing(name, far, &grpc, &seen)?;
            hub.give(name, &seen)?;
        }
        let target = format!("{}:{}", names.join(","), seen.join("copy").display());
        let log = hub.dir().join("push.log");
        let before = (cpu::seconds(&[hub.pid()])?, cpu::threads_seconds(hub.pid(), BULK)?);
        let begun = Instant::now();
        let mut child = hub
            .command(&["push", &self.tree.path().display().to_string(), &target, "--json"])
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()?;
        let fast: BTreeSet<String> = names.iter().take(self.wanted).cloned().collect();
        let done = until_done(child.stdout.take().context("stdout")?, fast, begun + patience);
        let seconds = begun.elapsed().as_secs_f64();
        if let Err(error) = done {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let stands =
                hub.cli(&["transfer", "ls", "--json"]).map_or_else(|why| why.to_string(), |s| s.to_string());
            end(&mut child);
            bail!("{error}\nit said: {said}\nthe hub says: {stands}");
        }
        // Before it is ended: of an ended process nobody can tell.
        costs.command.push(cpu::seconds(&[child.id()]).unwrap_or_default());
        costs.hub.push(cpu::seconds(&[hub.pid()])? - before.0);
        costs.bulk.push(cpu::threads_seconds(hub.pid(), BULK)? - before.1);
        costs.peak.push(cpu::peak_kib(hub.pid())? as f64 / 1024.0);
        costs.disk.push(weight(&hub.dir().join("hub/transfers")) as f64 / 1e6);
        if let Some(slow) = names.get(self.wanted) {
            let transfers = hub.cli(&["transfer", "ls", "--json"])?;
            let nodes = transfers[0]["nodes"].as_array().context("nodes")?;
            let node = nodes.iter().find(|node| node["node"] == **slow).context("the slow node")?;
            costs.slow.push(node["wire_bytes"].as_f64().unwrap_or_default() / 1e6);
        }
        end(&mut child);
        for name in names.iter().take(self.wanted) {
            trees::compare(self.tree.path(), &hub.work(name).join("copy"))?;
        }
        Ok(seconds)
    }
}

/// How the hub's threads for content are called.
const BULK: &str = "bulk-";

/// Bytes of the files below a folder, which may be going away.
fn weight(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(about) if about.is_dir() => weight(&entry.path()),
            Ok(about) => about.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Reads what a push tells until all of these nodes are done, or it is too late for that.
fn until_done(stdout: ChildStdout, mut open: BTreeSet<String>, deadline: Instant) -> Result<()> {
    let (tell, told) = mpsc::sync_channel(64);
    // It ends with the command.
    std::thread::spawn(move || {
        BufReader::new(stdout).lines().map_while(Result::ok).all(|line| tell.send(line).is_ok())
    });
    while !open.is_empty() {
        let line = match told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => bail!("cortex push: in time these were not done: {open:?}"),
            Err(RecvTimeoutError::Disconnected) => {
                bail!("cortex push ended before these were done: {open:?}")
            }
        };
        let event: Value = serde_json::from_str(&line)?;
        ensure!(event.get("error").is_none(), "cortex push: {event}");
        if event["type"] == "done" {
            open.remove(event["node"].as_str().unwrap_or_default());
        }
    }
    Ok(())
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

    /// So many clients at once, until the first `wanted` have ended; seconds.
    fn copy(
        &self,
        tree: &Tree,
        over_ssh: bool,
        (count, wanted): (usize, usize),
        patience: Duration,
    ) -> Result<Option<f64>> {
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
        for (index, child) in children.iter_mut().enumerate().take(wanted) {
            let status = loop {
                if let Some(status) = child.try_wait()? {
                    break status;
                }
                ensure!(begun.elapsed() < patience, "rsync to node {index} did not end in time");
                std::thread::sleep(Duration::from_millis(2));
            };
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
