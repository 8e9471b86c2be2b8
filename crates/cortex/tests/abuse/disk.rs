//! The hub's disk is full: a file system of its own of 16 MiB, which the test fills.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::{Ended, Process, program};

/// Mounts the small file system where only the hub and its children see it, and becomes the hub.
const ON_A_SMALL_DISK: &str = "mount -t tmpfs -o size=16m,mode=0700 none \"$1\"; shift; exec \"$@\"";

/// A hub on a small disk, with one node on a large one.
struct Cramped {
    dir: tempfile::TempDir,
    /// The hub's data directory as this process reaches it.
    disk: PathBuf,
    http: String,
    /// Held for their lives; the node ends first.
    _node: Process,
    _hub: Process,
}

impl Cramped {
    /// `None` where an ordinary process may not mount.
    fn start() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a folder");
        let data_dir = dir.path().join("hub");
        std::fs::create_dir(&data_dir).expect("a folder to mount on");
        let own = ["--mount", "--map-root-user"];
        if !Command::new("unshare").args(own).arg("true").status().is_ok_and(|ended| ended.success()) {
            return None;
        }
        let mut command = program(dir.path());
        let cortex = command.get_program().to_owned();
        command = Command::new("unshare");
        command.args(own).args(["sh", "-euc", ON_A_SMALL_DISK, "sh"]).arg(&data_dir).arg(cortex);
        command.args(["hub", "start", "--json", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0"]);
        command.arg("--data-dir").arg(&data_dir).env_clear().env("HOME", dir.path());
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let hub = Process::start(&mut command, &dir.path().join("hub.log"));
        let ready = hub.first_line();
        let text = |name: &str| ready[name].as_str().unwrap_or_else(|| panic!("{ready}")).to_owned();
        let disk = Path::new("/proc").join(hub.pid().to_string()).join("root");
        let disk = disk.join(data_dir.strip_prefix("/").expect("an absolute path"));
        std::fs::copy(disk.join("admin.token"), dir.path().join("token")).expect("the administrator's token");
        let (http, grpc) = (text("http"), text("grpc"));
        let node = join(dir.path(), &http, &grpc);
        Some(Self { dir, disk, http, _node: node, _hub: hub })
    }

    fn cortex(&self, arguments: &[&str]) -> Ended {
        Ended::of(client(self.dir.path(), &self.http, arguments).spawn().expect("start the command"))
    }

    /// Takes the last byte.
    fn fill(&self) {
        let filler = std::fs::File::create(self.disk.join("filler")).expect("a file");
        for size in [64 * 1024, 512, 1] {
            while std::io::Write::write_all(&mut &filler, &vec![0; size]).is_ok() {}
        }
    }

    fn within(&self, what: &str, limit: Duration, mut look: impl FnMut(&Self) -> bool) {
        let until = Instant::now() + limit;
        while !look(self) {
            assert!(Instant::now() < until, "{what} did not come within {limit:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn client(dir: &Path, http: &str, arguments: &[&str]) -> Command {
    let mut command = program(dir);
    command.env("CORTEX_HUB", http).env("CORTEX_TOKEN_FILE", dir.join("token")).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn join(dir: &Path, http: &str, grpc: &str) -> Process {
    let mut invite = client(dir, http, &["invite", "--profile", "permissive", "--json"]);
    let invite = Ended::of(invite.spawn().expect("start the command")).expect(0).value();
    std::fs::write(dir.join("invite"), invite["invite"].as_str().expect("an invite")).expect("write it");
    let mut command = program(dir);
    command.args(["join", grpc, "--name", "a", "--json", "--invite-file"]).arg(dir.join("invite"));
    command.arg("--data-dir").arg(dir.join("node"));
    let node = Process::start(&mut command, &dir.join("node.log"));
    assert_eq!(node.first_line()["attached"], true);
    node
}

fn code(ended: Ended) -> String {
    let text = if ended.stderr.trim().is_empty() { ended.text() } else { ended.stderr };
    let problem: Value = serde_json::from_str(text.trim()).unwrap_or_else(|_| panic!("no problem: {text}"));
    problem["error"]["code"].as_str().expect("a code").to_owned()
}

#[test]
fn a73_a_full_disk_stops_writes_and_neither_reads_nor_kills() {
    let Some(world) = Cramped::start() else {
        let line = "left out: this machine lets an ordinary process mount nothing\n";
        return std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).expect("standard error");
    };
    let ticking =
        ["exec", "a", "--detach", "--json", "--", "sh", "-c", "echo $$; while :; do sleep 0.1; done"];
    let run = world.cortex(&ticking).expect(0).value()["run_id"].as_str().expect("a run").to_owned();
    let mut first = String::new();
    world.within("its first line", Duration::from_secs(10), |world| {
        first = world.cortex(&["run", "logs", &run]).text();
        first.ends_with('\n')
    });
    let process = Path::new("/proc").join(first.trim());
    assert!(process.exists(), "{}", process.display());
    world.fill();

    assert_eq!(code(world.cortex(&["exec", "a", "--json", "--", "true"])), "store_unavailable");
    assert_eq!(code(world.cortex(&["token", "create", "late", "--json"])), "store_unavailable");
    for reading in
        [&["node", "ls"][..], &["run", "get", &run], &["run", "logs", &run], &["audit", "ls"], &["status"]]
    {
        world.cortex(reading).expect(0);
    }
    // The command ends; what cannot be kept is said.
    assert_eq!(code(world.cortex(&["run", "cancel", &run, "--json"])), "store_unavailable");
    world.cortex(&["node", "get", "a"]).expect(0);

    std::fs::remove_file(world.disk.join("filler")).expect("room again");
    world.within("the end of the run", Duration::from_secs(20), |world| {
        world.cortex(&["run", "get", &run, "--json"]).expect(0).value()["state"] == "cancelled"
    });
    world.cortex(&["exec", "a", "--", "true"]).expect(0);
    assert!(!process.exists(), "the command was ended");
    assert_eq!(world.cortex(&["run", "logs", &run]).expect(0).text(), first);
}
