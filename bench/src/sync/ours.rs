//! `cortex push` and `cortex pull`: the command and the hub at the near end (the command speaks to
//! the hub over loopback), the node at the far end.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;

use anyhow::{Context, Result};

use super::peers::{duplicate, remove};
use super::place::{Far, Ground, run};
use super::{Job, Way};
use crate::hub::Hub;

/// The node's name.
const NODE: &str = "far";

/// Whether this `cortex` has a command.
pub(crate) fn has(cortex: &Path, command: &str) -> bool {
    let status = Command::new(cortex)
        .args([command, "--help"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// Which way, and what both ends know of each other.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum How {
    /// To the node; what was there was pushed before.
    Push,
    /// To the node; what is there came by other means, so nobody knows it.
    PushCold,
    /// From the node.
    Pull,
}

impl How {
    pub(crate) const ALL: [Self; 3] = [Self::Push, Self::PushCold, Self::Pull];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Push => "cortex-push",
            Self::PushCold => "cortex-push-cold",
            Self::Pull => "cortex-pull",
        }
    }

    pub(crate) const fn command(self) -> &'static str {
        match self {
            Self::Push | Self::PushCold => "push",
            Self::Pull => "pull",
        }
    }
}

/// Our way, with a fresh hub and node for each measurement.
pub(crate) struct Ours {
    how: How,
    cortex: PathBuf,
    far: Rc<Far>,
    ground: Rc<Ground>,
    hub: Option<Hub>,
}

impl Ours {
    pub(crate) fn new(how: How, cortex: &Path, far: &Rc<Far>, ground: &Rc<Ground>) -> Self {
        Self { how, cortex: cortex.to_owned(), far: Rc::clone(far), ground: Rc::clone(ground), hub: None }
    }

    fn hub(&self) -> Result<&Hub> {
        self.hub.as_ref().context("the hub is not running")
    }

    /// The node's own copy of the source, for a pull.
    fn there(&self) -> Result<PathBuf> {
        Ok(self.hub()?.work(NODE).join("tree"))
    }

    fn transfer(&self, job: &Job<'_>) -> Result<()> {
        let on_node = |path: PathBuf| format!("{NODE}:{}", path.display());
        let (from, to) = match self.how {
            How::Push | How::PushCold => (job.source.display().to_string(), on_node(self.copy()?)),
            How::Pull => (on_node(self.there()?), self.copy()?.display().to_string()),
        };
        run(&mut self.hub()?.command_metered(&[self.how.command(), &from, &to, "--json"]))
    }
}

/// Gives a folder in a node's work to the user of its runs.
pub(crate) fn hand_over(work: &Path, folder: &Path) -> Result<()> {
    run(Command::new("chown").arg("-R").arg(format!("--reference={}", work.display())).arg(folder))
}

impl Way for Ours {
    fn name(&self) -> &str {
        self.how.name()
    }

    fn updates(&self) -> bool {
        true
    }

    fn copies(&self) -> bool {
        self.how != How::PushCold
    }

    fn ready(&mut self, job: &Job<'_>) -> Result<()> {
        let mut hub = Hub::start_on(&self.cortex, self.ground.folder()?, self.far.near(), &[])?;
        let grpc = hub.grpc.clone();
        hub.add_node_at(NODE, &self.far, &grpc)?;
        let work = hub.work(NODE);
        hub.give(NODE, &work)?;
        self.hub = Some(hub);
        if self.how == How::Pull {
            let there = self.there()?;
            std::fs::create_dir_all(&there)?;
            duplicate(job.source, &there)?;
            hand_over(&work, &there)?;
        }
        match (job.kept, self.how) {
            (false, _) => Ok(()),
            (true, How::Push | How::Pull) => self.transfer(job),
            (true, How::PushCold) => {
                let copy = self.copy()?;
                std::fs::create_dir_all(&copy)?;
                duplicate(job.source, &copy)?;
                hand_over(&work, &copy)
            }
        }
    }

    fn changed(&mut self, job: &Job<'_>) -> Result<()> {
        if self.how != How::Pull {
            return Ok(());
        }
        let there = self.there()?;
        run(Command::new("cp").args(["-a", "-u"]).arg(job.source.join(".")).arg(&there))?;
        hand_over(&self.hub()?.work(NODE), &there)
    }

    fn go(&mut self, job: &Job<'_>) -> Result<()> {
        self.transfer(job)
    }

    fn copy(&self) -> Result<PathBuf> {
        let hub = self.hub()?;
        Ok(if self.how == How::Pull { hub.dir().join("copy") } else { hub.work(NODE).join("copy") })
    }

    fn cpu(&self) -> Result<f64> {
        self.hub()?.meter.seconds_with_clients()
    }

    fn clear(&mut self, _: &Job<'_>) -> Result<()> {
        let Some(hub) = self.hub.take() else { return Ok(()) };
        let dir = hub.dir().to_owned();
        drop(hub);
        remove(&dir)
    }
}
