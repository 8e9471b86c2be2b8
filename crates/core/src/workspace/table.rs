//! Decisions with the rows that they need: read, decide and put, all in one transaction of whoever keeps
//! the rows. So two who saw the same head never both move it.

use super::{Command, Complete, Decided, Member, NewWorkspace, Workspace, admit, clash, create, decide};
use crate::error::{Code, Refusal};
use crate::id::{MemberId, NodeId, WorkspaceId};
use crate::limits::WORKSPACES_MAX;
use crate::name::Name;
use crate::time::WallTime;

/// Where rows are kept, within one transaction.
pub trait Table {
    /// Why it could not do its work.
    type Error: From<Refusal>;

    /// A workspace by id, removed ones too.
    ///
    /// # Errors
    /// Those of the table.
    fn workspace(&self, id: WorkspaceId) -> Result<Option<Workspace>, Self::Error>;
    /// A workspace by name among those that were not removed.
    ///
    /// # Errors
    /// Those of the table.
    fn workspace_named(&self, name: &Name) -> Result<Option<Workspace>, Self::Error>;
    /// How many there are that were not removed.
    ///
    /// # Errors
    /// Those of the table.
    fn workspace_count(&self) -> Result<usize, Self::Error>;
    /// A member by id.
    ///
    /// # Errors
    /// Those of the table.
    fn member(&self, id: MemberId) -> Result<Option<Member>, Self::Error>;
    /// All members of a workspace.
    ///
    /// # Errors
    /// Those of the table.
    fn members_of(&self, workspace: WorkspaceId) -> Result<Vec<Member>, Self::Error>;
    /// All members on a node, of whatever workspace.
    ///
    /// # Errors
    /// Those of the table.
    fn members_on(&self, node: NodeId) -> Result<Vec<Member>, Self::Error>;
    /// Keeps all that was decided, with its events.
    ///
    /// # Errors
    /// Those of the table.
    fn put(&mut self, decided: &Decided) -> Result<(), Self::Error>;
}

/// Refuses a workspace that could not be made at this moment, with a tree of so many entries and bytes: to be
/// asked before that tree is sent.
///
/// # Errors
/// Those of [`make`].
pub fn may_make<T: Table + ?Sized>(
    table: &T,
    new: &NewWorkspace,
    entries: u64,
    bytes: u64,
) -> Result<(), T::Error> {
    is_free(table, new)?;
    Ok(admit(new, entries, bytes)?)
}

fn is_free<T: Table + ?Sized>(table: &T, new: &NewWorkspace) -> Result<(), T::Error> {
    if table.workspace_named(&new.name)?.is_some() {
        let message = format!("Another workspace has the name `{}`.", new.name);
        let hint = "Choose another name, or remove the other with `cortex workspace rm` first.";
        return Err(Refusal::new(Code::Conflict, message).hint(hint).into());
    }
    if table.workspace_count()? >= WORKSPACES_MAX {
        let message = format!("The hub has {WORKSPACES_MAX} workspaces.");
        return Err(Refusal::new(Code::Quota, message).hint("Remove workspaces that are not needed.").into());
    }
    Ok(())
}

/// Makes a workspace and keeps it.
///
/// # Errors
/// Those of [`super::create()`]; `conflict` when another has the name, `quota` beyond [`WORKSPACES_MAX`].
pub fn make<T: Table + ?Sized>(
    table: &mut T,
    new: NewWorkspace,
    complete: Complete,
    now: WallTime,
) -> Result<Decided, T::Error> {
    is_free(table, &new)?;
    let decided = create(new, complete, now)?;
    table.put(&decided)?;
    Ok(decided)
}

/// Applies a command to a workspace and keeps what was decided.
///
/// # Errors
/// Those of [`super::decide()`]; `not_found` when there is no such workspace; `conflict` when a folder that
/// is to be attached and one of any member on its node are one in the other.
pub fn apply<T: Table + ?Sized>(
    table: &mut T,
    id: WorkspaceId,
    command: Command,
    now: WallTime,
) -> Result<Decided, T::Error> {
    let Some(ws) = table.workspace(id)? else {
        return Err(Refusal::new(Code::NotFound, format!("There is no workspace {id}."))
            .hint("List the workspaces with `cortex workspace ls` and use one of those names.")
            .into());
    };
    let members = match command.member() {
        Some(member) => table.member(member)?.filter(|row| row.workspace == id).into_iter().collect(),
        None => table.members_of(id)?,
    };
    if let Command::Attach { node, path, .. } = &command
        && let Some(other) = clash(*node, path, &table.members_on(*node)?)
    {
        return Err(super::member::clashes(path, other).into());
    }
    let decided = decide(&ws, &members, command, now)?;
    table.put(&decided)?;
    Ok(decided)
}
