//! The walls around a run: how high they are, and what they leave open.
//!
//! A [`Level`] says which of the layers of SECURITY hold on a machine. [`Walls`] is what one
//! policy asks for there, with every path resolved; two of them [meet](Walls::meet) in what both
//! allow. How walls are put up is the node's affair (`cortex_node::sandbox`).

use std::collections::BTreeSet;

use crate::path;

/// How much of the sandbox holds. Each level has all of the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing holds a process but the rights of its user.
    None,
    /// Files and system calls are filtered, with gaps that the layers name.
    Partial,
    /// Files, network, signals and the kernel's surface are closed by Landlock and seccomp.
    #[default]
    Kernel,
    /// Besides, the run sees nothing but its own processes and what it was given.
    Full,
}

impl Level {
    /// All, lowest first.
    pub const ALL: &'static [Self] = &[Self::None, Self::Partial, Self::Kernel, Self::Full];

    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Partial => "partial",
            Self::Kernel => "kernel",
            Self::Full => "full",
        }
    }

    /// Reads the text form back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|level| level.as_str() == text)
    }
}

/// Whether a layer holds on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerState {
    /// It was tried and holds.
    Held,
    /// It holds in part; the note says what is open.
    Part,
    /// It is not there; the note says why, and what would mend it.
    Missing,
}

impl LayerState {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Part => "part",
            Self::Missing => "missing",
        }
    }

    /// Reads the text form back; anything unknown is missing.
    pub fn parse_or_missing(text: &str) -> Self {
        match text {
            "held" => Self::Held,
            "part" => Self::Part,
            _ => Self::Missing,
        }
    }
}

/// One layer as a node found it at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its name: `landlock`, `seccomp`, `pid`, `mount`, …
    pub name: String,
    /// Whether it holds.
    pub state: LayerState,
    /// One sentence on it; empty when there is nothing to say.
    pub note: String,
}

/// What may be done below a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Files are read.
    Read,
    /// Files are read, made, changed and removed.
    Write,
}

impl Access {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// Where a root lies, as a policy says it: a policy is made before its node is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RootPath {
    /// There, by [`path::normal`].
    Absolute(String),
    /// Below the home directory of the user of the node process, where its tools are.
    Home(String),
    /// The folders that the node's owner gave for work.
    Work,
}

/// A folder, or one file, that runs may use beside the base set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Root {
    /// Where.
    pub path: RootPath,
    /// For what.
    pub access: Access,
    /// Whether programs below it may be executed.
    pub exec: bool,
}

/// Which connections a run may open. Ports and not names: names are not seen by a kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// None, loopback neither.
    #[default]
    None,
    /// Outgoing TCP to these ports.
    Ports(BTreeSet<u16>),
    /// Whatever the machine can reach.
    All,
}

impl Network {
    /// What both allow.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::None, _) | (_, Self::None) => Self::None,
            (Self::All, any) | (any, Self::All) => any.clone(),
            (Self::Ports(a), Self::Ports(b)) => {
                let both: BTreeSet<u16> = a.intersection(b).copied().collect();
                if both.is_empty() { Self::None } else { Self::Ports(both) }
            }
        }
    }
}

/// What one run may use at most; `None` is no bound of the policy's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory of all its processes together.
    pub memory_bytes: Option<u64>,
    /// Processes and threads at once.
    pub processes: Option<u32>,
    /// Bytes of both output streams; a run that writes more is ended.
    pub output_bytes: Option<u64>,
    /// Descriptors that one process has open.
    pub files: Option<u64>,
    /// Bytes of one file that it writes.
    pub file_bytes: Option<u64>,
}

impl Limits {
    /// The tighter of both, each.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
            match (a, b) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (one, none) => one.or(none),
            }
        }
        Self {
            memory_bytes: least(self.memory_bytes, other.memory_bytes),
            processes: least(self.processes, other.processes),
            output_bytes: least(self.output_bytes, other.output_bytes),
            files: least(self.files, other.files),
            file_bytes: least(self.file_bytes, other.file_bytes),
        }
    }
}

/// Where a node has what a policy names only by its purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Home directory of the user of the node process; empty when there is none.
    pub home: String,
    /// Folders for work, the first one also for the run's own home; empty when there is none.
    pub work: Vec<String>,
}

/// What a node stands on: its place, and how high walls can be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ground {
    /// Where it has what policies name by purpose.
    pub place: Place,
    /// The level that was reached when the layers were tried.
    pub level: Option<Level>,
}

/// A folder, or one file, of a machine that runs may use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tree {
    /// Absolute and normal ([`path::normal`]).
    pub path: String,
    /// For what.
    pub access: Access,
    /// Whether programs below it may be executed.
    pub exec: bool,
}

/// What a policy asks for on one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walls {
    /// The least level; a run that cannot have it does not start.
    pub level: Level,
    /// What may be used beside the base set, in order of path, without doubles.
    pub trees: Vec<Tree>,
    /// Which connections may be opened.
    pub network: Network,
    /// Bounds.
    pub limits: Limits,
}

impl Walls {
    /// The walls of these roots at a place. A root that the place does not have is left out.
    pub fn at(place: &Place, level: Level, roots: &[Root], network: &Network, limits: &Limits) -> Self {
        let mut trees = Vec::new();
        for root in roots {
            let tree = |path: String| Tree { path, access: root.access, exec: root.exec };
            match &root.path {
                RootPath::Absolute(path) => trees.extend(path::normal(path).ok().map(tree)),
                RootPath::Home(below) if place.home.is_empty() || below.starts_with('/') => {}
                RootPath::Home(below) => {
                    trees.extend(path::normal(&format!("{}/{below}", place.home)).ok().map(tree));
                }
                RootPath::Work => {
                    trees.extend(place.work.iter().filter_map(|path| path::normal(path).ok()).map(tree));
                }
            }
        }
        Self { level, trees: tidy(trees), network: network.clone(), limits: *limits }
    }

    /// What both allow, behind the higher of both walls.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        let mut trees = Vec::new();
        for a in &self.trees {
            for b in &other.trees {
                let inner = if path::within(&a.path, &b.path) {
                    &a.path
                } else if path::within(&b.path, &a.path) {
                    &b.path
                } else {
                    continue;
                };
                trees.push(Tree {
                    path: inner.clone(),
                    access: a.access.min(b.access),
                    exec: a.exec && b.exec,
                });
            }
        }
        Self {
            level: self.level.max(other.level),
            trees: tidy(trees),
            network: self.network.meet(&other.network),
            limits: self.limits.meet(&other.limits),
        }
    }

    /// What may be done at an absolute, normal path: the union of the trees that it lies in.
    pub fn allows(&self, path: &str) -> Option<(Access, bool)> {
        self.trees
            .iter()
            .filter(|tree| path::within(path, &tree.path))
            .map(|tree| (tree.access, tree.exec))
            .reduce(|(access, exec), (other, also)| (access.max(other), exec || also))
    }
}

/// In order of path, each path once with all that was said of it.
fn tidy(mut trees: Vec<Tree>) -> Vec<Tree> {
    trees.sort();
    trees.dedup_by(|later, first| {
        let same = later.path == first.path;
        if same {
            first.access = first.access.max(later.access);
            first.exec |= later.exec;
        }
        same
    });
    trees
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &str, access: Access, exec: bool) -> Tree {
        Tree { path: path.to_owned(), access, exec }
    }

    fn walls(trees: &[(&str, Access, bool)]) -> Walls {
        let trees = trees.iter().map(|(path, access, exec)| tree(path, *access, *exec)).collect();
        Walls { trees: tidy(trees), ..Walls::default() }
    }

    #[test]
    fn levels_are_in_order_and_read_back() {
        assert!(Level::ALL.is_sorted());
        for level in Level::ALL {
            assert_eq!(Level::parse(level.as_str()), Some(*level));
        }
        assert_eq!((Level::parse("FULL"), Level::default()), (None, Level::Kernel));
        assert_eq!(LayerState::parse_or_missing("hold"), LayerState::Missing);
        for state in [LayerState::Held, LayerState::Part, LayerState::Missing] {
            assert_eq!(LayerState::parse_or_missing(state.as_str()), state);
        }
    }

    #[test]
    fn roots_are_resolved_at_their_place() {
        let place = Place { home: "/home/u".to_owned(), work: vec!["/w".to_owned(), "/srv/x".to_owned()] };
        let root = |path, access, exec| Root { path, access, exec };
        let roots = [
            root(RootPath::Work, Access::Write, true),
            root(RootPath::Home(".cargo/bin".to_owned()), Access::Read, true),
            root(RootPath::Home("/etc".to_owned()), Access::Write, true),
            root(RootPath::Home("../root".to_owned()), Access::Write, true),
            root(RootPath::Absolute("/opt/x".to_owned()), Access::Read, false),
            root(RootPath::Absolute("opt".to_owned()), Access::Write, true),
        ];
        let at =
            |place: &Place| Walls::at(place, Level::Kernel, &roots, &Network::None, &Limits::default()).trees;
        assert_eq!(
            at(&place),
            vec![
                tree("/home/u/.cargo/bin", Access::Read, true),
                tree("/opt/x", Access::Read, false),
                tree("/srv/x", Access::Write, true),
                tree("/w", Access::Write, true),
            ]
        );
        assert_eq!(at(&Place::default()), vec![tree("/opt/x", Access::Read, false)]);
    }

    #[test]
    fn walls_meet_in_what_both_allow() {
        use Access::{Read, Write};
        for (a, b, both) in [
            (&[("/w", Write, true)][..], &[("/w/a", Read, true)][..], &[("/w/a", Read, true)][..]),
            (&[("/w", Write, true)], &[("/wa", Write, true)], &[]),
            (&[("/", Read, true)], &[("/w", Write, false)], &[("/w", Read, false)]),
            (
                &[("/a", Read, false), ("/a/b", Write, false)],
                &[("/a", Write, false)],
                &[("/a", Read, false), ("/a/b", Write, false)],
            ),
            (&[], &[("/w", Write, true)], &[]),
        ] {
            assert_eq!(walls(a).meet(&walls(b)), walls(both), "{a:?} {b:?}");
            assert_eq!(walls(b).meet(&walls(a)), walls(both), "{b:?} {a:?}");
        }
    }

    #[test]
    fn networks_meet_in_the_ports_of_both() {
        let ports = |list: &[u16]| Network::Ports(list.iter().copied().collect());
        assert_eq!(ports(&[53, 443]).meet(&ports(&[443, 80])), ports(&[443]));
        assert_eq!(ports(&[53]).meet(&ports(&[443])), Network::None);
        assert_eq!(Network::All.meet(&ports(&[443])), ports(&[443]));
        assert_eq!(Network::All.meet(&Network::None), Network::None);
    }

    #[test]
    fn the_tighter_limit_holds_and_an_absent_one_bounds_nothing() {
        let some = Limits { memory_bytes: Some(5), processes: Some(9), ..Limits::default() };
        let other = Limits { memory_bytes: Some(7), files: Some(1), ..Limits::default() };
        let both = Limits { memory_bytes: Some(5), processes: Some(9), files: Some(1), ..Limits::default() };
        assert_eq!((some.meet(&other), other.meet(&some)), (both, both));
    }

    #[test]
    fn a_path_has_all_that_its_trees_give() {
        let walls = walls(&[("/a", Access::Read, true), ("/a/b", Access::Write, false)]);
        assert_eq!(walls.allows("/a/b/c"), Some((Access::Write, true)));
        assert_eq!(walls.allows("/a/bc"), Some((Access::Read, true)));
        assert_eq!(walls.allows("/b"), None);
    }
}
