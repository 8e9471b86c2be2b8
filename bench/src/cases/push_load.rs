//! Many pushes at once of a tree of many files, and what they do to `true` on a node of the same hub.
//! Beside it, that many clients of rsync over ssh, and `true` over a kept connection of ssh.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::api::Api;
use crate::hub::Hub;
use crate::report::{self, Samples};
use crate::ssh::Ssh;
use crate::sync::ours::has;
use crate::sync::peers::installed;
use crate::sync::place::{Far, Ground};
use crate::sync::trees::{Change, Kind, Size, Tree};

/// What is chosen on the command line.
pub(crate) struct Choice<'a> {
    pub(crate) pushes: usize,
    pub(crate) nodes: usize,
    pub(crate) files: usize,
    /// At most so long for the load of each way, seconds.
    pub(crate) seconds: u64,
    pub(crate) on: Option<&'a Path>,
}

/// How long `true` took, alone and beside the load, in milliseconds; how many copies ended; and how
/// long the load lasted, in seconds.
struct Effect {
    alone: Samples,
    beside: Samples,
    ended: usize,
    lasted: f64,
}

pub(crate) async fn run(cortex: &Path, choice: &Choice<'_>) -> Result<()> {
    ensure!(choice.nodes > 0 && choice.pushes > 0, "at least one node and one push");
    let bytes = choice.files as u64 * 11_900;
    // Blocks are not full: a quarter more. The hub keeps one copy, compressed or not. Each command has packs that
    // it made while it read.
    let (copies, commands) = (choice.pushes as u64 + 3, choice.pushes as u64 * (128 << 20));
    let ground = Ground::new(choice.on, copies * (bytes + bytes / 4) + commands + (256 << 20))?;
    let far = Far::new(1)?;
    let size = Size { bytes, files: choice.files };
    let (dir, spare) = (ground.path().join("tree"), ground.path().join("spare"));
    let tree = Tree::make(&dir, &spare, Kind::Sources, Change::Nothing, size)?;
    report::heading(&format!(
        "push-load: {} pushes at once of {} files, {:.0} MB, to {} nodes",
        choice.pushes,
        tree.files,
        bytes as f64 / 1e6,
        choice.nodes
    ));
    let mut rows = Vec::new();
    if has(cortex, "push") {
        for (name, on) in [("cortex, a node without pushes", "quiet"), ("cortex, a node with pushes", "n0")] {
            rows.push((name, ours(cortex, choice, &ground, &far, &tree, on).await?, "p99 <= 2x"));
        }
    } else {
        report::note("left out: cortex: this cortex has no push");
    }
    match Ssh::start_at(&far)? {
        Some(ssh) if installed("rsync") => {
            rows.push(("rsync-ssh, and ssh ControlMaster", peer(ssh, choice, &ground, &tree).await?, "peer"));
        }
        _ => report::note("left out: rsync over ssh is not installed"),
    }
    report::head(&[
        "`true` on",
        "alone p50 / p99 ms",
        "beside p50 / p99 ms",
        "p99 to alone",
        "copies ended",
        "load s",
        "goal",
    ]);
    for (name, effect, goal) in rows {
        let both = |samples: &Samples| format!("{:.2} / {:.2}", samples.median(), samples.quantile(0.99));
        report::row(&[
            name,
            &both(&effect.alone),
            &format!("{} ({})", both(&effect.beside), effect.beside.each().len()),
            &format!(
                "{:.2}x",
                effect.beside.quantile(0.99) / effect.alone.quantile(0.99).max(f64::MIN_POSITIVE)
            ),
            &format!("{} of {}", effect.ended, choice.pushes),
            &format!("{:.1}", effect.lasted),
            goal,
        ]);
    }
    Ok(())
}

async fn ours(
    cortex: &Path,
    choice: &Choice<'_>,
    ground: &Ground,
    far: &Far,
    tree: &Tree,
    on: &str,
) -> Result<Effect> {
    let mut hub = Hub::start_on(cortex, ground.folder()?, far.near(), &[])?;
    let grpc = hub.grpc.clone();
    let names: Vec<String> = (0..choice.nodes).map(|index| format!("n{index}")).collect();
    for name in names.iter().map(String::as_str).chain(["quiet"]) {
        hub.add_node_at(name, far, &grpc)?;
        hub.give(name, &hub.work(name))?;
    }
    let source = tree.path().display().to_string();
    let mut commands = Vec::new();
    for index in 0..choice.pushes {
        // Each of another caller: one alone has no more than a few open.
        let token = hub.dir().join(format!("caller{index}.token"));
        let out = token.display().to_string();
        hub.cli(&["token", "create", &format!("caller{index}"), "--out", &out, "--json"])?;
        let node = &names[index % names.len()];
        let target = format!("{node}:{}", hub.work(node).join(format!("copy{index}")).display());
        let mut command = hub.command(&["push", &source, &target, "--json"]);
        command.env("CORTEX_TOKEN_FILE", token);
        commands.push(command);
    }
    let mut api = Api::connect(&hub).await?;
    let nodes = [on.to_owned()];
    let load = Load::new(commands, choice.seconds, ground);
    let mut alone = Samples::default();
    let begun = Instant::now();
    while begun.elapsed() < ALONE {
        alone.push(exec(&mut api, &nodes).await?);
    }
    let (flag, load) = load.start();
    let mut beside = Samples::default();
    while !flag.load(Ordering::Relaxed) {
        beside.push(exec(&mut api, &nodes).await?);
    }
    let (ended, lasted) = load.await??;
    let dir = hub.dir().to_owned();
    drop(hub);
    crate::sync::peers::remove(&dir)?;
    Ok(Effect { alone, beside, ended, lasted })
}

async fn peer(mut ssh: Ssh, choice: &Choice<'_>, ground: &Ground, tree: &Tree) -> Result<Effect> {
    ssh.keep()?;
    let options = format!("ssh -p {} {}", ssh.port(), ssh.options_new().join(" "));
    let commands = (0..choice.pushes)
        .map(|index| {
            let mut command = Command::new("rsync");
            let copy = ground.path().join(format!("copy{index}"));
            command.args(["-a", "-e", &options, &format!("{}/", tree.path().display())]);
            command.arg(format!("{}:{}/", ssh.host(), copy.display())).stdin(Stdio::null());
            command
        })
        .collect();
    let load = Load::new(commands, choice.seconds, ground);
    let effect = tokio::task::spawn_blocking(move || {
        let mut alone = Samples::default();
        let begun = Instant::now();
        while begun.elapsed() < ALONE {
            alone.push(true_over(&ssh)?);
        }
        let (flag, load) = load.start();
        let mut beside = Samples::default();
        while !flag.load(Ordering::Relaxed) {
            beside.push(true_over(&ssh)?);
        }
        Ok::<_, anyhow::Error>((alone, beside, load))
    });
    let (alone, beside, load) = effect.await??;
    let (ended, lasted) = load.await??;
    for index in 0..choice.pushes {
        crate::sync::peers::remove(&ground.path().join(format!("copy{index}")))?;
    }
    Ok(Effect { alone, beside, ended, lasted })
}

const ALONE: Duration = Duration::from_secs(5);
/// Between two commands, so that they themselves are no load.
const PAUSE: Duration = Duration::from_millis(5);

async fn exec(api: &mut Api, nodes: &[String]) -> Result<f64> {
    tokio::time::sleep(PAUSE).await;
    let begun = Instant::now();
    api.exec(nodes, &["true"]).await?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

fn true_over(ssh: &Ssh) -> Result<f64> {
    std::thread::sleep(PAUSE);
    let begun = Instant::now();
    let status = ssh.command("true").stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    ensure!(status.success(), "ssh: {status}");
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// Copies that begin at once and go on until all have ended or their time is over.
struct Load {
    commands: Vec<Command>,
    bound: Duration,
    /// What the commands say of themselves.
    log: PathBuf,
}

type Going = tokio::task::JoinHandle<Result<(usize, f64)>>;

impl Load {
    fn new(commands: Vec<Command>, seconds: u64, ground: &Ground) -> Self {
        Self { commands, bound: Duration::from_secs(seconds), log: ground.path().join("load.log") }
    }

    /// The flag is set at the end; then how many ended well, and how long it lasted in seconds.
    fn start(self) -> (Arc<AtomicBool>, Going) {
        let flag = Arc::new(AtomicBool::new(false));
        let going = tokio::task::spawn_blocking({
            let flag = Arc::clone(&flag);
            move || {
                let result = self.go();
                flag.store(true, Ordering::Relaxed);
                result
            }
        });
        (flag, going)
    }

    fn go(self) -> Result<(usize, f64)> {
        let begun = Instant::now();
        let log = File::create(&self.log)?;
        let mut children = Vec::with_capacity(self.commands.len());
        for mut command in self.commands {
            children.push(command.stdout(Stdio::null()).stderr(log.try_clone()?).spawn()?);
        }
        let (mut ended, mut failed) = (0, 0);
        while !children.is_empty() && begun.elapsed() < self.bound {
            let mut open = Vec::with_capacity(children.len());
            for mut child in children {
                match child.try_wait()? {
                    Some(status) if status.success() => ended += 1,
                    Some(_) => failed += 1,
                    None => open.push(child),
                }
            }
            children = open;
            std::thread::sleep(Duration::from_millis(20));
        }
        let lasted = begun.elapsed().as_secs_f64();
        for mut child in children {
            // It may have ended by itself; either way it is gone afterwards.
            drop(child.kill());
            drop(child.wait());
        }
        if failed > 0 {
            let said = std::fs::read_to_string(&self.log).unwrap_or_default();
            report::note(&format!("{failed} copies failed: {}", said.chars().take(500).collect::<String>()));
        }
        Ok((ended, lasted))
    }
}
