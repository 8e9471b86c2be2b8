//! What a node process and the guards of its runs say to each other. Arguments and environment
//! travel here, so that they do not stand in the guard's own command line.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use cortex_core::limits;

/// Bytes of a launch message: argv, environment, paths, and room for the node's own variables.
const LAUNCH_BYTES_MAX: usize =
    limits::ARGV_BYTES_MAX + limits::ENV_BYTES_MAX + 2 * limits::PATH_BYTES_MAX + 256 * 1024;

/// What to start, complete: nothing is looked up or added later.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Launch {
    /// Absolute path.
    pub(crate) program: PathBuf,
    /// Its arguments, its own name first.
    pub(crate) argv: Vec<OsString>,
    /// Its whole environment.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// Where it starts.
    pub(crate) cwd: PathBuf,
}

/// From node to guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// SIGTERM to the tree.
    Term,
    /// SIGKILL until nothing is left.
    Kill,
}

/// What failed before the program ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Entering the working directory.
    Cwd,
    /// Starting the program.
    Exec,
}

/// From guard to node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// First of all: who the guard is.
    Guard {
        /// Its number.
        pid: u32,
    },
    /// The process is there.
    Started {
        /// Its number.
        pid: u32,
    },
    /// It could not be started.
    Failed {
        /// Where.
        step: Step,
        /// The system's reason.
        errno: i32,
    },
    /// The main process returned.
    Exited {
        /// Its code.
        code: i32,
    },
    /// The main process was ended by a signal.
    Signaled {
        /// Which.
        signal: i32,
    },
    /// The nursery was ended from outside: the guard kills the run.
    Abandoned,
}

impl Order {
    pub(super) const fn to_byte(self) -> u8 {
        match self {
            Self::Term => b'T',
            Self::Kill => b'K',
        }
    }

    pub(super) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'T' => Some(Self::Term),
            b'K' => Some(Self::Kill),
            _ => None,
        }
    }
}

/// Bytes of every report.
pub(super) const REPORT_BYTES: usize = 5;

impl Report {
    pub(super) fn to_bytes(self) -> [u8; REPORT_BYTES] {
        let (kind, number) = match self {
            Self::Guard { pid } => (b'P', pid.cast_signed()),
            Self::Started { pid } => (b'S', pid.cast_signed()),
            Self::Failed { step: Step::Cwd, errno } => (b'D', errno),
            Self::Failed { step: Step::Exec, errno } => (b'F', errno),
            Self::Exited { code } => (b'E', code),
            Self::Signaled { signal } => (b'G', signal),
            Self::Abandoned => (b'N', 0),
        };
        let [a, b, c, d] = number.to_le_bytes();
        [kind, a, b, c, d]
    }

    pub(super) const fn from_bytes([kind, a, b, c, d]: [u8; REPORT_BYTES]) -> Option<Self> {
        let number = i32::from_le_bytes([a, b, c, d]);
        Some(match kind {
            b'P' => Self::Guard { pid: number.cast_unsigned() },
            b'S' => Self::Started { pid: number.cast_unsigned() },
            b'D' => Self::Failed { step: Step::Cwd, errno: number },
            b'F' => Self::Failed { step: Step::Exec, errno: number },
            b'E' => Self::Exited { code: number },
            b'G' => Self::Signaled { signal: number },
            b'N' => Self::Abandoned,
            _ => return None,
        })
    }
}

impl Launch {
    /// The message, with its length in front.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(1024);
        put(&mut body, self.program.as_os_str().as_bytes());
        put(&mut body, self.cwd.as_os_str().as_bytes());
        put_len(&mut body, self.argv.len());
        self.argv.iter().for_each(|arg| put(&mut body, arg.as_bytes()));
        put_len(&mut body, self.env.len());
        for (name, value) in &self.env {
            put(&mut body, name.as_bytes());
            put(&mut body, value.as_bytes());
        }
        let mut message = Vec::with_capacity(body.len() + 4);
        put_len(&mut message, body.len());
        message.extend(body);
        message
    }

    /// Reads one message.
    pub(super) fn read_from(source: &mut impl Read) -> io::Result<Self> {
        let mut head = [0; 4];
        source.read_exact(&mut head)?;
        let len = u32::from_le_bytes(head) as usize;
        if len > LAUNCH_BYTES_MAX {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        let mut body = vec![0; len];
        source.read_exact(&mut body)?;
        Self::parse(&body).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    fn parse(body: &[u8]) -> Option<Self> {
        let rest = &mut &*body;
        let program = PathBuf::from(text(rest)?);
        let cwd = PathBuf::from(text(rest)?);
        let argv = (0..number(rest)?).map(|_| text(rest)).collect::<Option<_>>()?;
        let env = (0..number(rest)?).map(|_| Some((text(rest)?, text(rest)?))).collect::<Option<_>>()?;
        Some(Self { program, argv, env, cwd })
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    // Everything was checked against `limits`, far below this.
    out.extend(u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend(bytes);
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (front, back) = rest.split_at_checked(len)?;
    *rest = back;
    Some(front)
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(take(rest, 4)?.try_into().ok()?))
}

fn text(rest: &mut &[u8]) -> Option<OsString> {
    let len = number(rest)?;
    Some(OsString::from_vec(take(rest, len as usize)?.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launch_reads_back_as_it_was_written_and_a_cut_one_is_refused() {
        let launch = Launch {
            program: "/bin/echo".into(),
            argv: vec!["echo".into(), String::new().into(), "ü\n".into()],
            env: vec![("A".into(), "b=c".into())],
            cwd: "/tmp".into(),
        };
        let bytes = launch.to_bytes();
        assert_eq!(Launch::read_from(&mut bytes.as_slice()).expect("whole"), launch);
        for cut in 0..bytes.len() {
            assert!(Launch::read_from(&mut &bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn every_report_reads_back() {
        let all = [
            Report::Started { pid: 4_000_000_000 },
            Report::Failed { step: Step::Cwd, errno: 2 },
            Report::Failed { step: Step::Exec, errno: 13 },
            Report::Exited { code: 255 },
            Report::Signaled { signal: 9 },
            Report::Abandoned,
        ];
        for report in all {
            assert_eq!(Report::from_bytes(report.to_bytes()), Some(report));
        }
        assert_eq!(Report::from_bytes([0; REPORT_BYTES]), None);
    }
}
