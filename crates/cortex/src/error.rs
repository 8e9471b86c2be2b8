//! How a command ends when it does not end well: the one error object, or an exit status about
//! which everything has been said. It never prints; `output` does.

use cortex_core::{Code, Refusal};
use cortex_wire::error::{Problem, surface};

/// What every command returns.
pub(crate) type Result<T = ()> = std::result::Result<T, Failure>;

/// Why a command ends early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Refused: the error object is still to be shown.
    Refused(Box<Refused>),
    /// All is said; only the status is left.
    Exit(u8),
}

/// An error object with what the CLI adds to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The error object.
    pub(crate) problem: Problem,
    /// Ways on, as `(what, command)`; they only show to people.
    pub(crate) ways: Vec<(&'static str, String)>,
    /// The exit status.
    pub(crate) exit: u8,
}

impl Failure {
    /// Wrong use of the command line: exit status 2.
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Refusal::new(Code::InvalidArgument, message).hint(hint).into()
    }

    /// A refusal made here, with its own hint.
    pub(crate) fn new(code: Code, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Refusal::new(code, message).hint(hint).into()
    }

    /// The exit status.
    pub(crate) fn exit(&self) -> u8 {
        match self {
            Self::Refused(refused) => refused.exit,
            Self::Exit(code) => *code,
        }
    }

    /// The code, when it is a refusal.
    pub(crate) fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(refused) => Some(refused.problem.code()),
            Self::Exit(_) => None,
        }
    }

    /// A detail of a refusal.
    pub(crate) fn detail(&self, name: &str) -> Option<&str> {
        match self {
            Self::Refused(refused) => refused.problem.details.get(name).map(String::as_str),
            Self::Exit(_) => None,
        }
    }

    /// Whether the hub, or the way to it, is the trouble: worth another try.
    pub(crate) fn is_transport(&self) -> bool {
        matches!(self.code(), Some(Code::HubUnreachable | Code::StoreUnavailable | Code::RateLimited))
    }

    /// With another exit status.
    pub(crate) fn with_exit(self, exit: u8) -> Self {
        match self {
            Self::Refused(refused) => Self::Refused(Box::new(Refused { exit, ..*refused })),
            Self::Exit(_) => Self::Exit(exit),
        }
    }

    /// With a further way on.
    pub(crate) fn way(self, what: &'static str, command: String) -> Self {
        match self {
            Self::Refused(mut refused) => {
                refused.ways.push((what, command));
                Self::Refused(refused)
            }
            Self::Exit(code) => Self::Exit(code),
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let exit = surface(problem.code()).exit;
        Self::Refused(Box::new(Refused { problem, ways: Vec::new(), exit }))
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Problem::new(&refusal, "").into()
    }
}
