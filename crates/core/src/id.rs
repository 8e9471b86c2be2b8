//! Identities and fencing numbers. Identities are UUIDs minted at the edge (version 7, so that
//! they sort by creation); numbers only ever grow.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// Wraps a UUID that was minted elsewhere.
            pub const fn new(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// A version 7 UUID from a wall-clock time and ten random bytes.
            pub fn mint(unix_ms: u64, random: &[u8; 10]) -> Self {
                Self(uuid::Builder::from_unix_timestamp_millis(unix_ms, random).into_uuid())
            }

            /// The sixteen bytes, as the wire and the store keep them.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// Reads the sixteen bytes back; `None` when there are not exactly sixteen.
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Uuid::from_slice(bytes).ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::from_str(text).map(Self)
            }
        }
    };
}

uuid_id!(
    /// One enrolment of one machine. A name that is used again is another node.
    NodeId
);
uuid_id!(
    /// One command on one node; also the command id that makes it run at most once.
    RunId
);
uuid_id!(
    /// One invite.
    InviteId
);
uuid_id!(
    /// One API token.
    TokenId
);
uuid_id!(
    /// One person. A name that is used again is another user.
    UserId
);
uuid_id!(
    /// One role given to a user or a group on some nodes.
    GrantId
);
uuid_id!(
    /// One lock on a user, token, node or label.
    LockId
);
uuid_id!(
    /// One question to a person, or one lasting answer.
    ConsentId
);
uuid_id!(
    /// One task of the work pool.
    TaskId
);
uuid_id!(
    /// One schedule, which makes a task at each of its ticks.
    ScheduleId
);
uuid_id!(
    /// One operation on files of one node; also the command id that makes it happen at most once.
    OpId
);
uuid_id!(
    /// One transfer of content between the hub and one node.
    TransferId
);
uuid_id!(
    /// One workspace. A name that is used again is another workspace.
    WorkspaceId
);
uuid_id!(
    /// One folder of one node that belongs to a workspace.
    MemberId
);
uuid_id!(
    /// One watch on a folder of a node, for as long as a link.
    WatchId
);

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The number after this one.
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// Fences links: taken from the store at attach, and a node refuses one lower than the
    /// highest that it has seen (DESIGN §6).
    Epoch
);
number!(
    /// Raised when a store is restored from a backup, so that numbers which went back are noticed.
    Generation
);
number!(
    /// Counts the changes of one policy, or of the tree of one workspace or skill.
    Revision
);
number!(
    /// Position in the durable event log, and in the audit log. The first row is 1.
    Seq
);
number!(
    /// Fences the work on a task: handed out with each lease, and raised by each (POOL rule 2). A task
    /// that was never claimed has 0.
    Attempt
);
number!(
    /// Fences work under the lock of a workspace: raised by each lock that is given.
    LockEpoch
);
number!(
    /// A lane of the work pool, numbered by the store when its first task comes.
    LaneId
);
number!(
    /// One connection of one node, unique within one hub process.
    LinkId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_and_its_bytes() {
        let id = RunId::mint(1_800_000_000_000, &[7; 10]);
        assert_eq!(id.to_string().parse::<RunId>().expect("its own text"), id);
        assert_eq!(RunId::from_slice(id.as_bytes()), Some(id));
    }

    #[test]
    fn only_sixteen_bytes_are_an_id() {
        for len in [0, 1, 15, 17, 32] {
            assert_eq!(NodeId::from_slice(&vec![1; len]), None, "{len} bytes");
        }
    }

    #[test]
    fn ids_sort_by_the_time_of_their_making() {
        let early = RunId::mint(1_000, &[255; 10]);
        let late = RunId::mint(1_001, &[0; 10]);
        assert!(early < late && early.to_string() < late.to_string());
    }

    #[test]
    fn a_number_only_grows() {
        assert!(Epoch(41).next() > Epoch(41));
        assert_eq!(Seq(1).next().to_string(), "2");
    }
}
