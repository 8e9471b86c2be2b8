//! A store of one workspace, as strict as it has to be, and short names for what tests write often.

use std::collections::BTreeSet;

use cortex_core::Refusal;
use cortex_core::files::content::TreeId;
use cortex_core::files::path::FilePath;
use cortex_core::id::{MemberId, NodeId, Revision, WorkspaceId};
use cortex_core::name::Name;
use cortex_core::sync::{Cause, End, Halt, HaltId, Rule};
use cortex_core::time::WallTime;
use cortex_core::workspace::{
    Command, Complete, Decided, Member, Mode, NewWorkspace, RevisionRow, Role, RootIdentity, Rules, Source,
    Workspace, create, decide,
};

pub(crate) const NOW: WallTime = WallTime(1_800_000_000_000);
pub(crate) const ADA: &str = "token:ada";

/// The rows of one workspace.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rows {
    pub(crate) ws: Workspace,
    pub(crate) members: Vec<Member>,
    pub(crate) revisions: Vec<RevisionRow>,
    /// Trees that somebody has proved to be whole.
    pub(crate) proven: BTreeSet<TreeId>,
    pub(crate) now: WallTime,
}

impl Rows {
    pub(crate) fn new(mode: Mode, tree: TreeId) -> Self {
        let new = NewWorkspace {
            id: WorkspaceId::mint(1, &[1; 10]),
            name: Name::parse("docs").expect("a name"),
            mode,
            rules: Rules::default(),
            bytes_max: 1_000,
            owner: ADA.to_owned(),
        };
        let decided = create(new, whole(tree), NOW).expect("made");
        let revisions = decided.revision.into_iter().collect();
        let proven = BTreeSet::from([tree]);
        Self { ws: decided.ws, members: Vec::new(), revisions, proven, now: NOW }
    }

    /// Decides and stores. A command on one member is given that one only.
    pub(crate) fn decide(&mut self, command: Command) -> Result<Decided, Refusal> {
        let one = command.member();
        let members: Vec<Member> =
            self.members.iter().filter(|member| one.is_none_or(|id| id == member.id)).cloned().collect();
        let decided = decide(&self.ws, &members, command, self.now)?;
        self.ws = decided.ws.clone();
        self.revisions.extend(decided.revision.clone());
        for member in &decided.members {
            match self.members.iter_mut().find(|row| row.id == member.id) {
                Some(row) => *row = member.clone(),
                None => self.members.push(member.clone()),
            }
        }
        self.members.retain(|member| !decided.gone.contains(&member.id));
        Ok(decided)
    }

    pub(crate) fn prove(&mut self, tree: TreeId) -> Complete {
        self.proven.insert(tree);
        whole(tree)
    }

    pub(crate) fn member(&self, number: u8) -> Option<&Member> {
        self.members.iter().find(|row| row.id == member(number))
    }

    pub(crate) fn attach(&mut self, number: u8, role: Role) -> Result<Decided, Refusal> {
        self.decide(attach(number, role))
    }

    /// The tree of a revision; of one that is none nothing.
    pub(crate) fn tree_of(&self, n: Revision) -> Option<TreeId> {
        self.revisions.iter().find(|row| row.n == n).map(|row| row.tree)
    }

    pub(crate) fn edit(&mut self, tree: TreeId) -> Result<Decided, Refusal> {
        let complete = self.prove(tree);
        self.decide(Command::Commit {
            complete,
            expect: self.ws.head,
            source: Source::Edit,
            by: ADA.to_owned(),
            note: String::new(),
            lock: None,
        })
    }
}

pub(crate) fn attach(number: u8, role: Role) -> Command {
    Command::Attach {
        id: member(number),
        node: NodeId::mint(1, &[number; 10]),
        path: FilePath::parse("/srv/مستندات").expect("a path"),
        role,
        by: ADA.to_owned(),
    }
}

pub(crate) fn member(number: u8) -> MemberId {
    MemberId::mint(1, &[number; 10])
}

pub(crate) const fn root(number: u8) -> RootIdentity {
    RootIdentity { marker: [number; 32], dev: 1, ino: number as u64 }
}

pub(crate) fn whole(tree: TreeId) -> Complete {
    Complete::walked_in_the_chunk_store(tree, 1, 10)
}

pub(crate) fn tree(number: u8) -> TreeId {
    TreeId::of(&[number])
}

pub(crate) fn halt_id(number: u8) -> HaltId {
    tree(number).to_string().parse().expect("a hash")
}

pub(crate) fn halt(number: u8, rule: Rule) -> Halt {
    Halt { id: halt_id(number), causes: vec![Cause { rule, end: End::Hub, deletes: 30, of: 40 }] }
}
