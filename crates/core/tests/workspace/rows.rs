//! A store of one workspace, as strict as it has to be, and short names for what tests write often.

use std::collections::BTreeSet;

use cortex_core::Refusal;
use cortex_core::event::EventKind;
use cortex_core::files::content::TreeId;
use cortex_core::files::path::FilePath;
use cortex_core::id::{LockEpoch, MemberId, NodeId, Revision, WorkspaceId};
use cortex_core::name::Name;
use cortex_core::sync::{Cause, End, Halt, HaltId, Rule};
use cortex_core::time::WallTime;
use cortex_core::workspace::{
    Command, Complete, Decided, Member, MemberState, Mode, NewWorkspace, Planning, RevisionRow, Role,
    RootIdentity, Rules, Source, Step, Workspace, create, decide, next,
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

/// A workspace whose source is the hub's copy.
pub(crate) fn hub() -> Rows {
    Rows::new(Mode::HubPrimary, tree(0))
}

/// The same with one member.
pub(crate) fn hub_with(role: Role) -> Rows {
    let mut rows = hub();
    rows.attach(1, role).expect("attached");
    rows
}

pub(crate) fn observed(rows: &mut Rows, number: u8, seen: u8) -> Decided {
    let news = rows.member(number).expect("a member").news;
    let told = Command::Observed { member: member(number), root: Some(root(number)), tree: tree(seen), news };
    rows.decide(told).expect("it is a member")
}

pub(crate) fn planning(rows: &Rows, number: u8) -> Planning {
    match next(&rows.ws, rows.member(number).expect("a member"), true) {
        Step::Merge(planning) | Step::Apply(planning) => planning,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn step(rows: &Rows, number: u8) -> Step {
    next(&rows.ws, rows.member(number).expect("a member"), true)
}

pub(crate) fn state(rows: &Rows, number: u8) -> MemberState {
    rows.member(number).expect("a member").state(&rows.ws)
}

pub(crate) fn kinds(decided: &Decided) -> Vec<EventKind> {
    decided.events.iter().map(|event| event.kind).collect()
}

pub(crate) fn commit(expect: u64, number: u8, lock: Option<LockEpoch>) -> Command {
    let (source, by, note) = (Source::Edit, ADA.to_owned(), String::new());
    Command::Commit { complete: whole(tree(number)), expect: Revision(expect), source, by, note, lock }
}

pub(crate) fn lock(rows: &mut Rows) -> LockEpoch {
    rows.decide(Command::Lock { holder: ADA.to_owned(), ttl_ms: 60_000 }).expect("free");
    rows.ws.epoch
}

/// The member 1 has sent this tree.
pub(crate) fn received(sent: u8) -> Command {
    Command::Received { member: member(1), complete: whole(tree(sent)) }
}

/// The plan for member 1 had nothing to do; the tree of that number is agreed on.
pub(crate) fn settled(planning: Planning, agreed: u8) -> Command {
    Command::Settled { member: member(1), planning, agreed: whole(tree(agreed)) }
}

/// Member 1 has this tree after a plan, and the other one is agreed on.
pub(crate) fn applied(planning: Planning, has: u8, agreed: u8) -> Command {
    let agreed = whole(tree(agreed));
    Command::Applied { member: member(1), planning, tree: tree(has), agreed, conflicts: 0 }
}
