//! A hub and its nodes as processes: `hub().node("a").open_node("b").start()`. Everything is
//! ended by its own process id when the world is dropped, and the logs are judged then.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use canary::Canary;

#[path = "canary.rs"]
pub(crate) mod canary;

/// How long anything may take before a test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Names another place of the program.
pub(crate) const PROGRAM: &str = "CORTEX_TEST_PROGRAM";

/// What the processes may say beside their logs.
const LISTED: &[&str] = &["has joined; it is being started.", "Stopping; once more leaves at once."];

/// A world that is being described.
#[derive(Default)]
pub(crate) struct Plan {
    nodes: Vec<(String, &'static str)>,
    slots: Option<u32>,
}

/// Begins with a hub alone.
pub(crate) fn hub() -> Plan {
    Plan::default()
}

impl Plan {
    /// A node as it comes: STRICT.
    pub(crate) fn node(mut self, name: &str) -> Self {
        self.nodes.push((name.to_owned(), "strict"));
        self
    }

    /// A node that runs everything, for tests that need a shell.
    pub(crate) fn open_node(mut self, name: &str) -> Self {
        self.nodes.push((name.to_owned(), "permissive"));
        self
    }

    /// Every node works on so many tasks at once.
    pub(crate) fn slots(mut self, slots: u32) -> Self {
        self.slots = Some(slots);
        self
    }

    /// Starts all of it; returns when every node is attached.
    pub(crate) fn start(self) -> World {
        let dir = tempfile::tempdir().expect("a folder for the world");
        let hub = HubProcess::start(dir.path(), "127.0.0.1:0", "127.0.0.1:0");
        let canary = Canary::default();
        let secret = std::fs::read_to_string(&hub.token_file).expect("the first token");
        canary.learn("the first start", &secret);
        let mut world = World { hub: Some(hub), nodes: BTreeMap::new(), slots: self.slots, canary, dir };
        for (name, profile) in self.nodes {
            world.join(&name, profile);
        }
        world
    }
}

/// A running world.
pub(crate) struct World {
    hub: Option<HubProcess>,
    nodes: BTreeMap<String, Process>,
    slots: Option<u32>,
    canary: Canary,
    dir: TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn of(child: Child) -> Self {
        let output = child.wait_with_output().expect("wait for the command");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { code: output.status.code(), stdout: output.stdout, stderr }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The lines of JSON on standard output.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let text = self.text();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
            .collect()
    }

    /// The only value on standard output.
    pub(crate) fn value(&self) -> Value {
        self.lines().into_iter().next().unwrap_or_else(|| panic!("nothing was printed: {}", self.stderr))
    }

    /// The code of the refusal that was printed with `--json`.
    pub(crate) fn refusal(&self) -> String {
        self.value()["error"]["code"].as_str().unwrap_or("none").to_owned()
    }

    /// Fails the test unless it ended with this status.
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.text(), self.stderr);
        self
    }
}

impl World {
    /// A folder below the world's.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The running hub.
    pub(crate) fn hub(&self) -> &HubProcess {
        self.hub.as_ref().expect("the hub runs")
    }

    /// A client command, prepared.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let hub = self.hub();
        let mut command = program(self.dir.path());
        command.env("CORTEX_HUB", &hub.http).env("CORTEX_TOKEN_FILE", &hub.token_file).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A client command, run to its end.
    pub(crate) fn cortex(&self, arguments: &[&str]) -> Ended {
        let ended = Ended::of(self.command(arguments).spawn().expect("start the command"));
        self.heard(arguments, &ended);
        ended
    }

    /// A client command with standard input.
    pub(crate) fn cortex_with_input(&self, arguments: &[&str], input: Vec<u8>) -> Ended {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().expect("start the command");
        let mut stdin = child.stdin.take().expect("its standard input");
        // The output is read meanwhile, or both would wait for each other.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let ended = Ended::of(child);
        writer.join().expect("the writer ends");
        self.heard(arguments, &ended);
        ended
    }

    fn heard(&self, arguments: &[&str], ended: &Ended) {
        let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
        self.canary.heard(&arguments, &ended.stdout, &ended.stderr);
    }

    /// Looks for every secret of this world wherever it does not belong.
    fn search_for_secrets(&self) {
        self.canary.learn_keys(self.dir.path());
        if let Some(hub) = &self.hub {
            self.cortex(&["audit", "export"]);
            self.canary.search("the metrics", canary::metrics(&hub.http).as_bytes());
        }
        for pid in self.nodes.values().map(Process::pid).chain(self.hub.as_ref().map(HubProcess::pid)) {
            for part in ["cmdline", "environ"] {
                let said = std::fs::read(format!("/proc/{pid}/{part}")).unwrap_or_default();
                self.canary.search(&format!("{part} of a process"), &said);
            }
        }
        self.canary.search("the logs", self.logs().as_bytes());
        let folders = std::fs::read_dir(self.dir.path()).expect("the world's folder").flatten();
        // What lies beside the data directories was put there by the test.
        for folder in folders.map(|entry| entry.path()).filter(|path| path.is_dir()) {
            self.canary.search_files(&folder);
        }
    }

    /// Makes an invite, and writes it to a file.
    pub(crate) fn invite(&self, arguments: &[&str]) -> (Value, PathBuf) {
        let created = self.cortex(&[&["invite", "--json"], arguments].concat()).expect(0).value();
        let id = created["id"].as_str().expect("an id").to_owned();
        let file = self.path(&format!("invite-{id}"));
        std::fs::write(&file, created["invite"].as_str().expect("an invite")).expect("write the invite");
        (created, file)
    }

    /// A node joins and is attached.
    pub(crate) fn join(&mut self, name: &str, profile: &str) {
        let grpc = self.hub().grpc.clone();
        self.join_at(&grpc, name, profile);
    }

    /// The same by another address of the hub.
    pub(crate) fn join_at(&mut self, grpc: &str, name: &str, profile: &str) {
        self.join_with(grpc, name, profile, |_| {});
    }

    /// The same with arguments and variables of the node's own. Returns what it said when it was
    /// attached.
    pub(crate) fn join_with(
        &mut self,
        grpc: &str,
        name: &str,
        profile: &str,
        change: impl FnOnce(&mut Command),
    ) -> Value {
        let (_, invite) = self.invite(&["--profile", profile]);
        let (invite, data_dir) = (invite.display().to_string(), self.node_dir(name));
        let arguments = ["--invite-file", &invite, "--name", name, "--data-dir", &data_dir, "--json"];
        let mut command = self.node_program();
        command.args(["join", grpc]).args(arguments);
        change(&mut command);
        self.attach(name, &mut command)
    }

    /// A machine joins with the invite in a file, and is not started.
    pub(crate) fn join_only(&self, invite: &Path, name: &str) -> Ended {
        let data_dir = self.path(&format!("join-{name}"));
        let mut command = program(self.dir.path());
        command.args(["join", &self.hub().grpc, "--name", name, "--no-start", "--json", "--invite-file"]);
        command.arg(invite).arg("--data-dir").arg(data_dir).env("CORTEX_LOG", "off");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ended::of(command.spawn().expect("start the join"))
    }

    /// Starts a node that has joined.
    pub(crate) fn start_node(&mut self, name: &str) {
        let data_dir = self.node_dir(name);
        let mut command = self.node_program();
        command.args(["node", "start", "--data-dir", &data_dir, "--json"]);
        self.attach(name, &mut command);
    }

    /// Ends a node as a power cut would.
    pub(crate) fn kill_node(&mut self, name: &str) {
        drop(self.nodes.remove(name).expect("the node runs"));
    }

    /// The process id of a node.
    pub(crate) fn node_pid(&self, name: &str) -> u32 {
        self.nodes.get(name).expect("the node runs").child.id()
    }

    /// Ends a node by TERM, and waits until it has gone.
    pub(crate) fn stop_node(&mut self, name: &str) {
        self.nodes.remove(name).expect("the node runs").stop();
    }

    /// Ends the hub as a power cut would.
    pub(crate) fn kill_hub(&mut self) -> (String, String) {
        let hub = self.hub.take().expect("the hub runs");
        (hub.http.trim_start_matches("http://").to_owned(), hub.grpc.clone())
    }

    /// Starts the hub again where it was.
    pub(crate) fn start_hub(&mut self, (http, grpc): &(String, String)) {
        self.start_hub_with(&(http.clone(), grpc.clone()), |_| {});
    }

    /// The same with variables of the hub's own.
    pub(crate) fn start_hub_with(
        &mut self,
        (http, grpc): &(String, String),
        change: impl FnOnce(&mut Command),
    ) {
        self.hub = Some(HubProcess::start_with(self.dir.path(), http, grpc, change));
    }

    /// Waits until a look at the world gives something.
    pub(crate) fn eventually<T>(
        &self,
        what: &str,
        within: Duration,
        mut look: impl FnMut(&Self) -> Option<T>,
    ) -> T {
        let until = Instant::now() + within;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(Instant::now() < until, "{what} did not come within {within:?}\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The state of a run.
    pub(crate) fn run_view(&self, id: &str) -> Value {
        self.cortex(&["run", "get", id, "--json"]).expect(0).value()
    }

    /// Waits until a run is in that state.
    pub(crate) fn run_reaches(&self, id: &str, state: &str, within: Duration) -> Value {
        self.eventually(&format!("state {state} of run {id}"), within, |world| {
            let run = world.run_view(id);
            (run["state"] == state).then_some(run)
        })
    }

    /// Waits until a node is in that state.
    pub(crate) fn node_reaches(&self, name: &str, state: &str, within: Duration) {
        self.eventually(&format!("state {state} of node {name}"), within, |world| {
            (world.cortex(&["node", "get", name, "--json"]).expect(0).value()["state"] == state).then_some(())
        });
    }

    /// All logs of all processes so far.
    pub(crate) fn logs(&self) -> String {
        let entries = std::fs::read_dir(self.dir.path()).expect("the world's folder").flatten();
        let logs =
            entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "log"));
        logs.map(|path| std::fs::read_to_string(path).unwrap_or_default()).collect()
    }

    /// The program as a node of this world, with what all of them are told.
    fn node_program(&self) -> Command {
        let mut command = program(self.dir.path());
        if let Some(slots) = self.slots {
            command.env("CORTEX_NODE__SLOTS", slots.to_string());
        }
        command
    }

    fn node_dir(&self, name: &str) -> String {
        self.path(&format!("node-{name}")).display().to_string()
    }

    fn attach(&mut self, name: &str, command: &mut Command) -> Value {
        let process = Process::start(command, &self.path(&format!("{name}.log")));
        let attached = process.first_line();
        assert_eq!((&attached["attached"], &attached["node"]), (&Value::Bool(true), &Value::from(name)));
        self.nodes.insert(name.to_owned(), process);
        attached
    }
}

/// Lines of a log that nobody listed: WARN, ERROR, and what is no JSON.
fn unexpected<'a>(logs: &'a str, allowed: &[&str]) -> Vec<&'a str> {
    let loud = |line: &str| {
        let level =
            serde_json::from_str::<Value>(line).ok().and_then(|v| v["level"].as_str().map(str::to_owned));
        level.is_none_or(|level| level == "WARN" || level == "ERROR")
    };
    let listed = |line: &str| allowed.iter().any(|text| line.contains(text));
    logs.lines().filter(|line| !line.trim().is_empty() && loud(line) && !listed(line)).collect()
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.search_for_secrets();
        }
        for (_, node) in std::mem::take(&mut self.nodes) {
            node.stop();
        }
        if let Some(hub) = self.hub.take() {
            hub.process.stop();
        }
        if !std::thread::panicking() {
            let logs = self.logs();
            // A test that provokes a warning writes its words into this file, one a line.
            let expected = std::fs::read_to_string(self.path("expected-warnings")).unwrap_or_default();
            let listed: Vec<&str> = LISTED.iter().copied().chain(expected.lines()).collect();
            let unexpected = unexpected(&logs, &listed);
            assert!(unexpected.is_empty(), "unlisted warnings in the logs:\n{}", unexpected.join("\n"));
        }
    }
}

/// A hub process that is ready.
pub(crate) struct HubProcess {
    process: Process,
    pub(crate) http: String,
    pub(crate) grpc: String,
    pub(crate) token_file: String,
}

impl HubProcess {
    fn start(dir: &Path, http: &str, grpc: &str) -> Self {
        Self::start_with(dir, http, grpc, |_| {})
    }

    fn start_with(dir: &Path, http: &str, grpc: &str, change: impl FnOnce(&mut Command)) -> Self {
        let data_dir = dir.join("hub").display().to_string();
        let mut command = program(dir);
        command.args(["hub", "start", "--data-dir", &data_dir, "--http", http, "--grpc", grpc, "--json"]);
        change(&mut command);
        let process = Process::start(&mut command, &dir.join("hub.log"));
        let ready = process.first_line();
        assert_eq!(ready["ready"], true, "{ready}");
        let text =
            |name: &str| ready[name].as_str().unwrap_or_else(|| panic!("no {name} in {ready}")).to_owned();
        Self { http: text("http"), grpc: text("grpc"), token_file: text("token_file"), process }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// A process of ours with its lines and its log.
pub(crate) struct Process {
    child: Child,
    lines: Mutex<mpsc::Receiver<String>>,
}

impl Process {
    pub(crate) fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).expect("open the log");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().expect("start the process");
        let stdout = BufReader::new(child.stdout.take().expect("its standard output"));
        let (sender, lines) = mpsc::sync_channel(1024);
        std::thread::spawn(move || {
            // A test that wants no more lines lets them go.
            stdout.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        Self { child, lines: Mutex::new(lines) }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line on its standard output.
    pub(crate) fn first_line(&self) -> Value {
        let lines = self.lines.lock().expect("nobody panicked with it");
        let line = lines.recv_timeout(DEADLINE).expect("a line from the process");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"))
    }

    /// Ends it by TERM; by KILL when it does not listen.
    pub(crate) fn stop(mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let told = nix::sys::signal::kill(pid, Signal::SIGTERM);
        let until = Instant::now() + Duration::from_secs(15);
        while told.is_ok() && Instant::now() < until {
            if self.child.try_wait().ok().flatten().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(std::thread::panicking(), "a process did not end by TERM within 15 s");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; both calls are fine then.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Where runs of the nodes in this folder may work. The default is one folder of the machine, which
/// tests beside each other would share.
fn work(home: &Path) -> PathBuf {
    home.join("work")
}

/// The program with nothing of the caller's environment.
pub(crate) fn program(home: &Path) -> Command {
    let mut command = Command::new(cortex());
    command.env_clear().env("HOME", home).env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.env("CORTEX_NODE__WORK", work(home));
    // Only looked at by a program with crash points, and only files there make one of them real.
    command.env("FAILPOINT_KILLS", home);
    command
}

/// The program under test. A test that goes on as another user has it where that one may read.
pub(crate) fn cortex() -> PathBuf {
    std::env::var_os(PROGRAM).map_or_else(|| env!("CARGO_BIN_EXE_cortex").into(), PathBuf::from)
}

/// A line for the shell of somebody with the program on the path.
pub(crate) fn shell(home: &Path, line: &str) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_cortex")).parent().expect("it lies in a folder");
    let mut command = Command::new("sh");
    command.env_clear().env("HOME", home).env("PATH", format!("{}:/usr/bin:/bin", program.display()));
    command.env("CORTEX_NODE__WORK", work(home));
    command.args(["-euc", line]);
    command
}

/// Sends a signal to processes that this test has started.
pub(crate) fn signal(pids: impl IntoIterator<Item = u32>, signal: Signal) {
    for pid in pids {
        // One that has ended meanwhile needs none.
        let _gone = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), signal);
    }
}

/// Processes with this in their environment.
pub(crate) fn marked(variable: &str) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").expect("processes").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|one| one == variable.as_bytes())
    })
    .collect()
}

#[test]
fn a_warning_an_error_and_a_panic_in_a_log_are_found() {
    let logs = "{\"level\":\"INFO\",\"a\":1}\n{\"level\":\"WARN\",\"a\":2}\nthread panicked\n{\"level\":\"ERROR\",\"a\":3}\n";
    assert_eq!(unexpected(logs, &[]).len(), 3);
    assert_eq!(unexpected(logs, &["\"a\":2"]).len(), 2);
}
