//! How the node tells of a run that did not begin, and of the end of one that did: cause, and a sentence
//! for people. Never here: waiting for either.

use std::path::Path;

use cortex_core::Code;
use cortex_core::run::{EndCause, Ended};

use super::process::Exit;
use super::program::NotLaunched;
use crate::sandbox::step::{Failed, Step};

/// What ends a run whose start hangs.
pub(super) const SIGKILL: i32 = 9;
pub(super) const OUT_OF_MEMORY: &str =
    "It used all the memory that its policy lets it, and the system ended a part of it.";

pub(super) fn ended_by(exit: Exit, duration_ms: u128) -> Ended {
    let ended =
        Ended { duration_ms: u64::try_from(duration_ms).unwrap_or(u64::MAX), ..Ended::new(EndCause::Exited) };
    let unseen = |why: &str| Ended {
        cause: EndCause::UnknownOutcome,
        diagnostic: Some(why.to_owned()),
        ..ended.clone()
    };
    match exit {
        Exit::Code(code) => Ended { code: Some(code), ..ended },
        Exit::Signal(signal) => Ended { signal: Some(signal), ..ended },
        Exit::Unseen => unseen("The run's guard was ended from outside; how the command ended was not seen."),
        Exit::Abandoned => {
            unseen("The node's nursery was ended from outside, and the command was killed with it.")
        }
    }
}

/// It did not end by itself, and begins no more.
pub(super) fn hung() -> Ended {
    let diagnostic = "It was ended before its program ran: the start hung.".to_owned();
    Ended { signal: Some(SIGKILL), diagnostic: Some(diagnostic), ..Ended::new(EndCause::Exited) }
}

/// Its guard was there and went before it told of the start.
pub(super) fn unseen(error: &std::io::Error) -> Ended {
    let diagnostic = format!(
        "The run's guard was ended from outside while it started the command ({error}); whether it ran is not known."
    );
    Ended { diagnostic: Some(diagnostic), ..Ended::new(EndCause::UnknownOutcome) }
}

pub(super) fn failed(diagnostic: String) -> Ended {
    Ended { diagnostic: Some(diagnostic), ..Ended::new(EndCause::Failed) }
}

pub(super) fn guard_failed(error: &std::io::Error) -> Ended {
    failed(format!("The run's guard could not be started: {error}."))
}

fn denied(diagnostic: String) -> Ended {
    Ended { diagnostic: Some(diagnostic), ..Ended::new(EndCause::Denied) }
}

pub(super) fn not_launched(why: NotLaunched) -> Ended {
    match why {
        NotLaunched::Failed(why) => failed(why),
        NotLaunched::Denied(why) => denied(why),
    }
}

/// The diagnostic begins with the code, as those do that the policy's own judgement has.
pub(super) fn denied_with(code: Code, why: &str) -> Ended {
    denied(format!("{code}: {why}"))
}

pub(super) fn no_walls(why: &Failed) -> Ended {
    let step = why.step.as_str();
    let why = match why.step.layer() {
        _ if why.errno == nix::libc::ESTALE => {
            format!("Nothing was started, since a root of its policy was exchanged meanwhile: {step}.")
        }
        "" => format!("Nothing was started, since its walls could not be put up: {why}."),
        layer => format!(
            "Nothing was started, since its walls could not be put up: {why}; the layer `{layer}` is missing."
        ),
    };
    denied_with(Code::SandboxUnavailable, &why)
}

pub(super) fn wrote_too_much(max: Option<u64>) -> String {
    format!("It wrote more than the {} bytes that its policy lets it, and was ended.", max.unwrap_or(0))
}

/// The guard, or the child of it, could not do what comes before the program.
pub(super) fn refused(why: &Failed, program: &Path, cwd: &Path, node: &str) -> Ended {
    use cortex_core::name::printable;
    let (what, path) = if why.step == Step::Cwd {
        ("The working directory", cwd)
    } else if why.step == Step::Exec {
        ("The program", program)
    } else if why.step == Step::Program && why.errno == nix::libc::ESTALE {
        let path = printable(&program.to_string_lossy(), 200);
        return denied(format!("The program `{path}` was exchanged between check and start (exec.program)."));
    } else {
        return no_walls(why);
    };
    let path = printable(&path.to_string_lossy(), 200);
    let error = std::io::Error::from_raw_os_error(why.errno);
    let reason = if error.kind() == std::io::ErrorKind::NotFound {
        "was not found".to_owned()
    } else if error.kind() == std::io::ErrorKind::PermissionDenied {
        "may not be used (permission denied)".to_owned()
    } else {
        format!("cannot be used ({error})")
    };
    failed(format!("{what} `{path}` {reason} on {node}."))
}
