//! What the library holds.

use cortex_content::object::{FileNode, Node};
use cortex_core::files::path::RelPath;
use cortex_core::id::Revision;
use cortex_core::limits::SKILL_REVISIONS_KEPT;
use cortex_core::name::{Name, printable};
use cortex_core::rights::Right;
use cortex_core::skill::SkillRow;
use cortex_core::{Code, Refusal};

use super::{Skills, none};
use crate::service::Caller;
use crate::transfer::chunks::Chunks;

/// Bytes of a file that one answer holds, at most: all of a `SKILL.md`.
pub const READ_BYTES_MAX: usize = cortex_core::limits::SKILL_TEXT_BYTES_MAX;

/// A skill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its newest revision.
    pub head: SkillRow,
    /// Files and links in that.
    pub files: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Its revisions since it was last removed, the newest first.
    pub revisions: Vec<SkillRow>,
}

/// What lies at a path of a skill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileShown {
    /// Of which revision.
    pub row: SkillRow,
    /// Where.
    pub path: RelPath,
    /// What.
    pub found: Found,
}

/// What it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A file, with a part of its bytes.
    File {
        /// It.
        node: FileNode,
        /// Where the part begins.
        from: u64,
        /// The part.
        bytes: Vec<u8>,
    },
    /// A folder, with a part of its entries, by name.
    Dir(Listed),
    /// A link.
    Link(Vec<u8>),
}

/// Entries of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Each with its name.
    pub entries: Vec<(String, Node)>,
    /// Whether more come behind.
    pub more: bool,
}

/// Which part of a file or folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// From which byte of a file on.
    pub from: u64,
    /// How many bytes of a file, or entries of a folder.
    pub max: Option<usize>,
    /// Entries behind this name.
    pub after: Option<String>,
}

impl Skills {
    /// The newest revision of each skill, by name. Needs `skills:read`.
    ///
    /// # Errors
    /// `forbidden`, `store_unavailable`.
    pub async fn list(&self, caller: &Caller) -> Result<Vec<SkillRow>, Refusal> {
        caller.anywhere(Right::SkillsRead)?;
        self.0.context.view(|view| view.skills()).await
    }

    /// One with its revisions. Needs `skills:read`.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `store_unavailable`.
    pub async fn show(&self, caller: &Caller, name: &str) -> Result<Shown, Refusal> {
        caller.anywhere(Right::SkillsRead)?;
        let revisions = self.revisions(name).await?;
        let head = revisions.first().cloned().ok_or_else(|| none(name))?;
        let tree = head.tree;
        let (files, bytes) =
            self.0.chunks.run(move |chunks| Ok((chunks.counts(tree)?.files, chunks.sums(tree)?.1))).await?;
        Ok(Shown { head, files, bytes, revisions })
    }

    /// What lies at a path of a revision, the newest one when none is named. Of a file at most
    /// [`READ_BYTES_MAX`] bytes come, of a folder at most 1,000 entries. Needs `skills:read`.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `store_unavailable`.
    pub async fn read(
        &self,
        caller: &Caller,
        name: &str,
        revision: Option<Revision>,
        path: RelPath,
        part: Part,
    ) -> Result<FileShown, Refusal> {
        caller.anywhere(Right::SkillsRead)?;
        let revisions = self.revisions(name).await?;
        if revisions.is_empty() {
            return Err(none(name));
        }
        let row = match revision {
            None => revisions.into_iter().next(),
            Some(n) => revisions.into_iter().find(|row| row.n == n),
        };
        let row = row.ok_or_else(|| {
            let n = revision.unwrap_or_default();
            Refusal::new(Code::NotFound, format!("Skill {} has no revision {n}.", printable(name, 120)))
                .hint("See its revisions with `cortex skill show NAME`.")
        })?;
        let (tree, at) = (row.tree, path.clone());
        let found = self.0.chunks.run(move |chunks| {
            let node =
                if at.is_root() { None } else { Some(chunks.find(tree, &at)?.ok_or_else(|| no_path(&at))?) };
            match node {
                None => Ok(Found::Dir(listed(chunks, tree, &part)?)),
                Some(Node::Dir { id, .. }) => Ok(Found::Dir(listed(chunks, id, &part)?)),
                Some(Node::Link { target, .. }) => Ok(Found::Link(target.to_vec())),
                Some(Node::File(node)) => {
                    let max = part.max.unwrap_or(READ_BYTES_MAX).min(READ_BYTES_MAX);
                    let bytes = chunks.read(&node, part.from, max)?;
                    Ok(Found::File { node, from: part.from, bytes })
                }
            }
        });
        Ok(FileShown { found: found.await?, row, path })
    }

    /// Revisions since the skill was last removed, the newest first.
    async fn revisions(&self, name: &str) -> Result<Vec<SkillRow>, Refusal> {
        let name = Name::parse(name).map_err(|_no_name| none(name))?;
        let rows = self.0.context.view(move |view| view.skill_revisions(&name, None, SKILL_REVISIONS_KEPT));
        Ok(rows.await?.into_iter().take_while(|row| row.removed_at.is_none()).collect())
    }
}

fn listed(chunks: &Chunks, dir: cortex_core::files::content::TreeId, part: &Part) -> Result<Listed, Refusal> {
    let max = part.max.unwrap_or(usize::MAX).min(cortex_core::limits::PAGE_ITEMS_MAX);
    let named = chunks.dir(dir)?.into_iter().filter_map(|entry| {
        // What was promoted has names that are text.
        let name = String::from_utf8(entry.name.to_vec()).ok()?;
        Some((name, entry.node))
    });
    let mut entries: Vec<(String, Node)> =
        named.filter(|(name, _)| part.after.as_ref().is_none_or(|after| name > after)).collect();
    let more = entries.len() > max;
    entries.truncate(max);
    Ok(Listed { entries, more })
}

fn no_path(path: &RelPath) -> Refusal {
    Refusal::new(Code::NotFound, format!("The skill has no `{}`.", printable(path.as_str(), 200)))
        .hint("List what it has with `cortex skill show NAME --files`.")
}
