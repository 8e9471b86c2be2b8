//! Who may call what: one row per route of the HTTP door and per call of the node door. A route
//! without a row is refused to everybody, and fails a test; a call without a row does not compile.
//!
//! The table says what a caller needs at all. On which nodes it has it, the services ask
//! (`service::targets`).

use cortex_core::Refusal;
use cortex_core::rights::Right;
use cortex_core::token::Tool;
use cortex_core::{Code, access::Who};

/// Where one knocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// A route.
    Http {
        /// Its method.
        method: &'static str,
        /// Its pattern, as the router has it.
        path: &'static str,
    },
    /// A call of the node port.
    Grpc {
        /// Its service, with the package.
        service: &'static str,
        /// Its name.
        method: &'static str,
    },
}

/// What one must show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// An invite, in the request.
    Invite,
    /// The certificate of a node.
    NodeCertificate,
    /// A signature by the recovery key of a node, in the request.
    RecoveryKey,
    /// A good token, whatever it may do.
    AnyToken,
    /// A token with this right; on a node that is named, there.
    Right(Right),
    /// A token with the first of these rights, which is the one to ask for, or with one of the others.
    OneOf(Right, &'static [Right]),
    /// A token with this right on all nodes: what is given here cannot be narrowed.
    Everywhere(Right),
}

/// What is named in the path, and answered like an unknown one to whoever does not see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Nothing that some see and others do not.
    Nothing,
    /// A node.
    Node,
    /// A run: it is seen by who sees its node.
    Run,
    /// A question to a person, likewise.
    Consent,
    /// An answer that lasts, likewise.
    ConsentRule,
    /// A task: it is seen by who submitted it, and by who may see all tasks.
    Task,
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where.
    pub door: Door,
    /// What for.
    pub needs: Needs,
    /// The tool that opens it to an AI client; without one no client comes in.
    pub tool: Option<Tool>,
    /// What its path names.
    pub names: Names,
}

impl Entry {
    const fn http(method: &'static str, path: &'static str, needs: Needs) -> Self {
        Self { door: Door::Http { method, path }, needs, tool: None, names: names(path) }
    }

    const fn grpc(service: &'static str, method: &'static str, needs: Needs) -> Self {
        Self { door: Door::Grpc { service, method }, needs, tool: None, names: Names::Nothing }
    }

    const fn tool(self, tool: Tool) -> Self {
        Self { tool: Some(tool), ..self }
    }

    /// Refuses who may not come in here at all: `wrong_audience` when the token is for other doors,
    /// `forbidden` when it has the right nowhere.
    pub fn admit(&self, who: &Who) -> Result<(), Refusal> {
        match self.needs {
            Needs::Nothing | Needs::AnyToken => Ok(()),
            Needs::Right(_) | Needs::OneOf(..) | Needs::Everywhere(_) if !who.token.has_tool(self.tool) => {
                Err(self.wrong_audience(who))
            }
            Needs::Right(right) => who.anywhere(right),
            Needs::OneOf(_, others) if others.iter().any(|right| who.anywhere(*right).is_ok()) => Ok(()),
            Needs::OneOf(first, _) => who.anywhere(first),
            Needs::Everywhere(right) if who.everywhere(right) => Ok(()),
            Needs::Everywhere(right) => {
                let message =
                    format!("`{}` may not do this: it needs {} on all nodes.", who.actor(), right.as_str());
                Err(Refusal::new(Code::Forbidden, message).detail("right", right.as_str()))
            }
            Needs::Invite | Needs::NodeCertificate | Needs::RecoveryKey => {
                Err(Refusal::new(Code::WrongAudience, "This door takes no API token."))
            }
        }
    }

    fn wrong_audience(&self, who: &Who) -> Refusal {
        let tools: Vec<&str> = who.token.tools.iter().flatten().copied().map(Tool::as_str).collect();
        let message = match self.tool {
            Some(tool) => {
                format!("The token `{}` is for other tools than {}.", who.token.name, tool.as_str())
            }
            None => format!("The token `{}` is an AI client's, and this is for no tool.", who.token.name),
        };
        Refusal::new(Code::WrongAudience, message)
            .hint(format!("Use the tools of this token: {}.", tools.join(", ")))
    }
}

const fn open(method: &'static str, path: &'static str) -> Entry {
    Entry::http(method, path, Needs::Nothing)
}

const fn any(method: &'static str, path: &'static str) -> Entry {
    Entry::http(method, path, Needs::AnyToken)
}

const fn http(method: &'static str, path: &'static str, right: Right) -> Entry {
    Entry::http(method, path, Needs::Right(right))
}

/// To look at tasks: whoever submits may look at its own.
const fn task(method: &'static str, path: &'static str) -> Entry {
    Entry::http(method, path, Needs::OneOf(Right::TasksRead, &[Right::TasksSubmit]))
}

const WRITES_OR_IMPORTS: &[Right] = &[Right::FilesWrite, Right::WorkspacesWrite];
const READS_OR_IMPORTS: &[Right] = &[Right::FilesRead, Right::WorkspacesWrite];

/// Transfers: pushes need the right to write files, pulls that to read them, on the nodes that they name; imports
/// that to make workspaces, and none to files: what they bring is the caller's own. Which of them it takes, the kind
/// says; of one that is there, whose it is.
const fn transfer(method: &'static str, path: &'static str, first: Right, others: &'static [Right]) -> Entry {
    Entry::http(method, path, Needs::OneOf(first, others)).tool(Tool::WorkspaceSync)
}

const fn grpc(service: &'static str, method: &'static str, needs: Needs) -> Entry {
    Entry::grpc(service, method, needs)
}

/// All rows.
pub const ENTRIES: &[Entry] = &[
    open("GET", "/healthz"),
    open("GET", "/readyz"),
    open("GET", "/metrics"),
    open("GET", "/api/v1/openapi.json"),
    http("GET", "/api/v1/stats", Right::StatsRead),
    any("GET", "/api/v1/whoami"),
    http("GET", "/api/v1/nodes", Right::NodesRead).tool(Tool::NodesList),
    http("GET", "/api/v1/nodes/{node}", Right::NodesRead).tool(Tool::NodeDescribe),
    http("PATCH", "/api/v1/nodes/{node}", Right::NodesWrite),
    http("DELETE", "/api/v1/nodes/{node}", Right::NodesWrite),
    http("GET", "/api/v1/nodes/{node}/recoveries", Right::NodesRead),
    http("PUT", "/api/v1/nodes/{node}/recoveries", Right::NodesWrite),
    http("GET", "/api/v1/nodes/{node}/fs", Right::FilesRead).tool(Tool::FsRead),
    http("GET", "/api/v1/nodes/{node}/fs/search", Right::FilesRead).tool(Tool::FsSearch),
    http("PUT", "/api/v1/nodes/{node}/fs", Right::FilesWrite).tool(Tool::FsWrite),
    http("PATCH", "/api/v1/nodes/{node}/fs", Right::FilesWrite).tool(Tool::FsEdit),
    http("DELETE", "/api/v1/nodes/{node}/fs", Right::FilesWrite).tool(Tool::FsEdit),
    transfer("GET", "/api/v1/transfers", Right::FilesRead, WRITES_OR_IMPORTS),
    transfer("POST", "/api/v1/transfers", Right::FilesWrite, READS_OR_IMPORTS),
    transfer("GET", "/api/v1/transfers/{id}", Right::FilesRead, WRITES_OR_IMPORTS),
    transfer("DELETE", "/api/v1/transfers/{id}", Right::FilesWrite, READS_OR_IMPORTS),
    transfer("GET", "/api/v1/transfers/{id}/wants", Right::FilesRead, WRITES_OR_IMPORTS),
    transfer("POST", "/api/v1/transfers/{id}/wants", Right::FilesWrite, &[Right::FilesRead]),
    transfer("PUT", "/api/v1/transfers/{id}/packs", Right::FilesWrite, READS_OR_IMPORTS),
    transfer("POST", "/api/v1/transfers/{id}/missing", Right::FilesWrite, READS_OR_IMPORTS),
    transfer("GET", "/api/v1/transfers/{id}/content", Right::FilesRead, &[Right::FilesWrite]),
    transfer("POST", "/api/v1/transfers/{id}/end", Right::FilesWrite, &[Right::FilesRead]),
    http("GET", "/api/v1/workspaces", Right::WorkspacesRead),
    http("POST", "/api/v1/workspaces", Right::WorkspacesWrite),
    http("GET", "/api/v1/workspaces/{workspace}", Right::WorkspacesRead),
    http("PATCH", "/api/v1/workspaces/{workspace}", Right::WorkspacesWrite),
    http("DELETE", "/api/v1/workspaces/{workspace}", Right::WorkspacesWrite),
    http("GET", "/api/v1/workspaces/{workspace}/members", Right::WorkspacesRead),
    http("POST", "/api/v1/workspaces/{workspace}/members", Right::WorkspacesWrite),
    http("DELETE", "/api/v1/workspaces/{workspace}/members", Right::WorkspacesWrite),
    http("GET", "/api/v1/workspaces/{workspace}/drift", Right::WorkspacesRead),
    http("PUT", "/api/v1/workspaces/{workspace}/lock", Right::WorkspacesWrite),
    http("DELETE", "/api/v1/workspaces/{workspace}/lock", Right::WorkspacesWrite),
    http("POST", "/api/v1/workspaces/{workspace}/resync", Right::WorkspacesWrite),
    http("GET", "/api/v1/workspaces/{workspace}/history", Right::WorkspacesRead),
    http("GET", "/api/v1/workspaces/{workspace}/manifest", Right::WorkspacesRead),
    http("POST", "/api/v1/workspaces/{workspace}/restore", Right::WorkspacesWrite),
    http("GET", "/api/v1/skills", Right::SkillsRead),
    http("GET", "/api/v1/skills/{skill}", Right::SkillsRead),
    http("DELETE", "/api/v1/skills/{skill}", Right::SkillsWrite),
    http("GET", "/api/v1/skills/{skill}/files", Right::SkillsRead),
    http("POST", "/api/v1/skills/{skill}/promote", Right::SkillsWrite),
    http("GET", "/api/v1/skills/{skill}/mounts", Right::SkillsRead),
    http("POST", "/api/v1/skills/{skill}/mounts", Right::SkillsWrite),
    http("DELETE", "/api/v1/skills/{skill}/mounts", Right::SkillsWrite),
    http("GET", "/api/v1/invites", Right::InvitesRead),
    http("POST", "/api/v1/invites", Right::InvitesWrite),
    http("DELETE", "/api/v1/invites/{id}", Right::InvitesWrite),
    http("GET", "/api/v1/locks", Right::LocksRead),
    http("POST", "/api/v1/locks", Right::LocksWrite),
    http("DELETE", "/api/v1/locks/{id}", Right::LocksWrite),
    http("GET", "/api/v1/tokens", Right::TokensRead),
    http("POST", "/api/v1/tokens", Right::TokensWrite),
    http("DELETE", "/api/v1/tokens/{token}", Right::TokensWrite),
    open("POST", "/api/v1/login"),
    any("POST", "/api/v1/logout"),
    any("POST", "/api/v1/password"),
    http("GET", "/api/v1/users", Right::UsersRead),
    http("POST", "/api/v1/users", Right::UsersWrite),
    http("GET", "/api/v1/users/{user}", Right::UsersRead),
    http("PATCH", "/api/v1/users/{user}", Right::UsersWrite),
    http("DELETE", "/api/v1/users/{user}", Right::UsersWrite),
    http("GET", "/api/v1/grants", Right::UsersRead),
    http("POST", "/api/v1/grants", Right::UsersWrite),
    http("DELETE", "/api/v1/grants/{id}", Right::UsersWrite),
    http("GET", "/api/v1/policies", Right::PolicyRead),
    http("GET", "/api/v1/policies/{node}", Right::PolicyRead).tool(Tool::NodeDescribe),
    http("PUT", "/api/v1/policies/{node}", Right::PolicyWrite),
    http("POST", "/api/v1/policies/{node}/allow", Right::PolicyWrite),
    http("POST", "/api/v1/policies/{node}/deny", Right::PolicyWrite),
    http("POST", "/api/v1/policies/{node}/test", Right::PolicyRead).tool(Tool::NodeDescribe),
    http("POST", "/api/v1/policies/{node}/rollback", Right::PolicyWrite),
    http("POST", "/api/v1/policies/{node}/diff", Right::PolicyRead),
    http("GET", "/api/v1/policies/{node}/history", Right::PolicyRead),
    http("GET", "/api/v1/profiles", Right::PolicyRead),
    http("GET", "/api/v1/profiles/{profile}", Right::PolicyRead),
    Entry::http("PUT", "/api/v1/profiles/{profile}", Needs::Everywhere(Right::PolicyWrite)),
    Entry::http("DELETE", "/api/v1/profiles/{profile}", Needs::Everywhere(Right::PolicyWrite)),
    http("GET", "/api/v1/audit", Right::AuditRead),
    Entry::http("GET", "/api/v1/audit/export", Needs::Everywhere(Right::AuditRead)),
    Entry::http("GET", "/api/v1/audit/verify", Needs::Everywhere(Right::AuditRead)),
    http("GET", "/api/v1/events", Right::EventsRead),
    http("GET", "/api/v1/runs", Right::RunsRead),
    http("POST", "/api/v1/runs", Right::RunsStart).tool(Tool::Exec),
    http("GET", "/api/v1/runs/{id}", Right::RunsRead).tool(Tool::RunGet),
    http("GET", "/api/v1/runs/{id}/output", Right::RunsRead).tool(Tool::RunGet),
    http("POST", "/api/v1/runs/{id}/cancel", Right::RunsControl).tool(Tool::RunCancel),
    http("POST", "/api/v1/runs/{id}/rerun", Right::RunsStart).tool(Tool::Exec),
    http("POST", "/api/v1/runs/{id}/stdin", Right::RunsControl).tool(Tool::Exec),
    http("GET", "/api/v1/consents", Right::ConsentsRead).tool(Tool::RunGet),
    http("GET", "/api/v1/consents/{id}", Right::ConsentsRead).tool(Tool::RunGet),
    http("POST", "/api/v1/consents/{id}/approve", Right::ConsentsAnswer),
    http("POST", "/api/v1/consents/{id}/deny", Right::ConsentsAnswer),
    http("DELETE", "/api/v1/consents/{id}", Right::RunsStart).tool(Tool::Exec),
    http("GET", "/api/v1/consent-rules", Right::ConsentsRead),
    http("DELETE", "/api/v1/consent-rules/{id}", Right::ConsentsAnswer),
    task("GET", "/api/v1/pool/tasks").tool(Tool::TaskGet),
    http("POST", "/api/v1/pool/tasks", Right::TasksSubmit).tool(Tool::TaskSubmit),
    task("GET", "/api/v1/pool/tasks/{id}").tool(Tool::TaskGet),
    task("GET", "/api/v1/pool/tasks/{id}/explain").tool(Tool::TaskGet),
    http("POST", "/api/v1/pool/tasks/{id}/cancel", Right::TasksSubmit).tool(Tool::TaskCancel),
    http("POST", "/api/v1/pool/tasks/{id}/retry", Right::TasksSubmit).tool(Tool::TaskSubmit),
    http("POST", "/api/v1/pool/tasks/{id}/priority", Right::TasksSubmit).tool(Tool::TaskSubmit),
    http("GET", "/api/v1/pool/stats", Right::StatsRead),
    http("POST", "/api/v1/pool/claims", Right::PoolWork).tool(Tool::TaskClaim),
    http("POST", "/api/v1/pool/reports", Right::PoolWork).tool(Tool::TaskReport),
    http("POST", "/api/v1/pool/leases/{id}/{attempt}/extend", Right::PoolWork).tool(Tool::TaskReport),
    http("POST", "/api/v1/pool/leases/{id}/{attempt}/finish", Right::PoolWork).tool(Tool::TaskReport),
    http("POST", "/api/v1/pool/leases/{id}/{attempt}/fail", Right::PoolWork).tool(Tool::TaskReport),
    http("POST", "/api/v1/pool/leases/{id}/{attempt}/release", Right::PoolWork).tool(Tool::TaskReport),
    task("GET", "/api/v1/pool/schedules"),
    http("POST", "/api/v1/pool/schedules", Right::TasksSubmit),
    http("PATCH", "/api/v1/pool/schedules/{schedule}", Right::TasksSubmit),
    http("DELETE", "/api/v1/pool/schedules/{schedule}", Right::TasksSubmit),
    http("GET", "/api/v1/pool/pauses", Right::StatsRead),
    Entry::http("POST", "/api/v1/pool/pauses", Needs::Everywhere(Right::PoolAdmin)),
    Entry::http("DELETE", "/api/v1/pool/pauses/{part}", Needs::Everywhere(Right::PoolAdmin)),
    grpc("cortex.mesh.v1.EnrolmentService", "Enrol", Needs::Invite),
    grpc("cortex.mesh.v1.EnrolmentService", "Recover", Needs::RecoveryKey),
    grpc("cortex.mesh.v1.MeshService", "Attach", Needs::NodeCertificate),
    grpc("cortex.mesh.v1.MeshService", "Transfer", Needs::NodeCertificate),
];

const _: () =
    assert!(covers(cortex_wire::RPCS, ENTRIES), "a call of the node port has no row in access::ENTRIES");

/// The row of a route. HEAD is GET without the body.
pub fn route(method: &str, path: &str) -> Option<&'static Entry> {
    let method = if method == "HEAD" { "GET" } else { method };
    routes().find(|row| (row.0, row.1) == (method, path)).map(|(_, _, entry)| entry)
}

/// Every route as `(method, path, row)`.
pub fn routes() -> impl Iterator<Item = (&'static str, &'static str, &'static Entry)> {
    ENTRIES.iter().filter_map(|entry| match entry.door {
        Door::Http { method, path } => Some((method, path, entry)),
        Door::Grpc { .. } => None,
    })
}

/// Every call of the node port as `(service, method, row)`.
pub fn calls() -> impl Iterator<Item = (&'static str, &'static str, &'static Entry)> {
    ENTRIES.iter().filter_map(|entry| match entry.door {
        Door::Grpc { service, method } => Some((service, method, entry)),
        Door::Http { .. } => None,
    })
}

/// What a path names.
const fn names(path: &str) -> Names {
    if contains(path, "{node}") {
        Names::Node
    } else if contains(path, "/runs/{id}") {
        Names::Run
    } else if contains(path, "/consents/{id}") {
        Names::Consent
    } else if contains(path, "/consent-rules/{id}") {
        Names::ConsentRule
    } else if contains(path, "/tasks/{id}") {
        Names::Task
    } else {
        Names::Nothing
    }
}

/// Whether each call has a row.
const fn covers(calls: &[(&str, &str)], entries: &[Entry]) -> bool {
    let mut at = 0;
    while at < calls.len() {
        if !has_row(calls[at], entries) {
            return false;
        }
        at += 1;
    }
    true
}

const fn has_row(call: (&str, &str), entries: &[Entry]) -> bool {
    let mut at = 0;
    while at < entries.len() {
        if let Door::Grpc { service, method } = entries[at].door
            && same(service.as_bytes(), call.0.as_bytes(), 0)
            && same(method.as_bytes(), call.1.as_bytes(), 0)
        {
            return true;
        }
        at += 1;
    }
    false
}

const fn contains(text: &str, part: &str) -> bool {
    let (text, part) = (text.as_bytes(), part.as_bytes());
    let mut from = 0;
    while from + part.len() <= text.len() {
        if begins(text, part, from) {
            return true;
        }
        from += 1;
    }
    false
}

const fn same(left: &[u8], right: &[u8], from: usize) -> bool {
    left.len() == right.len() && begins(left, right, from)
}

/// Whether `part` stands in `text` at `from`.
const fn begins(text: &[u8], part: &[u8], from: usize) -> bool {
    let mut at = 0;
    while at < part.len() {
        if text[from + at] != part[at] {
            return false;
        }
        at += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_call_of_the_node_port_needs_a_row() {
        let row = [grpc("a.B", "C", Needs::Invite)];
        assert!(covers(&[("a.B", "C")], &row) && covers(&[], &row));
        for missing in [("a.B", "D"), ("a.B", "CC"), ("a.Bx", "C"), ("", "")] {
            assert!(!covers(&[("a.B", "C"), missing], &row), "{missing:?}");
        }
    }

    #[test]
    fn no_row_is_there_twice_and_none_is_of_a_call_that_is_not() {
        let doors: BTreeSet<String> = ENTRIES.iter().map(|entry| format!("{:?}", entry.door)).collect();
        assert_eq!(doors.len(), ENTRIES.len());
        for (service, method, _) in calls() {
            assert!(cortex_wire::RPCS.contains(&(service, method)), "{service}/{method}");
        }
    }

    #[test]
    fn what_reads_has_a_reading_right_and_what_writes_has_another() {
        for (method, path, entry) in routes() {
            let (Needs::Right(right) | Needs::OneOf(right, _) | Needs::Everywhere(right)) = entry.needs
            else {
                continue;
            };
            let reads = method == "GET" || path.ends_with("/test") || path.ends_with("/diff");
            assert_eq!(right.as_str().ends_with(":read"), reads, "{method} {path}");
        }
    }

    #[test]
    fn a_client_gets_no_door_that_its_kind_could_not_use() {
        for entry in ENTRIES.iter().filter(|entry| entry.tool.is_some()) {
            let (right, others) = match entry.needs {
                Needs::Right(right) => (right, &[][..]),
                Needs::OneOf(first, others) => (first, others),
                Needs::Nothing
                | Needs::Invite
                | Needs::NodeCertificate
                | Needs::RecoveryKey
                | Needs::AnyToken
                | Needs::Everywhere(_) => panic!("{entry:?}"),
            };
            let usable = |right: Right| cortex_core::rights::CLIENT.has(right);
            assert!(usable(right) || others.iter().any(|right| usable(*right)), "{entry:?}");
        }
    }

    #[test]
    fn a_path_says_what_it_names() {
        assert_eq!(names("/api/v1/policies/{node}/test"), Names::Node);
        assert_eq!(names("/api/v1/runs/{id}/output"), Names::Run);
        assert_eq!(names("/api/v1/consents/{id}/deny"), Names::Consent);
        assert_eq!(names("/api/v1/consent-rules/{id}"), Names::ConsentRule);
        assert_eq!(names("/api/v1/pool/tasks/{id}/cancel"), Names::Task);
        assert_eq!(names("/api/v1/invites/{id}"), Names::Nothing);
    }
}
