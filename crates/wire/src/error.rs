//! The one error object of all surfaces, and the one table code → HTTP, gRPC, exit status.

use std::collections::BTreeMap;

use cortex_core::{Code, Refusal};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How a code looks on each surface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surface {
    /// HTTP status.
    pub http: u16,
    /// gRPC code.
    pub grpc: tonic::Code,
    /// Exit status of `cortex`.
    pub exit: u8,
    /// Whether the same request may succeed later.
    pub retryable: bool,
}

/// The table. UX fixes the exit statuses: 2 usage, 3 not found, 4 authentication, 5 policy,
/// 6 consent, 7 offline, 8 conflict, 124 timeout, 64 configuration, 1 the rest.
pub const fn surface(code: Code) -> Surface {
    use tonic::Code as Grpc;
    let (http, grpc, exit, retryable) = match code {
        Code::InvalidArgument | Code::InviteMalformed => (400, Grpc::InvalidArgument, 2, false),
        Code::PolicyInvalid | Code::BadPath => (400, Grpc::InvalidArgument, 2, false),
        Code::BadConfig => (400, Grpc::InvalidArgument, 64, false),
        Code::Unauthenticated => (401, Grpc::Unauthenticated, 4, false),
        Code::Forbidden
        | Code::WrongAudience
        | Code::WrongAuthority
        | Code::NodeRevoked
        | Code::InviteUsed
        | Code::InviteExpired
        | Code::InviteUnknown
        | Code::Locked
        | Code::RecoveriesExhausted => (403, Grpc::PermissionDenied, 4, false),
        Code::PolicyDenied | Code::TooComplex => (403, Grpc::PermissionDenied, 5, false),
        Code::ConsentDenied | Code::PathOutsideRoots => (403, Grpc::PermissionDenied, 5, false),
        Code::ConsentRequired => (403, Grpc::PermissionDenied, 6, false),
        Code::NodeNotFound | Code::NotFound => (404, Grpc::NotFound, 3, false),
        Code::NodeOffline => (409, Grpc::Unavailable, 7, true),
        Code::StaleEpoch => (409, Grpc::Aborted, 8, true),
        Code::StaleAttempt => (409, Grpc::Aborted, 8, false),
        Code::Conflict => (409, Grpc::Aborted, 8, false),
        Code::SyncHalted => (409, Grpc::FailedPrecondition, 8, false),
        Code::ClonedIdentity => (409, Grpc::Aborted, 4, false),
        Code::UnknownOutcome => (409, Grpc::Unknown, 1, false),
        Code::EventGap => (410, Grpc::OutOfRange, 8, false),
        Code::EtagMismatch => (412, Grpc::Aborted, 8, false),
        Code::VersionUnsupported => (412, Grpc::FailedPrecondition, 1, false),
        Code::SandboxUnavailable => (412, Grpc::FailedPrecondition, 5, false),
        Code::TooLarge => (413, Grpc::ResourceExhausted, 2, false),
        Code::EditNotFound | Code::EditAmbiguous => (422, Grpc::FailedPrecondition, 1, false),
        Code::UnsupportedEntry => (422, Grpc::FailedPrecondition, 1, false),
        Code::Quota | Code::RateLimited => (429, Grpc::ResourceExhausted, 1, true),
        Code::AuditBroken => (500, Grpc::DataLoss, 1, false),
        Code::Internal => (500, Grpc::Internal, 1, false),
        Code::StoreUnavailable | Code::HubUnreachable => (503, Grpc::Unavailable, 1, true),
        Code::Timeout => (504, Grpc::DeadlineExceeded, 124, true),
        Code::NoSpace => (507, Grpc::ResourceExhausted, 1, true),
    };
    Surface { http, grpc, exit, retryable }
}

/// `{"error": {…}}`: what a refused call answers with `--json` and in MCP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// The refusal.
    pub error: Problem,
}

/// The members of the error object. HTTP sends them as `application/problem+json` (RFC 9457) with
/// `type`, `title` and `status` beside them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Stable code; see `/docs/errors`.
    pub code: String,
    /// What was asked and why it is refused.
    pub message: String,
    /// What to do.
    pub hint: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// Names the request in the hub's log.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// Where the code is explained.
    pub docs: String,
    /// Further facts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

impl Problem {
    /// The object for a refusal.
    pub fn new(refusal: &Refusal, request_id: impl Into<String>) -> Self {
        Self {
            code: refusal.code.as_str().to_owned(),
            message: refusal.message.clone(),
            hint: refusal.hint.clone(),
            retryable: surface(refusal.code).retryable,
            request_id: request_id.into(),
            docs: format!("/docs/errors/{}", refusal.code),
            details: refusal.details.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect(),
        }
    }

    /// The code; an unknown one (of a newer hub) counts as `internal`.
    pub fn code(&self) -> Code {
        Code::parse(&self.code).unwrap_or(Code::Internal)
    }
}

const CODE_KEY: &str = "cortex-code";
const HINT_KEY: &str = "cortex-hint-bin";

/// A refusal as a gRPC status; code and hint travel in its metadata.
pub fn refusal_into_status(refusal: &Refusal) -> tonic::Status {
    use tonic::metadata::{MetadataMap, MetadataValue};
    let mut metadata = MetadataMap::new();
    metadata.insert(CODE_KEY, MetadataValue::from_static(refusal.code.as_str()));
    metadata.insert_bin(HINT_KEY, MetadataValue::from_bytes(refusal.hint.as_bytes()));
    tonic::Status::with_metadata(surface(refusal.code).grpc, refusal.message.clone(), metadata)
}

/// A gRPC status as a refusal. One without our metadata comes from the transport: it is
/// `hub_unreachable`, or what its gRPC code says.
pub fn refusal_from_status(status: &tonic::Status) -> Refusal {
    let hint = status
        .metadata()
        .get_bin(HINT_KEY)
        .and_then(|value| value.to_bytes().ok())
        .and_then(|bytes| String::from_utf8(bytes.to_vec()).ok());
    let refusal =
        Refusal::new(code_of(status).unwrap_or_else(|| transport_code(status.code())), status.message());
    match hint {
        Some(hint) => refusal.hint(hint),
        None => refusal,
    }
}

/// The code that the other end itself gave. A status without one comes from the transport, from
/// something between the ends, or has a code of a newer version.
pub fn code_of(status: &tonic::Status) -> Option<Code> {
    status.metadata().get(CODE_KEY).and_then(|value| value.to_str().ok()).and_then(Code::parse)
}

const fn transport_code(code: tonic::Code) -> Code {
    match code {
        tonic::Code::Unauthenticated => Code::Unauthenticated,
        tonic::Code::PermissionDenied => Code::Forbidden,
        tonic::Code::ResourceExhausted => Code::TooLarge,
        tonic::Code::DeadlineExceeded => Code::Timeout,
        tonic::Code::Unimplemented | tonic::Code::FailedPrecondition => Code::VersionUnsupported,
        tonic::Code::InvalidArgument | tonic::Code::OutOfRange => Code::InvalidArgument,
        tonic::Code::Ok
        | tonic::Code::Cancelled
        | tonic::Code::Unknown
        | tonic::Code::NotFound
        | tonic::Code::AlreadyExists
        | tonic::Code::Aborted
        | tonic::Code::Internal
        | tonic::Code::Unavailable
        | tonic::Code::DataLoss => Code::HubUnreachable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_way_through_a_grpc_status() {
        for code in Code::ALL {
            let refusal = Refusal::new(*code, "why: ü").hint("do this: é");
            let back = refusal_from_status(&refusal_into_status(&refusal));
            assert_eq!(
                (back.code, back.message, back.hint),
                (*code, "why: ü".to_owned(), "do this: é".to_owned())
            );
        }
    }

    #[test]
    fn every_hint_is_a_sentence_that_names_an_action() {
        for code in Code::ALL {
            let hint = code.hint();
            assert!(
                hint.ends_with('.') && hint.starts_with(|c: char| c.is_ascii_uppercase()),
                "{code}: {hint}"
            );
        }
    }
}
