//! Unison over ssh, with archives of its own. From the package `unison`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use anyhow::Result;

use super::peers::{duplicate, remove};
use super::place::{Ground, run};
use super::{Job, Way};
use crate::ssh::Ssh;

/// The peer.
pub(crate) struct Unison {
    ssh: Rc<Ssh>,
    room: PathBuf,
}

impl Unison {
    pub(crate) fn new(ssh: &Rc<Ssh>, ground: &Ground) -> Self {
        Self { ssh: Rc::clone(ssh), room: ground.path().join("unison") }
    }

    fn command(&self, source: &Path) -> Command {
        let mut command = self.ssh.meter.command(Path::new("unison"));
        command.env("UNISON", self.room.join("archives")).env("HOME", &self.room);
        command.arg(source).arg(format!("ssh://{}/{}", self.ssh.host(), self.room.join("copy").display()));
        command.args(["-ui", "text", "-batch", "-terse", "-times", "-log=false", "-confirmbigdel=false"]);
        let options = self.ssh.options_new().join(" ");
        command.args(["-sshargs", &format!("-p {} {options}", self.ssh.port())]);
        command
    }

    fn archives_of_server(&self) -> PathBuf {
        self.ssh.home().join(".unison")
    }
}

impl Way for Unison {
    fn name(&self) -> &str {
        "unison"
    }

    fn updates(&self) -> bool {
        true
    }

    fn ready(&mut self, job: &Job<'_>) -> Result<()> {
        let copy = self.room.join("copy");
        std::fs::create_dir_all(self.room.join("archives"))?;
        std::fs::create_dir_all(&copy)?;
        if job.kept {
            duplicate(job.source, &copy)?;
            // Both ends remember what they have.
            run(&mut self.command(job.source))?;
        }
        Ok(())
    }

    fn go(&mut self, job: &Job<'_>) -> Result<()> {
        run(&mut self.command(job.source))
    }

    fn copy(&self) -> Result<PathBuf> {
        Ok(self.room.join("copy"))
    }

    fn cpu(&self) -> Result<f64> {
        self.ssh.meter.seconds_with_clients()
    }

    fn clear(&mut self, _: &Job<'_>) -> Result<()> {
        remove(&self.room)?;
        remove(&self.archives_of_server())
    }
}
