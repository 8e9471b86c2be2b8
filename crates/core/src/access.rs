//! Who asks, and what that one may do where: the one decision behind every door.
//!
//! What may be done on a node is what the role gives there, cut by the token's own bound. A node on
//! which nothing may be done does not exist for the caller: no answer tells it from an unknown one.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::{Code, Refusal};
use crate::name::Selector;
use crate::node::Node;
use crate::rights::{CLIENT, Right, Rights};
use crate::time::WallTime;
use crate::token::{Role, Token, TokenKind};
use crate::user::{RoleGrant, User};

/// A caller, as the hub knew it when it asked.
#[derive(Clone, Debug)]
pub struct Who {
    /// The token that was shown.
    pub token: Arc<Token>,
    /// The person whose token it is.
    pub user: Option<Arc<User>>,
    /// The grants of that person and of its groups. Without a person they mean nothing.
    pub grants: Arc<[RoleGrant]>,
}

impl Who {
    /// The caller behind a token that is nobody's: the hub's own.
    pub fn of(token: Arc<Token>) -> Self {
        Self { token, user: None, grants: Arc::new([]) }
    }

    /// The name in audit rows: `user:<name>` for a person's session, `token:<name>` otherwise.
    pub fn actor(&self) -> String {
        match (self.token.kind, &self.user) {
            (TokenKind::Session, Some(user)) => format!("user:{}", user.name),
            (TokenKind::Session, None) | (TokenKind::Api | TokenKind::Client, _) => {
                format!("token:{}", self.token.name)
            }
        }
    }

    /// What it may do on this node.
    pub fn rights_on(&self, node: &Node) -> Rights {
        if !self.token.reaches(node) {
            return Rights::NONE;
        }
        self.granted(|selector| selector.matches(&node.labels))
    }

    /// What it may do on all nodes, those to come too, and on the hub itself.
    pub fn rights_everywhere(&self) -> Rights {
        if !self.token.reaches_everything() {
            return Rights::NONE;
        }
        self.granted(Selector::is_all)
    }

    /// What it may do somewhere.
    pub fn rights_anywhere(&self) -> Rights {
        self.granted(|_| true).per_node().union(self.rights_everywhere())
    }

    /// Whether it has this right on this node.
    pub fn has(&self, right: Right, node: &Node) -> bool {
        self.rights_on(node).has(right)
    }

    /// Whether it has this right on all nodes and on the hub itself.
    pub fn everywhere(&self, right: Right) -> bool {
        self.rights_everywhere().has(right)
    }

    /// Whether it may do something on this node. For whom it may not, the node does not exist.
    pub fn sees(&self, node: &Node) -> bool {
        !self.rights_on(node).per_node().is_none()
    }

    /// Refuses `forbidden` a caller that has this right nowhere. What is about the hub itself is had
    /// everywhere or not at all.
    pub fn anywhere(&self, right: Right) -> Result<(), Refusal> {
        if self.rights_anywhere().has(right) { Ok(()) } else { Err(self.lacks(right)) }
    }

    /// Refuses `forbidden` a caller that lacks this right on a node that it sees, and
    /// `node_not_found` one that does not see it.
    pub fn on(&self, right: Right, node: &Node) -> Result<(), Refusal> {
        let rights = self.rights_on(node);
        if rights.has(right) {
            Ok(())
        } else if rights.per_node().is_none() {
            Err(Refusal::new(Code::NodeNotFound, "There is no such node."))
        } else {
            Err(self.lacks(right).detail("node", node.name.as_str()))
        }
    }

    /// The highest role that it has somewhere, for people to see.
    pub fn role(&self) -> Role {
        if self.user.is_none() {
            return self.token.role;
        }
        let live = self.grants.iter().filter(|grant| grant.revoked_at.is_none());
        let highest = live.map(|grant| grant.role).max().unwrap_or(Role::Viewer);
        highest.min(self.token.role)
    }

    /// Refuses `forbidden` to give away what it does not have itself: nobody makes another one that
    /// can do more.
    pub fn may_give(&self, rights: Rights) -> Result<(), Refusal> {
        let own = self.rights_everywhere();
        if own.contains(rights) {
            return Ok(());
        }
        let more: Vec<&str> = rights.iter().filter(|right| !own.has(*right)).map(Right::as_str).collect();
        let more = more.join(", ");
        let message = format!("`{}` cannot give what it does not have itself: {more}.", self.actor());
        Err(Refusal::new(Code::Forbidden, message)
            .hint("Ask an administrator who has these rights, or leave them out.")
            .detail("rights", more))
    }

    /// Refuses a token that this caller may not make: one that can do more, or lives longer, than the
    /// one it is made with; an AI client without tools, or with a right that holds it; tools for what is
    /// no client.
    pub fn may_make(&self, token: &Token) -> Result<(), Refusal> {
        self.anywhere(Right::TokensWrite)?;
        check_kind(token)?;
        self.may_give(token.bound())?;
        let outlives = match (self.token.kind, self.token.expires_at, token.expires_at) {
            (TokenKind::Session, _, _) | (_, None, _) => false,
            (TokenKind::Api | TokenKind::Client, Some(_), None) => true,
            (TokenKind::Api | TokenKind::Client, Some(own), Some(end)) => end > own,
        };
        if outlives {
            let message = format!("`{}` would outlive the token that it is made with.", token.name);
            return Err(Refusal::new(Code::Forbidden, message)
                .hint("Choose a shorter life with `--ttl`, or make it with a token that lasts."));
        }
        Ok(())
    }

    fn granted(&self, where_it_holds: impl Fn(&Selector) -> bool) -> Rights {
        let bound = self.token.bound();
        if self.token.user.is_none() {
            return bound;
        }
        let Some(user) = &self.user else { return Rights::NONE };
        let grants = self.grants.iter().filter(|grant| grant.revoked_at.is_none() && grant.is_of(user));
        let holding = grants.filter(|grant| where_it_holds(&grant.selector));
        holding.fold(Rights::NONE, |all, grant| all.union(Rights::of_role(grant.role))).meet(bound)
    }

    fn lacks(&self, right: Right) -> Refusal {
        let message = format!("`{}` may not do this: it lacks the right {}.", self.actor(), right.as_str());
        Refusal::new(Code::Forbidden, message).detail("right", right.as_str())
    }
}

fn check_kind(token: &Token) -> Result<(), Refusal> {
    let wrong = |message: &str, hint: &str| Err(Refusal::new(Code::InvalidArgument, message).hint(hint));
    match token.kind {
        TokenKind::Session => wrong("A session is made by a login.", "Use `cortex login`."),
        TokenKind::Api if token.tools.is_some() => {
            wrong("Tools are for an AI client's token.", "Make it with `--client`, or leave `--tool` out.")
        }
        TokenKind::Api => Ok(()),
        TokenKind::Client if token.tools.as_ref().is_none_or(BTreeSet::is_empty) => wrong(
            "The token of an AI client names the tools that it has.",
            "Name one at least with `--tool`.",
        ),
        TokenKind::Client if token.role == Role::Admin => wrong(
            "An AI client is never an administrator: it would change what holds it.",
            "Choose the role operator or viewer.",
        ),
        TokenKind::Client if !CLIENT.contains(token.rights.unwrap_or(Rights::NONE)) => wrong(
            "An AI client has no right to change what holds it.",
            "Leave out the rights to write policies, tokens, users, locks, invites and nodes, and to answer consents.",
        ),
        TokenKind::Client => Ok(()),
    }
}

/// Whether somebody is left who can let others in: an administrator of everything whose way in does
/// not end by itself. `users` and `grants` are the live ones.
pub fn somebody_administers(tokens: &[Token], users: &[User], grants: &[RoleGrant], now: WallTime) -> bool {
    let administers = |user: &User| {
        let own = grants.iter().filter(|grant| grant.revoked_at.is_none() && grant.is_of(user));
        own.into_iter().any(|grant| grant.role == Role::Admin && grant.selector.is_all())
    };
    let lasting = |token: &Token| {
        let whole = token.bound() == Rights::ALL && token.reaches_everything() && token.has_tool(None);
        let held = token.user.is_none_or(|id| users.iter().any(|user| user.id == id && administers(user)));
        token.expires_at.is_none() && token.check(now).is_ok() && whole && held
    };
    users.iter().any(|user| user.password.is_some() && administers(user)) || tokens.iter().any(lasting)
}

/// Everything that these grants give a user somewhere.
pub fn rights_of(user: &User, grants: &[RoleGrant]) -> Rights {
    let own = grants.iter().filter(|grant| grant.revoked_at.is_none() && grant.is_of(user));
    own.fold(Rights::NONE, |all, grant| all.union(Rights::of_role(grant.role)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{GrantId, NodeId, TokenId, UserId};
    use crate::name::{Labels, Name};
    use crate::token::{NodeScope, Tool};
    use crate::user::Subject;

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    fn node(n: u8, role: &str) -> Node {
        let labels = Labels::from([("role".to_owned(), role.to_owned())]);
        let id = NodeId::mint(1, &[n; 10]);
        Node { labels, ..Node::joined(id, name(&format!("n{n}")), [0; 32], WallTime(0)) }
    }

    fn token(role: Role) -> Token {
        Token {
            id: TokenId::mint(1, &[1; 10]),
            name: name("ci"),
            role,
            secret_hash: [0; 32],
            created_at: WallTime(0),
            expires_at: None,
            revoked_at: None,
            kind: TokenKind::Api,
            user: None,
            rights: None,
            nodes: None,
            tools: None,
        }
    }

    fn of(token: Token) -> Who {
        Who::of(Arc::new(token))
    }

    /// A person in the group `crew` with these grants to itself, or to `crew`.
    fn person(token: Token, grants: &[(bool, Role, &str)]) -> Who {
        let user = User {
            id: UserId::mint(1, &[2; 10]),
            name: name("ada"),
            password: None,
            groups: BTreeSet::from([name("crew")]),
            created_at: WallTime(0),
            removed_at: None,
        };
        let grants = grants.iter().map(|(own, role, selector)| RoleGrant {
            id: GrantId::mint(1, &[3; 10]),
            subject: if *own { Subject::User(user.id) } else { Subject::Group(name("crew")) },
            role: *role,
            selector: Selector::parse(selector).expect("a selector"),
            created_by: "test".to_owned(),
            created_at: WallTime(0),
            revoked_at: None,
        });
        let grants = grants.collect();
        Who { token: Arc::new(Token { user: Some(user.id), ..token }), user: Some(Arc::new(user)), grants }
    }

    #[test]
    fn the_hubs_own_token_has_its_role_on_every_node() {
        let who = of(token(Role::Operator));
        assert!(who.has(Right::RunsStart, &node(1, "ci")) && who.everywhere(Right::RunsRead));
        assert_eq!(who.anywhere(Right::RunsStart), Ok(()));
        let refusal = who.anywhere(Right::TokensWrite).expect_err("above its role");
        assert_eq!(refusal.code, Code::Forbidden);
        assert!(refusal.message.contains("tokens:write"), "{refusal}");
        assert_eq!(who.on(Right::PolicyWrite, &node(1, "ci")).expect_err("seen").code, Code::Forbidden);
    }

    #[test]
    fn a_persons_role_holds_where_its_grant_does_and_elsewhere_there_is_no_node() {
        let who = person(
            token(Role::Admin),
            &[(true, Role::Operator, "role=ci"), (false, Role::Viewer, "role=db")],
        );
        let (ci, db, web) = (node(1, "ci"), node(2, "db"), node(3, "web"));
        assert_eq!(who.on(Right::RunsStart, &ci), Ok(()));
        assert_eq!(who.on(Right::RunsStart, &db).expect_err("viewer").code, Code::Forbidden);
        assert_eq!(who.on(Right::RunsStart, &web).expect_err("foreign").code, Code::NodeNotFound);
        assert_eq!([&ci, &db, &web].map(|node| who.sees(node)), [true, true, false]);
        assert_eq!(who.anywhere(Right::RunsStart), Ok(()));
        assert!(!who.everywhere(Right::RunsRead));
        assert_eq!(who.role(), Role::Operator);
    }

    #[test]
    fn a_role_that_was_taken_back_is_not_shown() {
        let mut who = person(token(Role::Admin), &[(true, Role::Admin, "role=ci"), (true, Role::Viewer, "")]);
        assert_eq!(who.role(), Role::Admin);
        let taken = |grant: &RoleGrant| RoleGrant {
            revoked_at: (grant.role == Role::Admin).then_some(WallTime(1)),
            ..grant.clone()
        };
        who.grants = who.grants.iter().map(taken).collect();
        assert_eq!((who.role(), who.has(Right::PolicyWrite, &node(1, "ci"))), (Role::Viewer, false));
    }

    #[test]
    fn what_is_about_the_hub_needs_a_grant_on_everything() {
        let narrow = person(token(Role::Admin), &[(true, Role::Admin, "role=ci")]);
        assert!(narrow.has(Right::PolicyWrite, &node(1, "ci")));
        for right in Right::ALL.iter().filter(|right| !right.per_node()) {
            assert_eq!(
                narrow.anywhere(*right).expect_err("not everywhere").code,
                Code::Forbidden,
                "{right:?}"
            );
        }
        let wide = person(token(Role::Admin), &[(false, Role::Admin, "")]);
        assert!(Right::ALL.iter().all(|right| wide.anywhere(*right).is_ok() && wide.everywhere(*right)));
    }

    #[test]
    fn a_token_narrows_and_never_widens() {
        let rights = Rights::of(&[Right::RunsRead, Right::TokensWrite]);
        let bound = person(
            Token { rights: Some(rights), ..token(Role::Admin) },
            &[(true, Role::Operator, ""), (true, Role::Viewer, "")],
        );
        assert_eq!(bound.rights_everywhere(), Rights::of(&[Right::RunsRead]));
        let here = node(1, "ci");
        let scoped =
            of(Token { nodes: Some(NodeScope::Nodes(BTreeSet::from([here.id]))), ..token(Role::Admin) });
        assert!(scoped.has(Right::PolicyWrite, &here) && !scoped.sees(&node(2, "ci")));
        assert_eq!(scoped.rights_everywhere(), Rights::NONE);
        assert_eq!(scoped.anywhere(Right::UsersWrite).expect_err("about the hub").code, Code::Forbidden);
        let labelled = of(Token {
            nodes: Some(NodeScope::Selector(Selector::parse("role=ci").expect("a selector"))),
            ..token(Role::Viewer)
        });
        assert!(labelled.sees(&here) && !labelled.sees(&node(2, "db")));
    }

    #[test]
    fn a_token_of_a_person_who_is_not_there_can_do_nothing() {
        let gone = Who { user: None, ..person(token(Role::Admin), &[(true, Role::Admin, "")]) };
        assert_eq!(gone.rights_anywhere(), Rights::NONE);
        assert!(!gone.sees(&node(1, "ci")));
        let foreign = person(token(Role::Admin), &[(true, Role::Admin, "")]);
        let other =
            User { id: UserId::mint(1, &[9; 10]), ..User::clone(foreign.user.as_ref().expect("ada")) };
        let foreign = Who { user: Some(Arc::new(other)), ..foreign };
        assert_eq!(foreign.rights_anywhere(), Rights::NONE, "the grants are another's");
    }

    #[test]
    fn nobody_gives_away_more_than_it_has() {
        let admin = of(token(Role::Admin));
        assert_eq!(admin.may_give(Rights::ALL), Ok(()));
        let bound = of(Token { rights: Rights::parse("tokens:write,runs:read").ok(), ..token(Role::Admin) });
        assert_eq!(bound.may_give(Rights::of(&[Right::RunsRead])), Ok(()));
        let refusal = bound.may_give(Rights::of_role(Role::Viewer)).expect_err("more than it has");
        assert!(refusal.code == Code::Forbidden && refusal.message.contains("nodes:read"), "{refusal}");
        assert!(!refusal.message.contains("runs:read"));
    }

    #[test]
    fn nobody_makes_a_token_that_can_do_more_or_lives_longer() {
        let ends = |at| Token { expires_at: Some(WallTime(at)), ..token(Role::Admin) };
        assert_eq!(of(token(Role::Admin)).may_make(&token(Role::Admin)), Ok(()));
        assert_eq!(of(ends(9)).may_make(&ends(9)), Ok(()));
        for (maker, made) in [
            (token(Role::Operator), token(Role::Viewer)),
            (ends(9), token(Role::Viewer)),
            (ends(9), ends(10)),
            (Token { rights: Rights::parse("tokens:write").ok(), ..token(Role::Admin) }, token(Role::Viewer)),
            (
                Token { nodes: Some(NodeScope::Nodes(BTreeSet::new())), ..token(Role::Admin) },
                token(Role::Viewer),
            ),
        ] {
            assert_eq!(of(maker).may_make(&made).expect_err("more than its maker").code, Code::Forbidden);
        }
        let session = person(Token { kind: TokenKind::Session, ..ends(9) }, &[(true, Role::Admin, "")]);
        assert_eq!(session.may_make(&token(Role::Admin)), Ok(()), "it ends with the user");
        let narrow = person(Token { kind: TokenKind::Session, ..ends(9) }, &[(true, Role::Admin, "role=ci")]);
        assert_eq!(narrow.may_make(&token(Role::Viewer)).expect_err("not everywhere").code, Code::Forbidden);
    }

    #[test]
    fn an_ai_client_has_tools_and_no_right_over_what_holds_it() {
        let admin = of(token(Role::Admin));
        let client = |role, rights: Option<&str>, tools: &[Tool]| Token {
            kind: TokenKind::Client,
            role,
            rights: rights.map(|text| Rights::parse(text).expect("rights")),
            tools: Some(tools.iter().copied().collect()),
            ..token(Role::Viewer)
        };
        assert_eq!(admin.may_make(&client(Role::Operator, None, &[Tool::Exec])), Ok(()));
        assert_eq!(admin.may_make(&client(Role::Operator, Some("runs:start"), &[Tool::Exec])), Ok(()));
        for bad in [
            client(Role::Operator, None, &[]),
            client(Role::Admin, None, &[Tool::Exec]),
            client(Role::Operator, Some("policy:write"), &[Tool::Exec]),
            client(Role::Operator, Some("consents:answer"), &[Tool::Exec]),
            Token { tools: None, ..client(Role::Operator, None, &[]) },
            Token { tools: Some(BTreeSet::from([Tool::Exec])), ..token(Role::Viewer) },
            Token { kind: TokenKind::Session, ..token(Role::Viewer) },
        ] {
            assert_eq!(
                admin.may_make(&bad).expect_err("no such token").code,
                Code::InvalidArgument,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn somebody_administers_who_is_whole_and_does_not_end() {
        let (now, none) = (WallTime(5), ([].as_slice(), [].as_slice()));
        let alone = |token: Token| somebody_administers(&[token], none.0, none.1, now);
        assert!(alone(token(Role::Admin)) && !alone(token(Role::Operator)));
        assert!(!alone(Token { expires_at: Some(WallTime(99)), ..token(Role::Admin) }));
        assert!(!alone(Token { revoked_at: Some(WallTime(1)), ..token(Role::Admin) }));
        assert!(!alone(Token { rights: Some(Rights::of(&[Right::RunsRead])), ..token(Role::Admin) }));
        assert!(!alone(Token { user: Some(UserId::mint(1, &[2; 10])), ..token(Role::Admin) }));
        let who = person(token(Role::Admin), &[(false, Role::Admin, "")]);
        let ada = User::clone(who.user.as_ref().expect("ada"));
        let users = |user: User, grants: &[RoleGrant]| somebody_administers(&[], &[user], grants, now);
        assert!(!users(ada.clone(), &who.grants), "it cannot log in");
        let ada = User { password: Some(crate::user::PasswordHash::new("x".to_owned())), ..ada };
        assert!(users(ada.clone(), &who.grants) && !users(ada.clone(), &[]));
        let part = person(token(Role::Admin), &[(true, Role::Admin, "role=ci"), (true, Role::Viewer, "")]);
        assert!(!users(ada.clone(), &part.grants));
        assert_eq!(rights_of(&ada, &part.grants), Rights::ALL);
    }

    #[test]
    fn a_session_speaks_for_its_user_and_a_token_for_itself() {
        let session = person(Token { kind: TokenKind::Session, ..token(Role::Admin) }, &[]);
        assert_eq!((session.actor().as_str(), session.role()), ("user:ada", Role::Viewer));
        assert_eq!(person(token(Role::Admin), &[]).actor(), "token:ci");
    }
}
