//! A connection that is cut at a random byte: what is sent again until the copy is complete.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use super::sync::amount;
use crate::hub::Hub;
use crate::report::{self, Samples};
use crate::sync::ours::has;
use crate::sync::peers::{Daemon, installed, remove};
use crate::sync::place::{Far, Ground, open_to_all, run as run_to_end};
use crate::sync::proxy::Proxy;
use crate::sync::trees::{self, Change, Kind, Rng, Size, Tree};

/// After a cut, at most so often again.
const ATTEMPTS: u32 = 5;

/// What is chosen on the command line.
pub(crate) struct Choice<'a> {
    pub(crate) cuts: usize,
    pub(crate) bytes: u64,
    pub(crate) files: usize,
    pub(crate) on: Option<&'a Path>,
}

/// Which connection is cut.
#[derive(Clone, Copy)]
enum Way {
    Rsync,
    /// Between hub and node.
    Node,
    /// Between command line and hub.
    Client,
}

/// What one copy took: bytes through the relay in all, attempts, seconds.
struct Taken {
    bytes: u64,
    attempts: u32,
    seconds: f64,
    cut: bool,
}

pub(crate) async fn run(cortex: &Path, choice: &Choice<'_>) -> Result<()> {
    let sources = choice.files as u64 * 15_000;
    let ground = Ground::new(choice.on, choice.bytes.max(sources) * 6 + (512 << 20))?;
    let mut ways = Vec::new();
    if installed("rsync") {
        ways.push(("rsync-daemon --partial", Way::Rsync, "peer"));
    } else {
        report::note("left out: rsync is not installed");
    }
    if has(cortex, "push") {
        ways.push(("cortex push, hub and node cut", Way::Node, "<= 4.19 MB"));
        ways.push(("cortex push, command and hub cut", Way::Client, "<= 4.19 MB"));
    } else {
        report::note("left out: cortex: this cortex has no push");
    }
    for (name, kind) in [("one file, random", Kind::Random), ("sources", Kind::Sources)] {
        let bytes = if kind == Kind::Sources { choice.files as u64 * 11_900 } else { choice.bytes };
        let (dir, spare) = (ground.path().join("tree"), ground.path().join("spare"));
        let tree = Tree::make(&dir, &spare, kind, Change::Nothing, Size { bytes, files: choice.files })?;
        report::heading(&format!(
            "resume: {name}, {:.0} MB, {} cuts at random bytes",
            bytes as f64 / 1e6,
            choice.cuts
        ));
        report::head(&[
            "way",
            "sent without a cut",
            "sent again p50",
            "most",
            "attempts p50",
            "s p50",
            "goal for the most",
        ]);
        for (name, way, goal) in &ways {
            let whole = once(cortex, &ground, &tree, *way, None).await?.bytes;
            let (mut again, mut attempts, mut seconds, mut missed) =
                (Samples::default(), Samples::default(), Samples::default(), 0);
            let mut rng = Rng(7);
            for _ in 0..choice.cuts {
                // In the middle nine tenths: the first and last bytes are greetings.
                let at = whole / 20 + rng.next() % (whole / 10 * 9).max(1);
                let taken = once(cortex, &ground, &tree, *way, Some(at)).await?;
                missed += usize::from(!taken.cut);
                again.push(taken.bytes.saturating_sub(whole) as f64);
                attempts.push(f64::from(taken.attempts));
                seconds.push(taken.seconds);
            }
            report::row(&[
                name,
                &amount(whole as f64),
                &amount(again.median()),
                &amount(again.quantile(1.0)),
                &format!("{:.0}", attempts.median()),
                &format!("{:.2}", seconds.median()),
                goal,
            ]);
            if missed > 0 {
                report::note(&format!("{missed} of them ended before their cut"));
            }
        }
        std::fs::remove_dir_all(&dir)?;
        std::fs::remove_dir_all(&spare)?;
    }
    report::note("\nWhat a receiver hashes again cannot be seen from outside, and is in no column.");
    Ok(())
}

/// One copy in a fresh place, cut once after `cut` bytes, and begun again until it is complete.
async fn once(cortex: &Path, ground: &Ground, tree: &Tree, way: Way, cut: Option<u64>) -> Result<Taken> {
    let room = ground.folder()?;
    let source = tree.path().display().to_string();
    let (_ends, proxy, copy, make) = prepare(cortex, room.path(), way, source).await?;
    let before = proxy.passed();
    if let Some(bytes) = cut {
        proxy.cut_after(bytes);
    }
    let begun = Instant::now();
    let mut attempts = 0;
    loop {
        attempts += 1;
        let mut command = make();
        match tokio::task::spawn_blocking(move || run_to_end(&mut command)).await? {
            Ok(()) => break,
            Err(error) => anyhow::ensure!(cut.is_some() && attempts < ATTEMPTS, "{error:#}"),
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    trees::compare(tree.path(), &copy)?;
    let taken = Taken { bytes: proxy.passed() - before, attempts, seconds, cut: proxy.cuts() > 0 };
    remove(&copy)?;
    Ok(taken)
}

/// What runs while a copy is made.
struct Ends {
    _daemon: Option<Daemon>,
    _hub: Option<Hub>,
}

type Make = Box<dyn Fn() -> Command + Send>;

async fn prepare(
    cortex: &Path,
    room: &Path,
    way: Way,
    source: String,
) -> Result<(Ends, Proxy, PathBuf, Make)> {
    // Both ends on loopback: the relay counts, no wire is needed.
    let far = Far::here();
    if matches!(way, Way::Rsync) {
        let daemon = Daemon::start(&far, room)?;
        let proxy = Proxy::start(daemon.socket()?).await?;
        let url = format!("rsync://{}/room/copy/", proxy.address);
        let make = move || {
            let mut command = Command::new("rsync");
            command.args(["-a", "--partial", &format!("{source}/"), &url]);
            command
        };
        return Ok((Ends { _daemon: Some(daemon), _hub: None }, proxy, room.join("copy"), Box::new(make)));
    }
    let dir = tempfile::tempdir_in(room)?;
    open_to_all(dir.path())?;
    let mut hub = Hub::start_on(cortex, dir, "127.0.0.1", &[])?;
    let http = hub.http.clone();
    let (grpc, http): (SocketAddr, SocketAddr) =
        (hub.grpc.parse()?, http.strip_prefix("http://").context("address")?.parse()?);
    let proxy = Proxy::start(if matches!(way, Way::Node) { grpc } else { http }).await?;
    let by_proxy = matches!(way, Way::Client);
    let node_address = if by_proxy { grpc } else { proxy.address };
    hub.add_node_at("far", &far, &node_address.to_string())?;
    let copy = hub.work("far").join("copy");
    let target = format!("far:{}", copy.display());
    let address = format!("http://{}", if by_proxy { proxy.address } else { http });
    let (program, token) = (cortex.to_owned(), hub.token_file());
    let make = move || {
        let mut command = Command::new(&program);
        command.args(["push", &source, &target, "--json"]);
        command.env("CORTEX_HUB", &address).env("CORTEX_TOKEN_FILE", &token);
        command
    };
    Ok((Ends { _daemon: None, _hub: Some(hub) }, proxy, copy, Box::new(make)))
}
