//! The tree of a promotion comes into the chunk store, and is looked at as a skill.

use std::collections::BTreeMap;

use cortex_content::graph::TreeQuota;
use cortex_content::object::Node as Entry;
use cortex_core::files::content::TreeId;
use cortex_core::files::path::{FilePath, RelPath};
use cortex_core::id::WorkspaceId;
use cortex_core::limits::{SKILL_BYTES_MAX, SKILL_FILES_MAX, SKILL_TEXT_BYTES_MAX, TREE_DEPTH_MAX};
use cortex_core::name::{Name, printable};
use cortex_core::node::Node;
use cortex_core::skill::{self, Package, SKILL_FILE};
use cortex_core::sync::{RootState, Why};
use cortex_core::transfer::{Carry, Filters, Noted, PathNote, SendAsk, TransferEnd, TransferWork};
use cortex_core::{Code, Refusal};

use super::{Brought, Inner};
use crate::mesh::{Asked, Asker};
use crate::service::Caller;
use crate::service::asking::{self, Ask, Asking};
use crate::transfer::TransferStream;
use crate::transfer::chunks::Chunks;
use crate::transfer::keep::{self, Content, Hold, Order};
use crate::transfer::merge;

/// Entries of a skill: as many folders as files.
const ENTRIES_MAX: u64 = 2 * SKILL_FILES_MAX;

impl Inner {
    /// The folder of a node comes into the chunk store. What the newest revision has is not sent again.
    pub(super) async fn bring(
        &self,
        caller: &Caller,
        node: &Node,
        path: &FilePath,
        known: Option<TreeId>,
    ) -> Result<Brought, Refusal> {
        let _turn = self.transfers.turn(node.id).await;
        let judge = || {
            self.context.still(caller)?.on(cortex_core::rights::Right::FilesRead, node)?;
            asking::judge(&self.context, node, path, false)
        };
        judge()?;
        let token = &caller.token;
        let asker = Asker { token: Some(token.id), user: token.user, node: node.id, attempt: None };
        let (id, mut asking) = Asking::of(&self.context, &self.mesh, asker);
        let work = TransferWork::Send(Box::new(SendAsk {
            source: path.clone(),
            base: None,
            only: None,
            // A link that leads out is seen then, and refused.
            filters: Filters { links_outside: true, ..Filters::default() },
            checksum: false,
            mark: false,
            identity: None,
        }));
        let ask = Ask { work, caller: caller.actor(), lock: None, what: "skills" };
        let stream = match asking.ask((&self.context, &self.mesh), id, node, ask).await? {
            Asked::Stream(stream) => stream,
            Asked::Over(_) => {
                let message = "The node said something that does not belong to this transfer.";
                return Err(Refusal::new(Code::InvalidArgument, message));
            }
        };
        asking.while_wanted(judge, self.receive(stream, path, known)).await
    }

    async fn receive(
        &self,
        stream: TransferStream,
        path: &FilePath,
        known: Option<TreeId>,
    ) -> Result<Brought, Refusal> {
        let TransferStream { sending, mut receiving } = stream;
        let told = keep::told(&mut receiving).await?;
        let received = async {
            refuse_state(told.state, path)?;
            if told.counts.files > SKILL_FILES_MAX || told.bytes > SKILL_BYTES_MAX {
                return Err(skill::too_large());
            }
            let entries = u32::try_from(ENTRIES_MAX).unwrap_or(u32::MAX);
            let quota = TreeQuota { entries, bytes: SKILL_BYTES_MAX, depth: TREE_DEPTH_MAX };
            let scope = known.into_iter().collect();
            let order = Order { root: told.root, quota, content: Content::All, scope, is_repeated: false };
            let hold = Hold::new(&self.chunks)?;
            let kept = keep::receive(&self.chunks, order, hold, &sending, &mut receiving).await?;
            kept.result?;
            refuse_held(&kept.held)?;
            Ok(kept.came)
        };
        match received.await {
            Ok(hold) => {
                let end = TransferEnd { root: Some(told.root), ..TransferEnd::default() };
                // One that is gone loses nothing by it.
                let _told = sending.send(Carry::End(Box::new(end))).await;
                Ok(Brought { hold, tree: told.root, from: None })
            }
            Err(refusal) => {
                sending.refuse(refusal.clone()).await;
                Err(refusal)
            }
        }
    }

    /// A folder of a workspace's tree, which the store has.
    pub(super) async fn branch(
        &self,
        id: WorkspaceId,
        name: &Name,
        root: TreeId,
        path: RelPath,
    ) -> Result<Brought, Refusal> {
        let name = name.clone();
        let find = move |chunks: &Chunks| {
            let hold = Hold::new(chunks)?;
            let tree = if path.is_root() {
                root
            } else {
                match chunks.find(root, &path)? {
                    Some(Entry::Dir { id, .. }) => id,
                    Some(Entry::File(_) | Entry::Link { .. }) => return Err(no_folder(path.as_str())),
                    None => {
                        let message =
                            format!("The workspace {name} has no `{}`.", printable(path.as_str(), 200));
                        return Err(Refusal::new(Code::NotFound, message)
                            .hint("Name a folder of its newest revision that has a `SKILL.md`."));
                    }
                }
            };
            Ok(Brought { hold, tree, from: Some(id) })
        };
        self.chunks.run(find).await
    }

    /// The proof that it is a skill, and is whole; with its files and bytes.
    pub(super) async fn package(&self, brought: Brought) -> Result<(Brought, Package, (u64, u64)), Refusal> {
        let look = move |chunks: &Chunks| {
            refuse_size(chunks.sums(brought.tree)?)?;
            // What the newest revision had of it may be gone: it was removed meanwhile.
            let complete = chunks.complete(brought.tree, brought.hold.pin())?.ok_or_else(|| {
                Refusal::new(Code::Conflict, "Something of the folder is not there any more.")
                    .hint("Promote it again.")
            })?;
            let counted = (complete.files(), complete.bytes());
            let mut entries = BTreeMap::new();
            list(chunks, brought.tree, &RelPath::root(), &mut entries)?;
            let text = match chunks.find(brought.tree, &RelPath::parse(SKILL_FILE)?)? {
                // One byte more than it may have says that it is too long.
                Some(Entry::File(file)) => chunks.read(&file, 0, SKILL_TEXT_BYTES_MAX + 1)?,
                Some(Entry::Dir { .. } | Entry::Link { .. }) | None => Vec::new(),
            };
            let package = Package::check(complete, &entries, &text)?;
            Ok((brought, package, counted))
        };
        self.chunks.run(look).await
    }
}

/// All below a folder, by path.
fn list(
    chunks: &Chunks,
    dir: TreeId,
    at: &RelPath,
    entries: &mut BTreeMap<RelPath, cortex_core::sync::Entry>,
) -> Result<(), Refusal> {
    for entry in chunks.dir(dir)? {
        let name = std::str::from_utf8(&entry.name).map_err(|_bytes| {
            let name = printable(&String::from_utf8_lossy(&entry.name), 200);
            let message = format!("The name `{name}` in the folder is no UTF-8 text.");
            Refusal::new(Code::UnsupportedEntry, message).hint("Give the file another name.")
        })?;
        let path = at.join(name)?;
        // Trees are at most 512 folders deep.
        if let Entry::Dir { id, .. } = entry.node {
            list(chunks, id, &path, entries)?;
        }
        entries.insert(path, merge::entry(&entry.node));
    }
    Ok(())
}

/// Before anything of it is listed.
fn refuse_size((entries, bytes): (u64, u64)) -> Result<(), Refusal> {
    let is_large = entries > ENTRIES_MAX || bytes > SKILL_BYTES_MAX;
    if is_large { Err(skill::too_large()) } else { Ok(()) }
}

fn refuse_state(state: RootState, path: &FilePath) -> Result<(), Refusal> {
    let shown = printable(path.as_str(), 200);
    match state {
        RootState::Dir => Ok(()),
        RootState::Missing => Err(Refusal::new(Code::NotFound, format!("The node has no `{shown}`."))
            .hint("List what is there with `cortex fs ls NODE:PATH`, and name a folder with a `SKILL.md`.")),
        RootState::OtherKind => Err(no_folder(path.as_str())),
        RootState::Unavailable => {
            let message = format!("The folder `{shown}` cannot be read on the node.");
            Err(Refusal::new(Code::NotFound, message).hint("See `cortex fs stat NODE:PATH`."))
        }
    }
}

/// What cannot be read is no part of a skill by silence. What is ignored is none by its owner's will.
fn refuse_held(held: &[PathNote]) -> Result<(), Refusal> {
    let blocked = held.iter().find_map(|note| {
        let Noted::Held(why) = note.what else { return None };
        (why != Why::Ignored).then_some((&note.path, why))
    });
    let Some((path, why)) = blocked else { return Ok(()) };
    let message = format!("`{}` cannot be part of a skill: {}.", printable(path.as_str(), 200), why.as_str());
    Err(Refusal::new(Code::UnsupportedEntry, message)
        .hint("Make it a file that can be read, or leave it out with a `.cortexignore` in the folder."))
}

fn no_folder(path: &str) -> Refusal {
    Refusal::new(Code::InvalidArgument, format!("`{}` is no folder.", printable(path, 200)))
        .hint("Name the folder that has the `SKILL.md`.")
}
