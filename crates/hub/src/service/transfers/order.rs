//! What is asked for: which tree, from where to where.

use cortex_core::files::content::TreeId;
use cortex_core::files::path::{FilePath, RelPath};
use cortex_core::limits::{TRANSFER_RATE_MIN, TREE_ENTRIES_MAX};
use cortex_core::name::Name;
use cortex_core::rights::Right;
use cortex_core::sync::HaltId;
use cortex_core::transfer::Filters;
use cortex_core::workspace::Rules;
use cortex_core::{Code, Refusal};

use super::Kind;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// A tree, to nodes.
    Push(Box<PushOrder>),
    /// A folder, from a node.
    Pull(Box<PullOrder>),
    /// A tree, to the hub.
    Import(Box<ImportOrder>),
}

/// To which nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// By names or ids.
    Named(Vec<String>),
    /// By labels.
    Labelled(String),
}

/// A push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushOrder {
    /// To which nodes.
    pub targets: Targets,
    /// The folder there.
    pub dest: FilePath,
    /// The one entry of the folder that it is about: nothing else of it is looked at.
    pub only: Option<String>,
    /// The tree.
    pub root: TreeId,
    /// Its entries.
    pub entries: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Nothing is done, only told.
    pub dry_run: bool,
    /// What the tree lacks goes, if it was pushed before; with `force` whatever it is.
    pub delete: bool,
    /// What the node changed is replaced as well.
    pub force: bool,
    /// Every file there is read anew.
    pub checksum: bool,
    /// What of the folder is left alone.
    pub filters: Filters,
    /// The halt that a person let pass.
    pub accept: Option<HaltId>,
    /// Bytes per second to each node, at most.
    pub rate_max: Option<u64>,
}

/// A pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullOrder {
    /// From which node, by name or id.
    pub node: String,
    /// The folder or file there.
    pub source: FilePath,
    /// What of it is left out.
    pub filters: Filters,
    /// Bytes per second, at most.
    pub rate_max: Option<u64>,
}

/// An import: the tree that a workspace begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportOrder {
    /// The workspace that is to be.
    pub workspace: Name,
    /// What belongs to its trees.
    pub rules: Rules,
    /// Bytes that one of them may have.
    pub bytes_max: u64,
    /// The tree.
    pub root: TreeId,
    /// Its entries.
    pub entries: u64,
    /// Bytes of its files.
    pub bytes: u64,
}

impl Order {
    /// Which way.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Push(_) => Kind::Push,
            Self::Pull(_) => Kind::Pull,
            Self::Import(_) => Kind::Import,
        }
    }

    /// The folder of the node; an import has none.
    pub fn path(&self) -> Option<&FilePath> {
        match self {
            Self::Push(push) => Some(&push.dest),
            Self::Pull(pull) => Some(&pull.source),
            Self::Import(_) => None,
        }
    }

    /// The folder of the node, or the workspace, for people.
    pub fn place(&self) -> &str {
        match self {
            Self::Push(push) => push.dest.as_str(),
            Self::Pull(pull) => pull.source.as_str(),
            Self::Import(import) => import.workspace.as_str(),
        }
    }

    /// The tree with its entries and bytes; of a pull its node says it.
    pub fn tree(&self) -> Option<(TreeId, u64, u64)> {
        match self {
            Self::Push(push) => Some((push.root, push.entries, push.bytes)),
            Self::Pull(_) => None,
            Self::Import(import) => Some((import.root, import.entries, import.bytes)),
        }
    }

    fn filters(&self) -> Option<&Filters> {
        match self {
            Self::Push(push) => Some(&push.filters),
            Self::Pull(pull) => Some(&pull.filters),
            Self::Import(_) => None,
        }
    }

    fn rate_max(&self) -> Option<u64> {
        match self {
            Self::Push(push) => push.rate_max,
            Self::Pull(pull) => pull.rate_max,
            Self::Import(_) => None,
        }
    }

    /// What of the node it changes; `None` when nothing.
    pub(super) fn written(&self) -> Option<FilePath> {
        match self {
            Self::Push(push) if !push.dry_run => {
                let only = push.only.as_deref().and_then(|only| RelPath::parse(only).ok());
                let entry = only.and_then(|only| push.dest.join(&only).ok());
                Some(entry.unwrap_or_else(|| push.dest.clone()))
            }
            Self::Push(_) | Self::Pull(_) | Self::Import(_) => None,
        }
    }

    /// The right that is needed: on each node, of an import anywhere.
    pub(super) const fn right(&self) -> Right {
        match self {
            Self::Push(_) => Right::FilesWrite,
            Self::Pull(_) => Right::FilesRead,
            Self::Import(_) => Right::WorkspacesWrite,
        }
    }

    pub(super) fn check(&self) -> Result<(), Refusal> {
        self.filters().map_or(Ok(()), Filters::check)?;
        let invalid = |message: String| Err(Refusal::new(Code::InvalidArgument, message));
        if self.rate_max().is_some_and(|rate| rate < TRANSFER_RATE_MIN) {
            return invalid(format!("`rate_max` must be at least {TRANSFER_RATE_MIN} bytes per second."));
        }
        match self {
            Self::Push(push) if push.entries > TREE_ENTRIES_MAX => {
                let message = format!("A tree has at most {TREE_ENTRIES_MAX} entries.");
                Err(Refusal::new(Code::TooLarge, message).hint("Push its parts one by one."))
            }
            // What an import may have, the decision on its workspace says.
            Self::Push(_) | Self::Pull(_) | Self::Import(_) => Ok(()),
        }
    }
}
