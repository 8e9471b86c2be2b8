//! A node under test, in a directory of its own.

use std::path::PathBuf;

use cortex_core::Refusal;
use cortex_core::name::Name;
use cortex_node::enrol::{EnrolConfig, enrol};
use cortex_node::{Attached, NodeConfig};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::hub::{Hub, PATIENCE};

pub struct Node {
    folder: tempfile::TempDir,
    pub attached: mpsc::Receiver<Attached>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), Refusal>>,
}

pub fn enrol_config(hub: &Hub, data_dir: PathBuf) -> EnrolConfig {
    let name = Name::parse("build-2").expect("a name");
    EnrolConfig { hub: hub.addr.to_string(), invite: hub.invite(), name, data_dir }
}

impl Node {
    /// A node that joined `hub` and runs.
    pub async fn start(hub: &Hub) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        enrol(enrol_config(hub, folder.path().join("node"))).await.expect("joined");
        Self::start_in(folder)
    }

    pub fn start_in(folder: tempfile::TempDir) -> Self {
        Self::start_by(folder, |_| {})
    }

    /// A node that joined `hub` and keeps this much output of a run.
    pub async fn start_with_spool(hub: &Hub, bytes: u64) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        enrol(enrol_config(hub, folder.path().join("node"))).await.expect("joined");
        Self::start_by(folder, |config| config.spool_bytes_max = bytes)
    }

    /// A node that joined `hub` and has a folder for work, which is not made so far.
    pub async fn start_with_work(hub: &Hub) -> (Self, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        enrol(enrol_config(hub, folder.path().join("node"))).await.expect("joined");
        let work = folder.path().join("work");
        let given = vec![work.clone()];
        (Self::start_by(folder, |config| config.work = given), work)
    }

    /// A node that joined `hub` and whose guards come from this script.
    pub async fn start_with_guard(hub: &Hub, script: &str) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        enrol(enrol_config(hub, folder.path().join("node"))).await.expect("joined");
        let guard = folder.path().join("guard");
        std::fs::write(&guard, script).expect("written");
        std::fs::set_permissions(&guard, std::fs::Permissions::from_mode(0o700)).expect("executable");
        Self::start_by(folder, |config| config.guard_exe = guard)
    }

    /// A node that joined `hub` on a machine whose owner allows at most this.
    pub async fn start_with_ceiling(hub: &Hub, ceiling: &str) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        enrol(enrol_config(hub, folder.path().join("node"))).await.expect("joined");
        let file = folder.path().join("node").join("ceiling.json");
        std::fs::write(&file, ceiling).expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("set");
        Self::start_in(folder)
    }

    fn start_by(folder: tempfile::TempDir, change: impl FnOnce(&mut NodeConfig)) -> Self {
        let mut config = NodeConfig::new(folder.path().join("node"));
        config.guard_exe = env!("CARGO_BIN_EXE_cortex-node-guard").into();
        change(&mut config);
        let (attached_in, attached) = mpsc::channel(64);
        let shutdown = CancellationToken::new();
        let told = move |one| attached_in.try_send(one).expect("the test listens");
        let task = tokio::spawn(cortex_node::run(config, shutdown.clone(), told));
        Self { folder, attached, shutdown, task }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub async fn attached(&mut self) -> Attached {
        tokio::time::timeout(PATIENCE, self.attached.recv()).await.expect("in time").expect("attached")
    }

    /// Stops it in good order.
    pub async fn stop(self) -> (Result<(), Refusal>, tempfile::TempDir) {
        self.shutdown.cancel();
        self.ended().await
    }

    /// Waits for its end.
    pub async fn ended(self) -> (Result<(), Refusal>, tempfile::TempDir) {
        let joined = tokio::time::timeout(PATIENCE, self.task).await.expect("in time");
        (joined.expect("no panic"), self.folder)
    }

    /// Takes it away in the middle of whatever it does.
    pub async fn vanish(self) -> tempfile::TempDir {
        self.task.abort();
        // Ended by the abort.
        let _ended = self.task.await;
        self.folder
    }
}
