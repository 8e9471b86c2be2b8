//! API tokens: opaque secrets of which only a hash is kept.

use std::collections::BTreeSet;

use crate::error::{Code, Refusal};
use crate::id::{NodeId, TokenId, UserId};
use crate::name::{Name, Selector};
use crate::node::Node;
use crate::rights::{CLIENT, Rights};
use crate::time::WallTime;

/// What a principal may do at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads everything, changes nothing.
    Viewer,
    /// Also runs commands within the policies.
    Operator,
    /// Also changes policies, invites, tokens and nodes.
    Admin,
}

impl Role {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// Reads the text form back.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "viewer" => Some(Self::Viewer),
            "operator" => Some(Self::Operator),
            "admin" => Some(Self::Admin),
            _ => None,
        }
    }
}

/// What a token is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenKind {
    /// For programs and people.
    #[default]
    Api,
    /// A person's session, made by a login.
    Session,
    /// For an AI client: nodes and tools that are named, and no right to change what holds it.
    Client,
}

impl TokenKind {
    /// The stable text form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Session => "session",
            Self::Client => "client",
        }
    }

    /// Reads the text form back.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "api" => Some(Self::Api),
            "session" => Some(Self::Session),
            "client" => Some(Self::Client),
            _ => None,
        }
    }
}

/// On which nodes a token is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeScope {
    /// On these.
    Nodes(BTreeSet<NodeId>),
    /// On those with these labels, whenever they get them.
    Selector(Selector),
}

macro_rules! tools {
    ($($variant:ident = $text:literal;)*) => {
        /// What an AI client may be given, by the names that it calls them (UX, MCP).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(missing_docs, reason = "the names are those of the table in UX")]
        pub enum Tool { $($variant,)* }

        impl Tool {
            /// All.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable text form.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Reads the text form back.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

tools! {
    NodesList = "nodes_list";
    NodeDescribe = "node_describe";
    Exec = "exec";
    RunGet = "run_get";
    RunCancel = "run_cancel";
    ShellOpen = "shell_open";
    ShellSend = "shell_send";
    ShellRead = "shell_read";
    ShellClose = "shell_close";
    FsList = "fs_list";
    FsSearch = "fs_search";
    FsRead = "fs_read";
    FsWrite = "fs_write";
    FsEdit = "fs_edit";
    WorkspaceSync = "workspace_sync";
    WorkspaceStatus = "workspace_status";
    TaskSubmit = "task_submit";
    TaskGet = "task_get";
    TaskCancel = "task_cancel";
    TaskClaim = "task_claim";
    TaskReport = "task_report";
}

/// One token as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its id; public.
    pub id: TokenId,
    /// Its name, unique among the live ones; the actor in audit rows is `token:<name>`.
    pub name: Name,
    /// What it may do.
    pub role: Role,
    /// blake3 of the secret.
    pub secret_hash: [u8; 32],
    /// When it was made.
    pub created_at: WallTime,
    /// When it ends by itself.
    pub expires_at: Option<WallTime>,
    /// When somebody ended it.
    pub revoked_at: Option<WallTime>,
    /// What it is for.
    pub kind: TokenKind,
    /// Whose it is; `None` is the hub's own, whose role holds on all nodes.
    pub user: Option<UserId>,
    /// At most these rights; `None` is no bound beside the role.
    pub rights: Option<Rights>,
    /// Only on these nodes; `None` is no bound.
    pub nodes: Option<NodeScope>,
    /// Only by these tools; `None` is no bound.
    pub tools: Option<BTreeSet<Tool>>,
}

impl Token {
    /// Whether the token is good at `now`.
    pub fn check(&self, now: WallTime) -> Result<(), Refusal> {
        if self.revoked_at.is_some() {
            return Err(Refusal::new(Code::Unauthenticated, "The token was revoked."));
        }
        if self.expires_at.is_some_and(|end| end <= now) {
            return Err(Refusal::new(Code::Unauthenticated, "The token has expired."));
        }
        Ok(())
    }

    /// Everything that its role, its kind and its own bound leave, wherever it is good.
    pub fn bound(&self) -> Rights {
        let own = Rights::of_role(self.role).meet(self.rights.unwrap_or(Rights::ALL));
        match self.kind {
            TokenKind::Api | TokenKind::Session => own,
            TokenKind::Client => own.meet(CLIENT),
        }
    }

    /// Whether it is good on this node.
    pub fn reaches(&self, node: &Node) -> bool {
        match &self.nodes {
            None => true,
            Some(NodeScope::Nodes(ids)) => ids.contains(&node.id),
            Some(NodeScope::Selector(selector)) => selector.matches(&node.labels),
        }
    }

    /// Whether it is good on all nodes, and on the hub itself.
    pub const fn reaches_everything(&self) -> bool {
        self.nodes.is_none()
    }

    /// Whether what needs this tool is open to it. A client has no tool that it was not given.
    pub fn has_tool(&self, tool: Option<Tool>) -> bool {
        match (&self.tools, self.kind) {
            (Some(tools), _) => tool.is_some_and(|tool| tools.contains(&tool)),
            (None, TokenKind::Client) => false,
            (None, TokenKind::Api | TokenKind::Session) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rights::Right;

    fn token() -> Token {
        Token {
            id: TokenId::mint(1, &[1; 10]),
            name: Name::parse("ci").expect("a name"),
            role: Role::Operator,
            secret_hash: [0; 32],
            created_at: WallTime(0),
            expires_at: Some(WallTime(100)),
            revoked_at: None,
            kind: TokenKind::Api,
            user: None,
            rights: None,
            nodes: None,
            tools: None,
        }
    }

    #[test]
    fn a_token_ends_at_its_expiry_or_when_revoked() {
        assert_eq!(token().check(WallTime(99)), Ok(()));
        assert_eq!(token().check(WallTime(100)).expect_err("expired").code, Code::Unauthenticated);
        let revoked = Token { revoked_at: Some(WallTime(1)), expires_at: None, ..token() };
        assert_eq!(revoked.check(WallTime(0)).expect_err("revoked").code, Code::Unauthenticated);
    }

    #[test]
    fn a_role_is_read_back() {
        for role in [Role::Viewer, Role::Operator, Role::Admin] {
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        assert_eq!(Role::parse("root"), None);
    }

    #[test]
    fn a_token_can_do_what_its_role_its_kind_and_its_own_bound_all_allow() {
        let of = |kind, rights| Token { kind, rights, role: Role::Admin, ..token() }.bound();
        assert_eq!(of(TokenKind::Api, None), Rights::ALL);
        assert_eq!(of(TokenKind::Client, Some(Rights::ALL)), CLIENT);
        let two = Rights::of(&[Right::RunsStart, Right::TokensWrite]);
        assert_eq!(of(TokenKind::Api, Some(two)), two);
        assert_eq!(of(TokenKind::Client, Some(two)), Rights::of(&[Right::RunsStart]));
        let viewer = Token { role: Role::Viewer, rights: Some(two), ..token() };
        assert_eq!(viewer.bound(), Rights::NONE);
        for right in [Right::PolicyWrite, Right::TokensWrite, Right::UsersWrite, Right::LocksWrite] {
            assert!(!CLIENT.has(right), "{right:?}");
        }
        assert!(!CLIENT.has(Right::ConsentsAnswer) && !CLIENT.has(Right::InvitesWrite));
    }

    #[test]
    fn a_client_has_the_tools_that_it_was_given_and_no_other_door() {
        let client = |tools: Option<&[Tool]>| Token {
            kind: TokenKind::Client,
            tools: tools.map(|tools| tools.iter().copied().collect()),
            ..token()
        };
        let exec = client(Some(&[Tool::Exec]));
        assert!(exec.has_tool(Some(Tool::Exec)));
        assert!(!exec.has_tool(Some(Tool::RunGet)) && !exec.has_tool(None));
        assert!(!client(None).has_tool(Some(Tool::Exec)) && !client(None).has_tool(None));
        assert!(token().has_tool(None) && token().has_tool(Some(Tool::Exec)));
    }

    #[test]
    fn kinds_and_tools_are_read_back() {
        for kind in [TokenKind::Api, TokenKind::Session, TokenKind::Client] {
            assert_eq!(TokenKind::parse(kind.as_str()), Some(kind));
        }
        for tool in Tool::ALL {
            assert_eq!(Tool::parse(tool.as_str()), Some(*tool));
        }
    }
}
