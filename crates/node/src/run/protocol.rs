//! What a node process and the guards of its runs say to each other. Arguments and environment
//! travel here, so that they do not stand in the guard's own command line.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use cortex_core::limits;

use super::bytes::{Reader, Writer, read_message};
use crate::sandbox::limits::Bounds;
use crate::sandbox::room::Own;
use crate::sandbox::step::Step;
use crate::sandbox::walls::FileId;

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
    /// What the process becomes.
    pub(crate) image: Image,
    /// What holds for it inside of walls. Whether there are any is the nursery's affair: a launch
    /// that does not fit to it is refused.
    pub(crate) confined: Option<Confined>,
}

/// What the process that a guard starts becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Image {
    /// The program.
    #[default]
    Program,
    /// None: the walls are tried from inside.
    Probe,
    /// None: it works on files for the node ([`crate::files::clerk`]).
    Clerk,
}

impl Image {
    const fn to_byte(self) -> u8 {
        match self {
            Self::Program => b'X',
            Self::Probe => b'P',
            Self::Clerk => b'C',
        }
    }

    const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'X' => Some(Self::Program),
            b'P' => Some(Self::Probe),
            b'C' => Some(Self::Clerk),
            _ => None,
        }
    }
}

/// What one run has inside of its walls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Confined {
    /// The file of the program that was looked at.
    pub(crate) file: FileId,
    /// Whether it begins with `#!`.
    pub(crate) is_script: bool,
    /// Bounds of each process.
    pub(crate) bounds: Bounds,
    /// What is made for it alone.
    pub(crate) own: Own,
    /// Its own folder for what it writes.
    pub(crate) scratch: PathBuf,
}

/// From node to guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// SIGTERM to the tree.
    Term,
    /// SIGKILL until nothing is left.
    Kill,
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
    /// Nothing of the run is left. The last word of a guard that saw it to its end.
    Gone,
}

impl Order {
    pub(crate) const fn to_byte(self) -> u8 {
        match self {
            Self::Term => b'T',
            Self::Kill => b'K',
        }
    }

    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'T' => Some(Self::Term),
            b'K' => Some(Self::Kill),
            _ => None,
        }
    }
}

/// Bytes of every report.
pub(crate) const REPORT_BYTES: usize = 6;

impl Report {
    pub(crate) fn to_bytes(self) -> [u8; REPORT_BYTES] {
        let (kind, step, number) = match self {
            Self::Guard { pid } => (b'P', 0, pid.cast_signed()),
            Self::Started { pid } => (b'S', 0, pid.cast_signed()),
            Self::Failed { step, errno } => (b'F', step.to_byte(), errno),
            Self::Exited { code } => (b'E', 0, code),
            Self::Signaled { signal } => (b'G', 0, signal),
            Self::Abandoned => (b'N', 0, 0),
            Self::Gone => (b'Z', 0, 0),
        };
        let [a, b, c, d] = number.to_le_bytes();
        [kind, step, a, b, c, d]
    }

    pub(crate) fn from_bytes([kind, step, a, b, c, d]: [u8; REPORT_BYTES]) -> Option<Self> {
        let number = i32::from_le_bytes([a, b, c, d]);
        Some(match kind {
            b'P' => Self::Guard { pid: number.cast_unsigned() },
            b'S' => Self::Started { pid: number.cast_unsigned() },
            b'F' => Self::Failed { step: Step::from_byte(step)?, errno: number },
            b'E' => Self::Exited { code: number },
            b'G' => Self::Signaled { signal: number },
            b'N' => Self::Abandoned,
            b'Z' => Self::Gone,
            _ => return None,
        })
    }
}

impl Launch {
    /// The message, with its length in front.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.text(self.program.as_os_str().as_bytes());
        out.text(self.cwd.as_os_str().as_bytes());
        out.number(self.argv.len());
        self.argv.iter().for_each(|arg| out.text(arg.as_bytes()));
        out.number(self.env.len());
        for (name, value) in &self.env {
            out.text(name.as_bytes());
            out.text(value.as_bytes());
        }
        out.byte(self.image.to_byte());
        out.flag(self.confined.is_some());
        if let Some(confined) = &self.confined {
            confined.write(&mut out);
        }
        out.finish()
    }

    /// Reads one message.
    pub(crate) fn read_from(source: &mut impl Read) -> io::Result<Self> {
        Self::from_body(&read_message(source, LAUNCH_BYTES_MAX)?)
    }

    fn from_body(body: &[u8]) -> io::Result<Self> {
        Reader::whole(body, Self::parse)
    }

    fn parse(rest: &mut Reader<'_>) -> Option<Self> {
        let program = PathBuf::from(rest.text()?);
        let cwd = PathBuf::from(rest.text()?);
        let argv = (0..rest.number()?).map(|_| rest.text()).collect::<Option<_>>()?;
        let env = (0..rest.number()?).map(|_| Some((rest.text()?, rest.text()?))).collect::<Option<_>>()?;
        let image = Image::from_byte(rest.byte()?)?;
        let confined = if rest.flag()? { Some(Confined::read(rest)?) } else { None };
        Some(Self { program, argv, env, cwd, image, confined })
    }
}

impl Confined {
    fn write(&self, out: &mut Writer) {
        out.long(self.file.dev);
        out.long(self.file.ino);
        out.flag(self.is_script);
        self.bounds.write(out);
        out.long(self.own.scratch_bytes);
        out.maybe(self.own.pid_max.map(u64::from));
        out.text(self.scratch.as_os_str().as_bytes());
    }

    fn read(rest: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            file: FileId { dev: rest.long()?, ino: rest.long()? },
            is_script: rest.flag()?,
            bounds: Bounds::read(rest)?,
            own: Own {
                scratch_bytes: rest.long()?,
                pid_max: rest.maybe()?.map(u32::try_from).transpose().ok()?,
            },
            scratch: rest.text()?.into(),
        })
    }
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
            image: Image::Clerk,
            confined: None,
        };
        let confined = Confined {
            file: FileId { dev: 1, ino: 2 },
            is_script: true,
            bounds: Bounds { files: Some(7), ..Bounds::default() },
            own: Own { scratch_bytes: 9, pid_max: Some(301) },
            scratch: "/tmp".into(),
        };
        for launch in [Launch { confined: Some(confined), ..launch.clone() }, launch] {
            let bytes = launch.to_bytes();
            assert_eq!(Launch::read_from(&mut bytes.as_slice()).expect("whole"), launch);
            for cut in 0..bytes.len() {
                assert!(Launch::read_from(&mut &bytes[..cut]).is_err(), "cut at {cut}");
            }
        }
    }

    /// One that is read as less than it says would start a run with less.
    #[test]
    fn a_bound_that_does_not_fit_and_what_follows_a_launch_are_refused() {
        let own = Own { scratch_bytes: 9, pid_max: Some(301) };
        let launch = Launch { confined: Some(Confined { own, ..Confined::default() }), ..Launch::default() };
        let body = launch.to_bytes().split_off(4);
        let read = |body: &[u8]| Launch::from_body(body).ok();
        assert_eq!(read(&body), Some(launch));
        let at = body.windows(8).position(|part| part == 301_u64.to_le_bytes()).expect("it is there");
        for (at, byte) in [(at + 4, 1), (at - 1, 0)] {
            let mut changed = body.clone();
            changed[at] = byte;
            assert_eq!(read(&changed), None, "byte {at}");
        }
        assert_eq!(read(&[body.as_slice(), b"x"].concat()), None);
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
            Report::Gone,
        ];
        for report in all {
            assert_eq!(Report::from_bytes(report.to_bytes()), Some(report));
        }
        assert_eq!(Report::from_bytes([0; REPORT_BYTES]), None);
    }
}
