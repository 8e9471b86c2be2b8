//! Invites: single use, expiring, revocable, kept as a hash.

use crate::error::{Code, Refusal};
use crate::id::{Epoch, InviteId, NodeId, UserId};
use crate::limits::{INVITE_BYTES_MAX, REJOIN_MS_MAX};
use crate::name::Labels;
use crate::node::Node;
use crate::policy::Document;
use crate::time::WallTime;

/// One invite as the store keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invite {
    /// Its id; part of its text.
    pub id: InviteId,
    /// blake3 of the secret part.
    pub secret_hash: [u8; 32],
    /// Labels that the joining node gets.
    pub labels: Labels,
    /// Policy profile that the joining node gets.
    pub profile: String,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: WallTime,
    /// When it ends by itself, on the hub's clock (ABUSE 3).
    pub expires_at: WallTime,
    /// Which node redeemed it.
    pub used_by: Option<NodeId>,
    /// When it was redeemed.
    pub used_at: Option<WallTime>,
    /// When somebody ended it.
    pub revoked_at: Option<WallTime>,
    /// Whose the node will be.
    pub owner: Option<UserId>,
    /// The profile beyond which the node's policy may never go; `None` is no bound.
    pub max_profile: Option<String>,
}

/// Redeems an invite for `node`. The caller has compared the secret in constant time and treats
/// a wrong one as an unknown invite, so that nobody learns which ids exist.
pub fn redeem(mut invite: Invite, node: NodeId, now: WallTime) -> Result<Invite, Refusal> {
    if invite.revoked_at.is_some() {
        return Err(unknown());
    }
    if invite.used_by.is_some() {
        return Err(used());
    }
    if invite.expires_at <= now {
        return Err(Refusal::new(Code::InviteExpired, "This invite has expired."));
    }
    invite.used_by = Some(node);
    invite.used_at = Some(now);
    Ok(invite)
}

/// Refuses a policy that allows more than the built-in profile by which the invite of its node bounds
/// it. A bound that is no such profile is the narrowest.
///
/// # Errors
/// `policy_denied`, with the rule `invite.ceiling` and the field in the message.
pub fn within_bound(bound: Option<&str>, document: &Document) -> Result<(), Refusal> {
    let Some(bound) = bound else { return Ok(()) };
    let outer = Document::profile(bound).unwrap_or_else(Document::strict);
    let Some(field) = document.beyond(&outer) else { return Ok(()) };
    let message = format!(
        "The node joined by an invite whose bound is the profile {bound}, and this goes beyond it in `{field}`."
    );
    Err(Refusal::new(Code::PolicyDenied, message)
        .hint("Stay within the bound, or join the machine anew by an invite with a wider one.")
        .detail("rule", "invite.ceiling"))
}

/// Whether a used invite may be shown once more: by the key of the node that it joined, whose answer
/// was lost. Only until that node attaches, and only for a while: after that nobody needs it.
pub fn rejoin(invite: &Invite, node: &Node, key_hash: &[u8; 32], now: WallTime) -> Result<(), Refusal> {
    if invite.revoked_at.is_some() {
        return Err(unknown());
    }
    let in_time = invite.used_at.is_some_and(|at| now < at.plus_ms(REJOIN_MS_MAX));
    let same = invite.used_by == Some(node.id) && node.key_hash == *key_hash;
    let waits = node.epoch == Epoch(0) && node.removed_at.is_none() && !node.quarantined;
    if in_time && same && waits { Ok(()) } else { Err(used()) }
}

fn used() -> Refusal {
    Refusal::new(Code::InviteUsed, "This invite was used before; an invite joins one node.")
}

/// The refusal for an invite that does not exist, was revoked, or whose secret is wrong.
pub fn unknown() -> Refusal {
    Refusal::new(Code::InviteUnknown, "There is no such invite, or it was revoked.")
}

/// An invite's text, taken apart: `CXI1.<authority>.<id>.<secret>`.
///
/// `authority` is the blake3 of the hub's CA certificate (DER) in hex, `id` the UUID, `secret`
/// 32 bytes in hex. The node checks the authority before the secret leaves it (SECURITY).
#[derive(Clone, PartialEq, Eq)]
pub struct InviteText {
    /// blake3 of the hub's CA certificate.
    pub authority: [u8; 32],
    /// The invite's id.
    pub id: InviteId,
    /// The secret.
    pub secret: [u8; 32],
}

impl InviteText {
    /// Reads the text form. White space around it is forgiven.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        if text.len() > INVITE_BYTES_MAX {
            return Err(Refusal::new(
                Code::TooLarge,
                format!("The invite is {} bytes long; invites have at most {INVITE_BYTES_MAX}.", text.len()),
            )
            .hint("Copy the invite again, whole and alone, from `cortex invite`."));
        }
        let malformed =
            |why: &str| Refusal::new(Code::InviteMalformed, format!("The invite cannot be read: {why}."));
        let parts: Vec<&str> = text.trim().split('.').collect();
        let [version, authority, id, secret] = parts.as_slice() else {
            return Err(malformed("it must have four parts separated by dots"));
        };
        if *version != "CXI1" {
            return Err(malformed("it does not begin with CXI1"));
        }
        Ok(Self {
            authority: from_hex(authority).ok_or_else(|| malformed("its authority is not 64 hex digits"))?,
            id: id.parse().map_err(|_| malformed("its id is not a UUID"))?,
            secret: from_hex(secret)
                .ok_or_else(|| malformed("its secret is not 64 hex digits; it may be cut off"))?,
        })
    }

    /// The text form. It holds the secret: for the person who asked for it, and nowhere else.
    pub fn reveal(&self) -> String {
        format!("CXI1.{}.{}.{}", to_hex(&self.authority), self.id, to_hex(&self.secret))
    }
}

impl std::fmt::Debug for InviteText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "InviteText({}, secret withheld)", self.id)
    }
}

/// Lower-case hex.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|b| [b >> 4, b & 15])
        .map(|n| char::from(b"0123456789abcdef"[usize::from(n)]))
        .collect()
}

/// 64 hex digits of either case.
pub fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = [pair[0], pair[1]].map(|d| char::from(d).to_digit(16));
        *byte = u8::try_from(high? << 4 | low?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Name;
    use crate::sandbox::Network;

    const LATER: WallTime = WallTime(1_000);

    #[test]
    fn a_bound_holds_what_its_profile_allows_and_no_more() {
        let allowed = |bound| {
            let is_within =
                |name: &&&str| within_bound(bound, &Document::profile(name).expect("built in")).is_ok();
            ["strict", "ci", "dev", "permissive"].iter().filter(is_within).copied().collect::<Vec<_>>()
        };
        assert_eq!(allowed(Some("strict")), ["strict"]);
        assert_eq!(allowed(Some("ci")), ["strict", "ci"]);
        assert_eq!(allowed(Some("dev")), ["strict", "ci", "dev"]);
        assert_eq!(allowed(Some("permissive")), ["strict", "ci", "dev", "permissive"]);
        assert_eq!(allowed(None).len(), 4);
        assert_eq!(allowed(Some("unknown")), ["strict"], "a bound that cannot be read is the narrowest");
        // What a policy is called does not matter.
        let mut more = Document::profile("ci").expect("built in");
        more.network = Network::All;
        let refusal = within_bound(Some("ci"), &more).expect_err("beyond");
        assert!(refusal.message.contains("`network`"), "{}", refusal.message);
        assert_eq!(
            (refusal.code, refusal.details),
            (Code::PolicyDenied, vec![("rule", "invite.ceiling".to_owned())])
        );
    }

    fn invite() -> Invite {
        Invite {
            id: InviteId::mint(1, &[1; 10]),
            secret_hash: [0; 32],
            labels: Labels::new(),
            profile: "strict".into(),
            created_by: "token:admin".into(),
            created_at: WallTime(0),
            expires_at: LATER,
            used_by: None,
            used_at: None,
            revoked_at: None,
            owner: None,
            max_profile: None,
        }
    }

    fn text() -> InviteText {
        InviteText { authority: [0xab; 32], id: InviteId::mint(1, &[1; 10]), secret: [0xcd; 32] }
    }

    fn node() -> NodeId {
        NodeId::mint(2, &[2; 10])
    }

    #[test]
    fn an_invite_joins_one_node_once() {
        let used = redeem(invite(), node(), WallTime(999)).expect("a good invite");
        assert_eq!((used.used_by, used.used_at), (Some(node()), Some(WallTime(999))));
        assert_eq!(redeem(used, node(), WallTime(999)).expect_err("used").code, Code::InviteUsed);
    }

    fn joined() -> Node {
        Node::joined(node(), Name::parse("a").expect("a name"), [7; 32], WallTime(999))
    }

    #[test]
    fn a_join_whose_answer_was_lost_may_be_repeated_by_its_key_alone_until_its_node_attaches() {
        let used = redeem(invite(), node(), WallTime(999)).expect("a good invite");
        let again = |invite: &Invite, node: &Node, key: u8, now: i64| {
            rejoin(invite, node, &[key; 32], WallTime(now)).map_err(|refusal| refusal.code)
        };
        let last = 999 + i64::try_from(REJOIN_MS_MAX).expect("a span") - 1;
        for now in [999, 5_000, last] {
            assert_eq!(again(&used, &joined(), 7, now), Ok(()), "at {now}, also after its expiry");
        }
        let no = Err(Code::InviteUsed);
        assert_eq!(again(&used, &joined(), 8, 999), no, "another key");
        assert_eq!(again(&used, &joined(), 7, last + 1), no, "too late");
        assert_eq!(again(&invite(), &joined(), 7, 999), no, "an invite that joined nobody");
        let other = Node { id: NodeId::mint(3, &[3; 10]), ..joined() };
        assert_eq!(again(&used, &other, 7, 999), no, "another node");
        for over in [
            Node { epoch: Epoch(1), ..joined() },
            Node { removed_at: Some(WallTime(1)), ..joined() },
            Node { quarantined: true, ..joined() },
        ] {
            assert_eq!(again(&used, &over, 7, 999), no, "{over:?}");
        }
        let revoked = Invite { revoked_at: Some(WallTime(1)), ..used };
        assert_eq!(again(&revoked, &joined(), 7, 999), Err(Code::InviteUnknown));
    }

    #[test]
    fn an_invite_ends_at_its_expiry_and_not_after() {
        for now in [1_000, 1_001, i64::MAX] {
            let refusal = redeem(invite(), node(), WallTime(now)).expect_err("expired");
            assert_eq!(refusal.code, Code::InviteExpired);
        }
    }

    #[test]
    fn a_revoked_invite_is_unknown_whatever_else_it_is() {
        let revoked = Invite { revoked_at: Some(WallTime(1)), used_by: Some(node()), ..invite() };
        assert_eq!(redeem(revoked, node(), WallTime(5_000)).expect_err("revoked"), unknown());
    }

    #[test]
    fn the_text_form_is_read_back_with_white_space_and_upper_case() {
        let shown = text().reveal();
        assert_eq!(InviteText::parse(&shown).expect("its own text"), text());
        assert_eq!(InviteText::parse(&format!(" {shown}\n")).expect("white space"), text());
        let upper = shown.to_uppercase();
        assert_eq!(InviteText::parse(&upper).expect("upper case"), text());
    }

    #[test]
    fn a_text_cut_at_any_length_is_refused() {
        let shown = text().reveal();
        for len in 0..shown.len() {
            let refusal = InviteText::parse(&shown[..len]).expect_err("cut off");
            assert_eq!(refusal.code, Code::InviteMalformed, "{len} bytes");
        }
    }

    #[test]
    fn what_is_no_invite_is_refused_and_its_secret_not_repeated() {
        let shown = text().reveal();
        let huge = "x".repeat(1 << 20);
        for (bad, code) in [
            (huge.as_str(), Code::TooLarge),
            (&shown.replace("CXI1", "CXI2"), Code::InviteMalformed),
            (&shown.replace("cdcd", "cdcg"), Code::InviteMalformed),
            (&shown.replace("abab", "+bab"), Code::InviteMalformed),
            (&format!("{shown}.x"), Code::InviteMalformed),
            (&shown.replace('.', " "), Code::InviteMalformed),
        ] {
            let refusal = InviteText::parse(bad).expect_err("no invite");
            assert_eq!(refusal.code, code);
            assert!(!format!("{refusal:?}").contains("cdcdcd"));
        }
        assert!(!format!("{:?}", text()).contains("cdcdcd"));
    }
}
