//! API tokens: opaque secrets of which only a hash is kept.

use std::collections::BTreeSet;

use crate::error::{Code, Refusal};
use crate::id::{NodeId, TokenId, UserId};
use crate::name::{Name, Selector};
use crate::rights::Rights;
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

    /// Whether the token's role reaches `needed`.
    pub fn require(&self, needed: Role) -> Result<(), Refusal> {
        if self.role >= needed {
            return Ok(());
        }
        Err(Refusal::new(
            Code::Forbidden,
            format!(
                "The token `{}` has the role {}; this needs {}.",
                self.name,
                self.role.as_str(),
                needed.as_str()
            ),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_role_reaches_itself_and_what_is_below() {
        for (role, reached) in [(Role::Viewer, 1), (Role::Operator, 2), (Role::Admin, 3)] {
            let token = Token { role, ..token() };
            let roles = [Role::Viewer, Role::Operator, Role::Admin];
            assert_eq!(roles.iter().filter(|needed| token.require(**needed).is_ok()).count(), reached);
            assert_eq!(Role::parse(role.as_str()), Some(role));
        }
        assert_eq!(Role::parse("root"), None);
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
