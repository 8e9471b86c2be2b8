//! What a caller may do, in small steps: the words in which the table of doors
//! (`cortex_hub::access`), roles and the scopes of tokens are written.

use std::fmt;

use crate::error::{Code, Refusal};
use crate::name::printable;
use crate::token::Role;

macro_rules! rights {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $role:ident, $scope:ident;)*) => {
        /// One thing that one may do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Right { $($(#[$doc])* $variant,)* }

        impl Right {
            /// All, in the order of this table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable text form.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Reads the text form back.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }

            /// The lowest role that has it.
            pub const fn role(self) -> Role {
                match self { $(Self::$variant => Role::$role,)* }
            }

            /// Whether it is had on some nodes and not on others.
            pub const fn per_node(self) -> bool {
                match self { $(Self::$variant => scope!($scope),)* }
            }
        }
    };
}

macro_rules! scope {
    (node) => {
        true
    };
    (hub) => {
        false
    };
}

rights! {
    /// See figures of the hub, and how many nodes one sees.
    StatsRead = "stats:read", Viewer, node;
    /// See nodes.
    NodesRead = "nodes:read", Viewer, node;
    /// Rename, label, remove nodes, and give them recoveries.
    NodesWrite = "nodes:write", Admin, node;
    /// See runs and their output.
    RunsRead = "runs:read", Viewer, node;
    /// Start commands within the policies.
    RunsStart = "runs:start", Operator, node;
    /// Cancel runs and send them input.
    RunsControl = "runs:control", Operator, node;
    /// Read and search files within the policies. Their contents are more than what may be seen of a node.
    FilesRead = "files:read", Operator, node;
    /// Write, move and remove files within the policies.
    FilesWrite = "files:write", Operator, node;
    /// See workspaces, their members and their history.
    WorkspacesRead = "workspaces:read", Viewer, hub;
    /// Make, change, lock and remove workspaces; to attach a folder one also needs the right to its files.
    WorkspacesWrite = "workspaces:write", Operator, hub;
    /// See the library of skills, and what they hold: whoever promotes to it publishes.
    SkillsRead = "skills:read", Viewer, hub;
    /// Promote, mount and remove skills; one also needs the right to the files that are read or written.
    SkillsWrite = "skills:write", Operator, hub;
    /// See tasks of others.
    TasksRead = "tasks:read", Viewer, node;
    /// Submit tasks, which run on nodes where one may start commands.
    TasksSubmit = "tasks:submit", Operator, node;
    /// Cancel, retry and move tasks of others; one's own need `tasks:submit`.
    TasksControl = "tasks:control", Operator, node;
    /// Claim tasks for a worker that is no node.
    PoolWork = "pool:work", Operator, hub;
    /// Pause and drain the pool, and give tasks the highest priority.
    PoolAdmin = "pool:admin", Admin, hub;
    /// See policies, their history, and ask what they would answer.
    PolicyRead = "policy:read", Viewer, node;
    /// Change policies and profiles.
    PolicyWrite = "policy:write", Admin, node;
    /// See invites.
    InvitesRead = "invites:read", Viewer, hub;
    /// Make and revoke invites.
    InvitesWrite = "invites:write", Admin, hub;
    /// See tokens, without their secrets.
    TokensRead = "tokens:read", Viewer, hub;
    /// Make and revoke tokens.
    TokensWrite = "tokens:write", Admin, hub;
    /// See users, groups and grants.
    UsersRead = "users:read", Admin, hub;
    /// Add and remove users, and give roles.
    UsersWrite = "users:write", Admin, hub;
    /// See locks.
    LocksRead = "locks:read", Viewer, hub;
    /// Make and remove locks.
    LocksWrite = "locks:write", Admin, hub;
    /// See questions to people.
    ConsentsRead = "consents:read", Viewer, node;
    /// Answer them.
    ConsentsAnswer = "consents:answer", Operator, node;
    /// Read the audit log.
    AuditRead = "audit:read", Viewer, node;
    /// Follow events.
    EventsRead = "events:read", Viewer, node;
}

/// What a token of an AI client can have at most: it looks, it runs commands and works on files within
/// the policies. Nothing that holds it is in its reach (ABUSE 38).
pub const CLIENT: Rights = Rights::of(&[
    Right::StatsRead,
    Right::NodesRead,
    Right::RunsRead,
    Right::RunsStart,
    Right::RunsControl,
    Right::FilesRead,
    Right::FilesWrite,
    Right::TasksSubmit,
    Right::PoolWork,
    Right::PolicyRead,
    Right::ConsentsRead,
    Right::EventsRead,
]);

/// A set of rights.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Rights(u32);

const _: () = assert!(Right::ALL.len() <= 32, "the rights fit in the bits of a set");

impl Rights {
    /// None.
    pub const NONE: Self = Self(0);
    /// Every right.
    pub const ALL: Self = Self::of(Right::ALL);

    /// These.
    pub const fn of(rights: &[Right]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < rights.len() {
            bits |= 1 << (rights[at] as u8);
            at += 1;
        }
        Self(bits)
    }

    /// What a role has.
    pub const fn of_role(role: Role) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < Right::ALL.len() {
            if Right::ALL[at].role() as u8 <= role as u8 {
                bits |= 1 << (Right::ALL[at] as u8);
            }
            at += 1;
        }
        Self(bits)
    }

    /// Whether it is none.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Those that are had on some nodes and not on others.
    #[must_use]
    pub fn per_node(self) -> Self {
        self.iter()
            .filter(|right| right.per_node())
            .fold(Self::NONE, |all, right| all.union(Self::of(&[right])))
    }

    /// Whether this one is among them.
    pub const fn has(self, right: Right) -> bool {
        self.0 & (1 << (right as u8)) != 0
    }

    /// Whether all of `other` are among them.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Those of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that both have.
    #[must_use]
    pub const fn meet(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Each, in the order of the table.
    pub fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL.iter().copied().filter(move |right| self.has(*right))
    }

    /// Reads `runs:start,nodes:read`. An unknown word is refused `invalid_argument`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        words
            .map(|word| Right::parse(word).ok_or_else(|| unknown(word)))
            .try_fold(Self::NONE, |all, right| right.map(|right| all.union(Self::of(&[right]))))
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.iter().map(Right::as_str).collect();
        f.write_str(&words.join(","))
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rights({self})")
    }
}

fn unknown(word: &str) -> Refusal {
    let all: Vec<&str> = Right::ALL.iter().copied().map(Right::as_str).collect();
    Refusal::new(Code::InvalidArgument, format!("There is no right `{}`.", printable(word, 60)))
        .hint(format!("Choose among {}.", all.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_right_has_its_own_text_and_is_read_back() {
        for right in Right::ALL {
            assert_eq!(Right::parse(right.as_str()), Some(*right));
        }
        assert_eq!(Rights::parse("").expect("no word"), Rights::NONE);
        assert_eq!(Rights::parse(&Rights::ALL.to_string()).expect("our own text"), Rights::ALL);
        assert_eq!(Rights::parse("runs:start,root").expect_err("unknown").code, Code::InvalidArgument);
    }

    #[test]
    fn a_higher_role_has_all_of_the_lower_one_and_more() {
        let of = [Role::Viewer, Role::Operator, Role::Admin].map(Rights::of_role);
        assert!(of[1].contains(of[0]) && of[2].contains(of[1]) && of[2] == Rights::ALL);
        assert!(!of[0].contains(of[1]) && !of[1].contains(of[2]));
        assert!(of[0].iter().all(|right| right.as_str().ends_with(":read")), "a viewer changes nothing");
        assert!(!of[0].has(Right::FilesRead) && of[1].has(Right::FilesRead), "contents are no viewer's");
    }

    #[test]
    fn sets_join_and_meet() {
        let (a, b) = (Rights::of(&[Right::RunsRead, Right::RunsStart]), Rights::of(&[Right::RunsRead]));
        assert_eq!((a.meet(b), a.union(b)), (b, a));
        assert!(a.has(Right::RunsStart) && !b.has(Right::RunsStart));
        assert_eq!(a.to_string(), "runs:read,runs:start");
    }
}
