//! API tokens: opaque secrets of which only a hash is kept.

use crate::error::{Code, Refusal};
use crate::id::TokenId;
use crate::name::Name;
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
}
