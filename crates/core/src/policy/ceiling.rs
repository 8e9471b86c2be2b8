//! What the owner of a machine allows at most, whatever the hub says, and the machine itself as a
//! judgement needs to know it.

use super::Mode;
use super::document::{Program, Sensitive};
use crate::sandbox::{Ground, Level, Limits, Network, Root};

/// One ceiling file. What it leaves out it does not bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ceiling {
    /// The file is there and cannot be read, or not trusted: nothing is allowed.
    Unreadable,
    /// What it says.
    Bounds(Box<Bounds>),
}

/// The bounds of one ceiling file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Whether the hub may make this node PERMISSIVE. Its absence is leave: `None` or
    /// `Some(Mode::Permissive)`.
    pub mode: Option<Mode>,
    /// The only programs that may be started.
    pub programs: Option<Vec<Program>>,
    /// Programs that may not be started.
    pub deny: Vec<String>,
    /// The only variables that may be set.
    pub env: Option<Vec<String>>,
    /// The only files that may be used, beside the base set.
    pub roots: Option<Vec<Root>>,
    /// The only connections that may be opened.
    pub network: Option<Network>,
    /// Longest run, milliseconds.
    pub timeout_ms_max: Option<u64>,
    /// What one run may use at most.
    pub limits: Limits,
    /// Commands for which a person is asked.
    pub sensitive: Vec<Sensitive>,
    /// The least level; see [`Bounds::level`].
    pub sandbox: Option<Level>,
}

impl Bounds {
    /// The least level that this ceiling needs. One that bounds files, connections or use and does
    /// not say needs [`Level::Kernel`], since nothing less would hold it.
    pub fn level(&self) -> Level {
        self.sandbox.unwrap_or(if self.narrows() { Level::Kernel } else { Level::None })
    }

    /// Whether it has a say on the walls of a run.
    pub(super) fn narrows(&self) -> bool {
        let network = self.network.as_ref().is_some_and(|network| *network != Network::All);
        let level = self.sandbox.is_some_and(|level| level > Level::None);
        self.roots.is_some() || network || level || self.limits != Limits::default()
    }
}

/// The machine that a command is judged for. The node knows it, and says it at Hello.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// Where it has what a policy names by its purpose, and the level that was reached there.
    /// Without a level nothing is known of it, which is only so at the hub, before the node ever
    /// was there.
    pub ground: Ground,
    /// Its own ceilings, each of which is judged.
    pub ceilings: Vec<Ceiling>,
}
