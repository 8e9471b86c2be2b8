//! What the audit log has of steps that the hub does by itself: a row for each that changed something, or was
//! stopped by a rule. With counts and never a path within the folder: it is as short for a large change
//! as for a small one.

use cortex_core::audit::{AuditRow, Outcome};
use cortex_core::node::Node;
use cortex_core::sync::{Halt, PlanCounts, Rule};
use cortex_core::time::WallTime;
use cortex_core::words::count;
use cortex_core::workspace::{Member, Planning, Workspace};

/// Of whom a row is.
pub(super) struct Step<'s> {
    pub(super) ws: &'s Workspace,
    pub(super) member: &'s Member,
    pub(super) node: &'s Node,
    pub(super) planning: &'s Planning,
    pub(super) now: WallTime,
}

impl Step<'_> {
    /// A rule stopped it.
    pub(super) fn halted(&self, halt: &Halt) -> AuditRow {
        let rules: Vec<String> = halt
            .causes
            .iter()
            .map(|cause| format!("{} {}/{}", cause.rule.as_str(), cause.deletes, cause.of))
            .collect();
        let detail = format!("{}, halt {}: {}", self.revision(), halt.id, rules.join(", "));
        let rule = halt.causes.first().map(|cause| Rule::as_str(cause.rule).to_owned());
        AuditRow { reason: rule, ..self.row("workspace.halt", Outcome::Denied, detail) }
    }

    /// The hub took over what the member changed.
    pub(super) fn merged(&self, counts: &PlanCounts) -> Option<AuditRow> {
        let changed = counts.to_hub + counts.merged + counts.kept_both;
        let detail = format!("over revision {}: {}", self.planning.to, said(counts.to_hub, counts));
        (changed > 0).then(|| self.row("workspace.merge", Outcome::Allowed, detail))
    }

    /// The folder was brought to a revision; `again` when a hub before had begun with it, and nobody knows how
    /// far that came.
    pub(super) fn applied(&self, counts: &PlanCounts, again: bool) -> Option<AuditRow> {
        let changed = counts.to_node + counts.merged + counts.kept_both;
        let repair = if self.member.repair { ", repair" } else { "" };
        let taken_up = if again { ", taken up again" } else { "" };
        let detail = format!("{}: {}{repair}{taken_up}", self.revision(), said(counts.to_node, counts));
        (changed > 0 || again).then(|| self.row("workspace.apply", Outcome::Allowed, detail))
    }

    fn revision(&self) -> String {
        format!("revision {}", self.planning.to)
    }

    fn row(&self, action: &str, outcome: Outcome, detail: String) -> AuditRow {
        let (name, node) = (self.ws.name.to_string(), &self.node.name);
        let actor = format!("workspace:{name}");
        AuditRow {
            node: Some(self.node.id),
            argv: vec![name, format!("{node}:{}", self.member.path.as_str())],
            detail: Some(detail),
            ..AuditRow::new(self.now, actor, action, outcome)
        }
    }
}

fn said(moved: u64, counts: &PlanCounts) -> String {
    let held: u64 = counts.held.values().sum();
    let more = [(counts.merged, "merged"), (counts.kept_both, "kept both"), (held, "left as they are")];
    let more = more.into_iter().filter(|(count, _)| *count > 0);
    let more: String = more.map(|(count, what)| format!(", {count} {what}")).collect();
    format!("{}{more}", count(moved, "path", "paths"))
}
