//! What a nursery is told of the room that it becomes: the walls of a policy with every path looked
//! up on this machine. Plain data and its bytes. Never here: looking at a disk.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use cortex_core::limits;
use cortex_core::sandbox::{Access, Level, Network};

use super::identity::RunUser;
use super::step::{Failed, Step};
use crate::run::bytes::{Reader, Writer, read_message};

/// Bytes of a message that holds a room: its paths, twice, and what is to be covered in them.
const ROOM_BYTES_MAX: usize = 4 * limits::POLICY_ROOTS_MAX * (2 * limits::PATH_BYTES_MAX + 64);
/// Bytes of the answer to it.
const ANSWER_BYTES_MAX: usize = limits::PATH_BYTES_MAX + 64;

/// A room, complete. Two runs with equal ones share a nursery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// The level that is put up, which is not less than what the policy asks for.
    pub(crate) level: Level,
    /// In order of path; what lies in another is there only when more may be done with it.
    pub(crate) trees: Vec<Bound>,
    /// What inside of them must not be seen.
    pub(crate) masks: Vec<Mask>,
    /// Which connections may be opened.
    pub(crate) network: Network,
    /// As whom runs execute; `None` is the user of the node process.
    pub(crate) user: Option<RunUser>,
    /// The host's name in there.
    pub(crate) host: String,
}

/// A folder or file that is in the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    /// Where it is seen: absolute, normal.
    pub(crate) path: PathBuf,
    /// Where it is on this machine, without symlinks.
    pub(crate) source: PathBuf,
    /// For what.
    pub(crate) access: Access,
    /// Whether programs in it may be executed.
    pub(crate) exec: bool,
    /// Whether it is a folder.
    pub(crate) is_dir: bool,
    /// Which file it is: one that takes its name later is another room's.
    pub(crate) file: FileId,
}

/// A path that is covered by something empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mask {
    pub(crate) path: PathBuf,
    pub(crate) is_dir: bool,
}

/// A file, whatever its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileId {
    pub(crate) dev: u64,
    pub(crate) ino: u64,
}

impl FileId {
    /// Which file a path or descriptor led to.
    pub(crate) fn of(data: &std::fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        Self { dev: data.dev(), ino: data.ino() }
    }
}

impl Room {
    /// Whether it has namespaces of its own.
    pub(crate) fn is_full(&self) -> bool {
        self.level == Level::Full
    }

    /// Whether programs may be built and then executed: then also in what is written besides.
    pub(crate) fn may_run_what_it_writes(&self) -> bool {
        self.trees.iter().any(|tree| tree.access == Access::Write && tree.exec)
    }

    /// The message, with its length in front. It also tells rooms apart.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.text(self.level.as_str().as_bytes());
        out.text(self.host.as_bytes());
        out.flag(self.user.is_some());
        if let Some(user) = &self.user {
            out.number(user.uid as usize);
            out.number(user.gid as usize);
            out.text(user.name.as_bytes());
        }
        put_network(&mut out, &self.network);
        out.number(self.trees.len());
        for tree in &self.trees {
            out.text(tree.path.as_os_str().as_bytes());
            out.text(tree.source.as_os_str().as_bytes());
            out.flag(tree.access == Access::Write);
            out.flag(tree.exec);
            out.flag(tree.is_dir);
            out.long(tree.file.dev);
            out.long(tree.file.ino);
        }
        out.number(self.masks.len());
        for mask in &self.masks {
            out.text(mask.path.as_os_str().as_bytes());
            out.flag(mask.is_dir);
        }
        out.finish()
    }

    /// Reads one message.
    pub(crate) fn read_from(source: &mut impl Read) -> io::Result<Self> {
        Reader::whole(&read_message(source, ROOM_BYTES_MAX)?, Self::parse)
    }

    fn parse(rest: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            level: Level::parse(rest.text()?.to_str()?)?,
            host: rest.text()?.into_string().ok()?,
            user: take_user(rest)?,
            network: take_network(rest)?,
            trees: (0..rest.number()?).map(|_| take_bound(rest)).collect::<Option<_>>()?,
            masks: (0..rest.number()?).map(|_| take_mask(rest)).collect::<Option<_>>()?,
        })
    }
}

fn put_network(out: &mut Writer, network: &Network) {
    match network {
        Network::None => out.number(0),
        Network::Ports(ports) => {
            out.number(1);
            out.number(ports.len());
            ports.iter().for_each(|port| out.number(usize::from(*port)));
        }
        Network::All => out.number(2),
    }
}

fn take_network(rest: &mut Reader<'_>) -> Option<Network> {
    match rest.number()? {
        0 => Some(Network::None),
        1 => {
            let ports = (0..rest.number()?).map(|_| u16::try_from(rest.number()?).ok());
            Some(Network::Ports(ports.collect::<Option<_>>()?))
        }
        2 => Some(Network::All),
        _ => None,
    }
}

/// The outer `None` is a message that does not fit.
fn take_user(rest: &mut Reader<'_>) -> Option<Option<RunUser>> {
    if !rest.flag()? {
        return Some(None);
    }
    let (uid, gid) = (rest.number()?, rest.number()?);
    Some(Some(RunUser { uid, gid, name: rest.text()?.into_string().ok()? }))
}

fn take_bound(rest: &mut Reader<'_>) -> Option<Bound> {
    Some(Bound {
        path: rest.text()?.into(),
        source: rest.text()?.into(),
        access: if rest.flag()? { Access::Write } else { Access::Read },
        exec: rest.flag()?,
        is_dir: rest.flag()?,
        file: FileId { dev: rest.long()?, ino: rest.long()? },
    })
}

fn take_mask(rest: &mut Reader<'_>) -> Option<Mask> {
    Some(Mask { path: rest.text()?.into(), is_dir: rest.flag()? })
}

/// Tells the node whether the room is there.
pub(crate) fn answer(to: &mut impl Write, entered: &Result<(), Failed>) -> io::Result<()> {
    let mut out = Writer::new();
    out.flag(entered.is_ok());
    if let Err(failed) = entered {
        out.number(usize::from(failed.step.to_byte()));
        out.number(usize::try_from(failed.errno).unwrap_or(0));
        out.text(failed.path.as_os_str().as_bytes());
    }
    to.write_all(&out.finish())
}

/// Reads that answer.
pub(crate) fn answered(from: &mut impl Read) -> io::Result<Result<(), Failed>> {
    Reader::whole(&read_message(from, ANSWER_BYTES_MAX)?, |rest| {
        if rest.flag()? {
            return Some(Ok(()));
        }
        let step = Step::from_byte(u8::try_from(rest.number()?).ok()?)?;
        let errno = i32::try_from(rest.number()?).ok()?;
        Some(Err(Failed { step, errno, path: rest.text()?.into() }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room() -> Room {
        let tree = Bound {
            path: "/w".into(),
            source: "/data/w".into(),
            access: Access::Write,
            exec: true,
            is_dir: true,
            file: FileId { dev: 1, ino: u64::MAX },
        };
        Room {
            level: Level::Full,
            trees: vec![tree],
            masks: vec![Mask { path: "/w/.ssh".into(), is_dir: true }],
            network: Network::Ports([53, 443].into()),
            user: Some(RunUser { uid: 65_521, gid: 65_521, name: "cortex-run".to_owned() }),
            host: "build-2".to_owned(),
        }
    }

    #[test]
    fn a_room_reads_back_as_it_was_written_and_a_cut_one_is_refused() {
        let plain = Room { network: Network::All, user: None, trees: Vec::new(), ..room() };
        for room in [room(), plain] {
            let bytes = room.to_bytes();
            assert_eq!(Room::read_from(&mut bytes.as_slice()).expect("whole"), room);
            for cut in 0..bytes.len() {
                assert!(Room::read_from(&mut &bytes[..cut]).is_err(), "cut at {cut}");
            }
        }
    }

    #[test]
    fn an_answer_reads_back_with_the_step_that_failed() {
        let failed = Failed { step: Step::Tree, errno: 13, path: "/w".into() };
        for entered in [Ok(()), Err(failed)] {
            let mut bytes = Vec::new();
            answer(&mut bytes, &entered).expect("written");
            assert_eq!(answered(&mut bytes.as_slice()).expect("whole"), entered);
        }
    }
}
