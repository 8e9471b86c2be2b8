//! The sandbox of this machine under test, as root and as an ordinary user.

use std::future::Future;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use cortex_core::run::{EndCause, RunSpec};
use cortex_core::sandbox::{Access, Level, Tree, Walls};
use cortex_node::NodeConfig;
use cortex_node::trial::{Outcome, Trial};

/// Longer than anything in these tests takes.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Set in the second half of a test, which is an ordinary user: the folder of the programs.
const AS_USER: &str = "CORTEX_TEST_AS_USER";
/// Among them: what tries to get out, and the same as a program of root's that acts as root.
const ATTEMPTS: &str = "attempts";
pub const SETUID: &str = "setuid";
const NOBODY: u32 = 65_534;

/// Runs a test, and again as an ordinary user when this is root. `name` is that of the test.
pub fn as_each_user(name: &str, body: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, body).await.expect("in time") });
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(copy_programs(folder.path()));
    command.args([name, "--exact", "--nocapture"]).env(AS_USER, folder.path()).env("HOME", "/tmp");
    command.uid(NOBODY).gid(NOBODY).current_dir("/");
    let output = command.output().expect("started");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("1 passed"), "as a user: {text}{}", String::from_utf8_lossy(&output.stderr));
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Puts there what the second half of a test needs: the folder of builds may be closed to others.
/// Returns the test itself.
fn copy_programs(folder: &Path) -> PathBuf {
    open_to_all(folder);
    let own = std::env::current_exe().expect("it has one");
    for (from, name) in [(own, "test"), (guard_exe(), "guard"), (attempts(), ATTEMPTS)] {
        std::fs::copy(from, folder.join(name)).expect("copied");
    }
    copy_setuid(folder);
    folder.join("test")
}

/// Makes a program that acts as its owner, who is root, as `su` does.
pub fn copy_setuid(folder: &Path) {
    let program = folder.join(SETUID);
    std::fs::copy(attempts(), &program).expect("copied");
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o4755)).expect("set");
}

/// Where the programs are in the second half of a test.
pub fn programs() -> Option<PathBuf> {
    std::env::var_os(AS_USER).map(PathBuf::from)
}

pub fn guard_exe() -> PathBuf {
    programs().map_or_else(|| env!("CARGO_BIN_EXE_cortex-node-guard").into(), |folder| folder.join("guard"))
}

/// The program that tries to get out; built with the tests.
pub fn attempts() -> PathBuf {
    if let Some(folder) = programs() {
        return folder.join(ATTEMPTS);
    }
    let own = std::env::current_exe().expect("it has one");
    let built = own.parent().and_then(Path::parent).expect("target/debug/deps").join("examples/attempts");
    assert!(built.exists(), "build it with `cargo build -p cortex-node --examples`: {}", built.display());
    built
}

pub fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).expect("set");
}

/// A tried sandbox, and folders beside it.
pub struct World {
    pub trial: Trial,
    folder: tempfile::TempDir,
}

/// The levels that are tested.
pub const LEVELS: [Level; 2] = [Level::Full, Level::Kernel];

impl World {
    pub async fn new(level: Level) -> Self {
        Self::with(level, |_| {}).await
    }

    pub async fn with(level: Level, change: impl FnOnce(&mut NodeConfig)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // Below level full the mode of what lies above a root counts.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("set");
        let work = folder.path().join("work");
        std::fs::create_dir(&work).expect("made");
        open_to_all(&work);
        let data = folder.path().join("data");
        std::fs::create_dir(&data).expect("made");
        std::fs::write(data.join("node.key"), "SECRET").expect("written");
        let mut config = NodeConfig {
            guard_exe: guard_exe(),
            path: "/usr/local/bin:/usr/bin:/bin".into(),
            work: vec![work],
            level_max: level,
            ..NodeConfig::new(data)
        };
        change(&mut config);
        let trial = Trial::new(config).await.expect("tried");
        assert_eq!(trial.level(), level, "{:#?}", trial.layers());
        Self { trial, folder }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A folder beside the work folder, open to all.
    pub fn add_folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(&path).expect("made");
        open_to_all(&path);
        path
    }

    pub async fn shell(&self, walls: &Walls, script: &str) -> Outcome {
        self.trial.run(Some(walls), shell(script)).await
    }

    /// What a script prints, which ends well.
    pub async fn text(&self, walls: &Walls, script: &str) -> String {
        let outcome = self.shell(walls, script).await;
        assert_eq!(outcome.ended.code, Some(0), "{outcome:?} {}", String::from_utf8_lossy(&outcome.stderr));
        String::from_utf8(outcome.stdout).expect("text")
    }

    pub async fn finish(self) {
        self.trial.finish().await;
    }
}

pub fn shell(script: &str) -> RunSpec {
    spec(&["sh", "-c", script])
}

pub fn spec(argv: &[&str]) -> RunSpec {
    RunSpec { argv: argv.iter().map(|word| (*word).to_owned()).collect(), ..RunSpec::default() }
}

pub fn walls(trees: &[(&Path, Access, bool)]) -> Walls {
    let of = |(path, access, exec): &(&Path, Access, bool)| Tree {
        path: path.to_str().expect("text").to_owned(),
        access: *access,
        exec: *exec,
    };
    let mut trees: Vec<Tree> = trees.iter().map(of).collect();
    trees.sort();
    Walls { trees, ..Walls::default() }
}

/// Why a run was denied.
pub fn denied(outcome: &Outcome) -> &str {
    assert_eq!(outcome.ended.cause, EndCause::Denied, "{outcome:?}");
    outcome.ended.diagnostic.as_deref().expect("a reason")
}

/// Processes below this one that are nurseries of rooms.
pub fn rooms() -> Vec<i32> {
    let own = std::process::id().to_string();
    let is_room = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.ends_with(b"__guard\0room\0") && status(*pid, "PPid").as_deref() == Some(&own)
    };
    processes().filter(is_room).collect()
}

pub fn processes() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").expect("processes").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A line of a process's status.
pub fn status(pid: i32, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// Waits until something is so.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE / 3, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
