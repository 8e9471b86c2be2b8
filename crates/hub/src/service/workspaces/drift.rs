//! In what members differ from their workspace, as their nodes say at this moment.

use cortex_content::object::Node;
use cortex_core::files::answer::Diff;
use cortex_core::files::path::RelPath;
use cortex_core::rights::Right;
use cortex_core::{Code, Refusal};
use cortex_wire::diff::unified;

use super::Workspaces;
use super::steps::Want;
use crate::service::Caller;
use crate::transfer::merge::{Difference, differences};

/// Paths of one member, at most.
const PATHS_MAX: usize = 1_000;
/// Files of one member of which the difference is shown, at most.
const DIFFS_MAX: usize = 100;
/// The longest file of which it is shown.
const DIFF_FILE_BYTES_MAX: u64 = 256 * 1024;
/// Bytes of such files that one look brings.
const BROUGHT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A member, and in what it differs.
#[derive(Clone, Debug)]
pub struct Drift {
    /// `NODE:PATH`.
    pub member: String,
    /// At which revision it was compared.
    pub revision: cortex_core::id::Revision,
    /// Where it differs, at most 1,000 paths.
    pub paths: Vec<DriftPath>,
    /// Whether there are more.
    pub is_cut: bool,
    /// Why nobody knows.
    pub error: Option<Refusal>,
}

/// One path that differs.
#[derive(Clone, Debug)]
pub struct DriftPath {
    /// Where.
    pub path: RelPath,
    /// What the workspace has.
    pub hub: Option<Node>,
    /// What the member has.
    pub node: Option<Node>,
    /// The difference of two texts.
    pub diff: Option<Diff>,
}

impl Workspaces {
    /// In what members differ; with `diff` how their texts do. Asks their nodes. Needs `workspaces:read`, and
    /// `files:read` on each node.
    ///
    /// # Errors
    /// `forbidden`, `not_found`. What is refused of one member is told there.
    pub async fn drift(
        &self,
        caller: &Caller,
        name: &str,
        members: &[String],
        diff: bool,
    ) -> Result<Vec<Drift>, Refusal> {
        caller.anywhere(Right::WorkspacesRead)?;
        let id = self.0.find(name)?;
        let mut all = Vec::new();
        for (said, member) in self.0.chosen(caller, id, members)? {
            let Some((ws, member)) = self.0.row(member.id) else { continue };
            let mut drift =
                Drift { member: said, revision: ws.head, paths: Vec::new(), is_cut: false, error: None };
            match self.of_member(caller, &ws, &member, diff).await {
                Ok((paths, is_cut)) => (drift.paths, drift.is_cut) = (paths, is_cut),
                Err(refusal) => drift.error = Some(refusal),
            }
            all.push(drift);
        }
        Ok(all)
    }

    async fn of_member(
        &self,
        caller: &Caller,
        ws: &cortex_core::workspace::Workspace,
        member: &cortex_core::workspace::Member,
        diff: bool,
    ) -> Result<(Vec<DriftPath>, bool), Refusal> {
        let inner = &self.0;
        let node = inner.node(member)?;
        caller.on(Right::FilesRead, &node)?;
        let want = if diff { Want::Short(BROUGHT_BYTES_MAX) } else { Want::Objects };
        let looked = inner.looked(ws, member, &node, want).await?.ok_or_else(|| {
            Refusal::new(Code::NotFound, "The folder of the member is not there.")
                .hint("Bring the folder back on its node, or detach the member.")
        })?;
        let (hub, name) = (ws.tree, format!("{}:{}", node.name, member.path.as_str()));
        inner
            .chunks
            .run(move |chunks| {
                let (found, is_cut) = differences(chunks, hub, looked.tree, PATHS_MAX)?;
                let mut shown = 0;
                let paths = found.into_iter().map(|Difference { path, hub, node }| {
                    let text = |side: &Option<Node>| match side {
                        None => Some(Vec::new()),
                        Some(Node::File(file)) if file.size <= DIFF_FILE_BYTES_MAX => {
                            // One that was not brought is not shown.
                            let has = file.size == 0 || chunks.blobs().chunk(&file.id).ok()?.is_some();
                            has.then(|| chunks.read(file, 0, usize::MAX).ok()).flatten()
                        }
                        Some(Node::File(_) | Node::Dir { .. } | Node::Link { .. }) => None,
                    };
                    let is_file = [&hub, &node].iter().any(|side| matches!(side, Some(Node::File(_))));
                    let diff = (diff && is_file && shown < DIFFS_MAX)
                        .then(|| Some((text(&hub)?, text(&node)?)))
                        .flatten()
                        .map(|(old, new)| {
                            shown += 1;
                            let at = path.as_str();
                            unified(&old, &new, &format!("a/{at}"), &format!("{name}/{at}"))
                        });
                    DriftPath { path, hub, node, diff }
                });
                Ok((paths.collect(), is_cut))
            })
            .await
    }
}
