//! The one vocabulary of refusal: a code, a sentence, a hint that names an action.
//!
//! The table code → HTTP, gRPC and exit status is `cortex_wire::error`; each code has a page
//! under `docs/errors/`.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, $hint:literal;)*) => {
        /// Why something was refused. The text form is stable and is what clients match on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $variant,)*
        }

        impl Code {
            /// All codes, in the order of this table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable text form.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// What to do about it, when the place that refuses knows nothing better.
            pub const fn hint(self) -> &'static str {
                match self { $(Self::$variant => $hint,)* }
            }

            /// Reads the text form back.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

codes! {
    /// The request itself is malformed.
    InvalidArgument = "invalid_argument", "Correct the named field and send the request again.";
    /// A path that is none, or that could lead out of its folder.
    BadPath = "bad_path", "Send the path without `.`, `..`, doubled or trailing slashes, in any spelling; an absolute one for a file of a node.";
    /// There is no such node, or the caller may not see it.
    NodeNotFound = "node_not_found", "List the nodes with `cortex node ls` and use one of those names.";
    /// There is no such thing, or the caller may not see it.
    NotFound = "not_found", "List what there is and use one of those ids.";
    /// The node is enrolled and not connected.
    NodeOffline = "node_offline", "Start the node with `cortex node start` on that machine, then try again.";
    /// The policy does not allow it.
    PolicyDenied = "policy_denied", "Use an allowed program, or ask an administrator for `cortex policy allow`. Do not retry unchanged.";
    /// The node cannot put up the walls that the policy asks for.
    SandboxUnavailable = "sandbox_unavailable", "Look at the node's layers with `cortex node get NODE` and mend the first that is missing; nothing is started with less.";
    /// A policy document that cannot be read, or that contradicts itself.
    PolicyInvalid = "policy_invalid", "Correct the named field; `cortex policy get NODE --document` shows a valid one.";
    /// A person has to answer first.
    ConsentRequired = "consent_required", "Wait for a person's answer, see `cortex consent show ID`; do not send it again.";
    /// A person said no.
    ConsentDenied = "consent_denied", "Read the note and choose another way; do not retry unchanged.";
    /// A lock holds on the user, token, node, label or workspace.
    Locked = "locked", "Ask the administrator who made the lock; the message says why and until when.";
    /// A path that lies in none of the folders that the policy gives, or leads out of them.
    PathOutsideRoots = "path_outside_roots", "Use a path below one of the folders that the message names. Do not retry unchanged.";
    /// It did not end in the time given.
    Timeout = "timeout", "Raise `--timeout`, or use `--detach` and look later with `cortex run get`.";
    /// A fencing number of a link, or of the lock of a workspace, was too low.
    StaleEpoch = "stale_epoch", "Reconnect; a newer connection of this node has taken over.";
    /// The attempt has ended: its lease was lost, or somebody else has the task.
    StaleAttempt = "stale_attempt", "Stop this attempt and undo nothing; claim again to go on with other work.";
    /// Two callers changed the same thing, or a key was used for something else.
    Conflict = "conflict", "Read the current state and decide again.";
    /// A safety rule stopped the sync of a member: what it would do looks like an accident.
    SyncHalted = "sync_halted", "Look at the member's folder; when it is as it should be, let this halt pass with `cortex workspace resync NAME --accept HALT`.";
    /// The file is not what the caller knows it as.
    EtagMismatch = "etag_mismatch", "Read the file again, and decide anew with the etag that it has.";
    /// The text to replace is not in the file.
    EditNotFound = "edit_not_found", "Read the file again and copy the text exactly, blanks and line ends as well.";
    /// The text to replace is in the file more than once.
    EditAmbiguous = "edit_ambiguous", "Send more of the text around it, so that it is there once, or ask for each place with `all`.";
    /// The entry is not of a kind for which this is done.
    UnsupportedEntry = "unsupported_entry", "Look at what the entry is, and name a regular file or a folder.";
    /// There is no room left for it.
    NoSpace = "no_space", "Ask the owner of the machine to free space, or raise the limit that the message names.";
    /// A bound on how much one may hold is reached.
    Quota = "quota", "Wait for earlier work to end, or end it, then try again.";
    /// Too many requests in too short a time.
    RateLimited = "rate_limited", "Wait for the time in `retry_after_s`, then try again.";
    /// The invite was redeemed before.
    InviteUsed = "invite_used", "Make a new invite with `cortex invite`.";
    /// The invite's time is over.
    InviteExpired = "invite_expired", "Make a new invite with `cortex invite`.";
    /// No such invite, or it was revoked.
    InviteUnknown = "invite_unknown", "Make a new invite with `cortex invite` and copy it whole.";
    /// The invite's text cannot be read.
    InviteMalformed = "invite_malformed", "Copy the invite again, whole and unchanged, from `cortex invite`.";
    /// The hub's authority is not the one that the invite or the enrolment names.
    WrongAuthority = "wrong_authority", "Check the hub's address. If the hub was set up anew, make a new invite there with `cortex invite`.";
    /// No or unknown credentials.
    Unauthenticated = "unauthenticated", "Point CORTEX_TOKEN_FILE at a valid token file, or make a token with `cortex token create`.";
    /// Known credentials without this right.
    Forbidden = "forbidden", "Ask an administrator for a token with this right.";
    /// Credentials of one door shown at another.
    WrongAudience = "wrong_audience", "Use a node certificate on the node port and an API token on the HTTP port.";
    /// This node's identity was revoked.
    NodeRevoked = "node_revoked", "Join again with a new invite from `cortex invite`.";
    /// Two machines use one identity.
    ClonedIdentity = "cloned_identity", "Stop both machines, remove the node with `cortex node rm`, and join each with its own invite.";
    /// The node used up its recoveries.
    RecoveriesExhausted = "recoveries_exhausted", "Ask an administrator for `cortex node recoveries NODE --set 5`, or join again with a new invite.";
    /// The audit log is not what was written.
    AuditBroken = "audit_broken", "Keep this data directory as evidence, and verify an earlier export with `cortex audit verify --file`.";
    /// The store did not answer in time.
    StoreUnavailable = "store_unavailable", "Wait a moment and try again; check the hub's disk with `cortex status`.";
    /// A length or count above its bound.
    TooLarge = "too_large", "Send less, or split it; the bound is in the message.";
    /// A command that cannot be judged.
    TooComplex = "too_complex", "Send one program with its arguments; no shell text is parsed.";
    /// The other end speaks a version that is too old or too new.
    VersionUnsupported = "version_unsupported", "Install the same version of `cortex` on the hub and on the node.";
    /// The hub, or the transport to it, cannot be reached.
    HubUnreachable = "hub_unreachable", "Start the hub with `cortex hub start`, and check the address in CORTEX_HUB.";
    /// The event log was trimmed past the asked position.
    EventGap = "event_gap", "Read the lists anew, then follow events from the newest one.";
    /// A command has an end that nobody saw.
    UnknownOutcome = "unknown_outcome", "Look at the machine, then decide yourself whether to run it again.";
    /// The bad configuration key is named in the message.
    BadConfig = "bad_config", "Correct the named key; `cortex config show` tells where each value comes from.";
    /// A defect of ours.
    Internal = "internal", "Report it with the request id; the hub's log has the details.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names of details that keep their meaning on the way between processes, and over restarts. Others stay
/// where they were made.
pub const DETAILS: &[&str] = &[
    "attempt", "closest", "edit", "epoch", "etag", "halt", "head", "kind", "lines", "op", "path", "roots",
    "rule", "size", "target",
];

/// A decision not to do something, made for a reader who wants to know what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// One sentence with what was asked and why it is refused. Never a secret.
    pub message: String,
    /// One sentence that names an action.
    pub hint: String,
    /// Further facts by name, such as `rule` or `retry_after_s`.
    pub details: Vec<(&'static str, String)>,
}

impl Refusal {
    /// A refusal with the code's own hint.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: code.hint().to_owned(), details: Vec::new() }
    }

    /// Replaces the hint by a better one.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Adds a fact that came from elsewhere, when its name is one of [`DETAILS`].
    #[must_use]
    pub fn detail_named(self, name: &str, value: impl Into<String>) -> Self {
        match DETAILS.iter().find(|known| **known == name) {
            Some(known) => self.detail(known, value),
            None => self,
        }
    }

    /// Adds a fact.
    #[must_use]
    pub fn detail(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.details.push((name, value.into()));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERBS: &[&str] = &[
        "Ask",
        "Check",
        "Choose",
        "Copy",
        "Correct",
        "Install",
        "Join",
        "Keep",
        "List",
        "Look",
        "Make",
        "Point",
        "Raise",
        "Read",
        "Reconnect",
        "Report",
        "Send",
        "Start",
        "Stop",
        "Use",
        "Wait",
    ];

    #[test]
    fn the_hint_of_every_code_begins_with_an_action() {
        for code in Code::ALL {
            let verb = code.hint().split([' ', ';', ',']).next().expect("a word");
            assert!(VERBS.contains(&verb), "{code}: {}", code.hint());
            assert!(code.hint().ends_with('.'), "{code}");
        }
    }

    #[test]
    fn a_detail_from_elsewhere_is_taken_when_its_name_is_known() {
        let refusal =
            Refusal::new(Code::Conflict, "No.").detail_named("kind", "exists").detail_named("x", "y");
        assert_eq!(refusal.details, [("kind", "exists".to_owned())]);
    }

    #[test]
    fn every_code_has_its_own_text_and_is_read_back() {
        for code in Code::ALL {
            assert_eq!(Code::parse(code.as_str()), Some(*code));
        }
        assert_eq!(Code::parse("no_such_code"), None);
    }

    #[test]
    fn a_refusal_takes_the_hint_of_its_code_until_a_better_one_is_given() {
        let plain = Refusal::new(Code::Quota, "Full.");
        assert_eq!(plain.hint, Code::Quota.hint());
        let better = plain.hint("Wait.").detail("retry_after_s", "3");
        assert_eq!(
            (better.hint.as_str(), better.details.as_slice()),
            ("Wait.", &[("retry_after_s", "3".into())][..])
        );
    }
}
