//! What stands before everything that the hub asks for: the link's epoch, and the policy. Runs and
//! operations on files pass the same gate.

use super::NodeRuns;
use crate::error::{Code, Refusal};
use crate::files::ask::FileAsk;
use crate::files::path::FilePath;
use crate::id::Epoch;
use crate::message::Start;
use crate::policy::{self, Document, FileQuestion, Policy, Question, Reach, Site, TransferQuestion};
use crate::sandbox::{Access, Ground, Level, Walls};
use crate::transfer::TransferWork;

/// The way in, at this moment: what was let in by it keeps its leave whatever the policy is later.
#[derive(Clone, Copy, Debug)]
pub struct Gate<'a> {
    policy: Option<&'a Policy>,
    site: &'a Site,
    name: &'a str,
}

/// What an operation on files may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leave {
    /// Where each of its paths is opened, in the order of [`crate::files::op::FileOp::paths`].
    pub reach: Vec<Reach>,
    /// The walls around it; `None` when the policy is PERMISSIVE.
    pub walls: Option<Box<Walls>>,
}

impl NodeRuns {
    /// The gate, for a frame of this epoch.
    ///
    /// # Errors
    /// `stale_epoch` when the frame is not of the link that is here.
    pub fn gate(&self, epoch: Epoch) -> Result<Gate<'_>, Refusal> {
        if self.linked && epoch == self.epoch {
            return Ok(self.gate_here());
        }
        let here = self.epoch;
        let message = format!("The frame has epoch {epoch}; this link has {here}. Nothing was done.");
        Err(Refusal::new(Code::StaleEpoch, message))
    }

    pub(super) fn gate_here(&self) -> Gate<'_> {
        Gate { policy: self.policy.as_ref(), site: &self.site, name: &self.name }
    }
}

impl Gate<'_> {
    /// How long a run may last and behind which walls.
    pub(super) fn judge(&self, start: &Start) -> Result<(u64, Option<Walls>), Refusal> {
        let document = self.document()?;
        let site = self.site();
        let consent = start.consent.is_some();
        let question = Question { spec: &start.spec, node: self.name, site: &site, now: None, consent };
        policy::judge(document, &question)?.allowed(self.name)?;
        // A run without a wish of its own lasts as long as the policy lets any.
        let longest = document.longest_ms(&site.ceilings);
        let timeout_ms = start.spec.timeout_ms.unwrap_or(longest);
        Ok((timeout_ms, document.walls(&site.ground.place, &site.ceilings)))
    }

    /// Judges an operation on files. `reserved` are the folders that hold what the node lives by.
    ///
    /// # Errors
    /// As [`policy::judge_files`], and `consent_required` for what nobody has said yes to.
    pub fn judge_files(&self, ask: &FileAsk, reserved: &[String]) -> Result<Leave, Refusal> {
        let document = self.document()?;
        let (site, op) = (self.site(), &ask.op);
        let consent = ask.consent.is_some();
        let question = FileQuestion { op, node: self.name, site: &site, reserved, consent };
        policy::judge_files(document, &question)?.allowed(self.name)?;
        let walls = document.walls(&site.ground.place, &site.ceilings);
        let reach = op.paths().map(|(path, need)| policy::reach(walls.as_ref(), path, need));
        Ok(Leave { reach: reach.collect::<Result<_, _>>()?, walls: walls.map(Box::new) })
    }

    /// Judges a transfer, by what it needs of its folder.
    ///
    /// # Errors
    /// As [`Self::judge_files`].
    pub fn judge_transfer(&self, work: &TransferWork, reserved: &[String]) -> Result<Leave, Refusal> {
        self.judge_folder(work.path(), matches!(work, TransferWork::Apply(_)), reserved)
    }

    /// Judges a watch, which sees of a folder what a transfer from it does.
    ///
    /// # Errors
    /// As [`Self::judge_files`].
    pub fn judge_watch(&self, path: &FilePath, reserved: &[String]) -> Result<Leave, Refusal> {
        self.judge_folder(path, false, reserved)
    }

    fn judge_folder(&self, path: &FilePath, writes: bool, reserved: &[String]) -> Result<Leave, Refusal> {
        let document = self.document()?;
        let site = self.site();
        let question =
            TransferQuestion { path, writes, node: self.name, site: &site, reserved, consent: false };
        policy::judge_transfer(document, &question)?.allowed(self.name)?;
        let walls = document.walls(&site.ground.place, &site.ceilings);
        let need = if writes { Access::Write } else { Access::Read };
        let reach = vec![policy::reach(walls.as_ref(), path, need)?];
        Ok(Leave { reach, walls: walls.map(Box::new) })
    }

    fn document(&self) -> Result<&Document, Refusal> {
        self.policy.map(|policy| &policy.document).ok_or_else(|| {
            let message = "The node holds no policy, which allows nothing (rule local.no_policy).";
            Refusal::new(Code::PolicyDenied, message).detail("rule", "local.no_policy")
        })
    }

    /// What was not tried is not there.
    fn site(&self) -> Site {
        let level = self.site.ground.level.unwrap_or(Level::None);
        let ground = Ground { level: Some(level), ..self.site.ground.clone() };
        Site { ground, ceilings: self.site.ceilings.clone() }
    }
}
