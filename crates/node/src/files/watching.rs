//! The life of a clerk that watches folders for the node. It reads no file but those with rules, and says that
//! something changed, not what. Its pipe is its life, as that of any clerk.
//!
//! Memory and work are bounded: [`WATCH_DIRS_MAX`] folders, a look at what the system tells every
//! [`READ_EVERY`], and one word on each folder every [`TELL_EVERY`], however much happens there.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use cortex_core::id::WatchId;
use cortex_core::limits::WATCH_DIRS_MAX;
use cortex_core::policy::Reach;
use cortex_core::watch::{Blind, Sight, WatchAsk, WatchNews};
use cortex_wire::convert::watch::{ask_from_bytes, ask_to_bytes, news_to_bytes};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::beneath::Follow;
use super::clerk::{Desk, Talk, read_reach, write_reach};
use super::fault::Fault;
use super::frame::{Frame, Kind};
use super::scan::watch::Watch;
use super::transfer::spec;
use crate::run::bytes::{Reader, Writer};

/// What happens within this time is taken in together.
const READ_EVERY: Duration = Duration::from_millis(20);
/// Between two words on one folder.
const TELL_EVERY: Duration = Duration::from_millis(200);
/// Between two times that the rules of one folder are read anew.
const ANEW_EVERY: Duration = Duration::from_secs(1);
/// Folders that get their watches before others have their turn.
const STEPS: usize = 256;

/// A folder to watch as a clerk is given it: judged, and with where it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WatchJob {
    pub(crate) ask: WatchAsk,
    pub(crate) reach: Reach,
}

impl WatchJob {
    /// The frame that begins it.
    pub(crate) fn to_frame(&self) -> Frame {
        let mut out = Writer::new();
        out.text(&ask_to_bytes(self.ask.clone()));
        write_reach(&mut out, &self.reach);
        Frame::new(Kind::Watch, out.finish().split_off(size_of::<u32>()))
    }

    /// Reads it back; `None` for what is none.
    fn from_frame(Frame { kind, body }: &Frame) -> Option<Self> {
        if *kind != Kind::Watch {
            return None;
        }
        Reader::whole(body, |rest| {
            let ask = ask_from_bytes(rest.text()?.as_encoded_bytes()).ok()?;
            Some(Self { ask, reach: read_reach(rest)? })
        })
        .ok()
    }
}

/// The frame that ends one.
pub(crate) fn unwatch(id: WatchId) -> Frame {
    Frame::new(Kind::Unwatch, id.as_bytes().to_vec())
}

/// One folder that is watched.
struct One<'d> {
    id: WatchId,
    watch: Watch<'d>,
    /// Whether all of it was ever watched, which was told then.
    is_begun: bool,
    /// Whether a change is to be told.
    is_dirty: bool,
    read_at: Instant,
    tell_at: Instant,
    anew_at: Instant,
}

/// Watches what the node asks for, until it is gone. Fails for what makes no sense.
pub(super) fn live(talk: &mut Talk<File, File>, desk: &Desk, first: &Frame) -> io::Result<()> {
    let mut ones = Vec::new();
    take(talk, desk, &mut ones, first)?;
    loop {
        turn(talk, &mut ones)?;
        if !talk.has_more() && !wait(talk, &ones)? {
            continue;
        }
        match talk.hear()? {
            Some(frame) => take(talk, desk, &mut ones, &frame)?,
            None => return Ok(()),
        }
    }
}

/// Takes in what the node says.
fn take<'d>(
    talk: &mut Talk<File, File>,
    desk: &'d Desk,
    ones: &mut Vec<One<'d>>,
    frame: &Frame,
) -> io::Result<()> {
    if frame.kind == Kind::Unwatch {
        let id = WatchId::from_slice(&frame.body).ok_or(io::ErrorKind::InvalidData)?;
        ones.retain(|one| one.id != id);
        return Ok(());
    }
    let job = WatchJob::from_frame(frame).ok_or(io::ErrorKind::InvalidData)?;
    let id = job.ask.id;
    ones.retain(|one| one.id != id);
    match begin(desk, job) {
        Ok(watch) => {
            let now = Instant::now();
            ones.push(One {
                id,
                watch,
                is_begun: false,
                is_dirty: false,
                read_at: now,
                tell_at: now,
                anew_at: now,
            });
            Ok(())
        }
        Err(why) => tell(talk, id, Sight::Blind(why)),
    }
}

fn begin(desk: &Desk, job: WatchJob) -> Result<Watch<'_>, Blind> {
    let WatchJob { ask, reach } = job;
    let spec = spec(&ask.filters, false, None).map_err(|_refusal| Blind::Failed)?;
    let open = move || {
        let root = desk.open(&reach).map_err(|_refusal| Fault::Sys(Errno::ESTALE))?;
        root.dir(&reach.rest, Follow::Within)
    };
    Watch::new(open, spec)
}

/// Does what is due for each folder.
fn turn(talk: &mut Talk<File, File>, ones: &mut Vec<One<'_>>) -> io::Result<()> {
    let mut at = 0;
    while at < ones.len() {
        let watched: usize = ones.iter().map(|one| one.watch.len()).sum();
        let one = &mut ones[at];
        let news = match one.turn(WATCH_DIRS_MAX.saturating_sub(watched)) {
            Ok(news) => news,
            Err(why) => {
                let gone = ones.swap_remove(at);
                tell(talk, gone.id, Sight::Blind(why))?;
                continue;
            }
        };
        let id = one.id;
        if let Some(sight) = news {
            tell(talk, id, sight)?;
        }
        at += 1;
    }
    Ok(())
}

impl One<'_> {
    /// What is to be told of it.
    fn turn(&mut self, room: usize) -> Result<Option<Sight>, Blind> {
        let now = Instant::now();
        if self.read_at <= now {
            let has_changed = self.watch.hear()?;
            self.is_dirty |= has_changed;
            self.read_at = now + READ_EVERY;
        }
        if self.watch.is_outdated() && self.anew_at <= now {
            self.watch.anew()?;
            self.anew_at = now + ANEW_EVERY;
        }
        if self.watch.is_behind() {
            self.watch.walk(STEPS, room)?;
            // What happened in them before they had their watches is told by this.
            self.is_dirty |= !self.watch.is_behind();
        }
        if !self.is_begun && !self.watch.is_behind() {
            (self.is_begun, self.is_dirty) = (true, false);
            self.tell_at = now + TELL_EVERY;
            return Ok(Some(Sight::Watching));
        }
        if self.is_dirty && self.is_begun && self.tell_at <= now {
            self.is_dirty = false;
            self.tell_at = now + TELL_EVERY;
            return Ok(Some(Sight::Changed));
        }
        Ok(None)
    }

    /// When something is due for it whether or not the system tells anything.
    fn due(&self, now: Instant) -> Option<Instant> {
        let is_outdated = self.watch.is_outdated();
        let due = [
            self.watch.is_behind().then_some(now),
            (self.is_dirty && self.is_begun).then_some(self.tell_at),
            is_outdated.then_some(self.anew_at),
            // Until then it is not waited for what the system tells.
            (self.read_at > now).then_some(self.read_at),
        ];
        due.into_iter().flatten().min()
    }
}

/// Waits until something is due. Whether the node has something to say.
fn wait(talk: &Talk<File, File>, ones: &[One<'_>]) -> io::Result<bool> {
    let now = Instant::now();
    let due = ones.iter().filter_map(|one| one.due(now)).min();
    let timeout = match due {
        None => PollTimeout::NONE,
        // Rounded up: what is due in less than a millisecond is not asked for again and again.
        Some(due) if due > now => {
            let left = due.duration_since(now) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        }
        Some(_) => PollTimeout::ZERO,
    };
    let mut fds = vec![PollFd::new(talk.jobs().as_fd(), PollFlags::POLLIN)];
    let waited = ones.iter().filter(|one| one.read_at <= now);
    fds.extend(waited.map(|one| PollFd::new(one.watch.as_fd(), PollFlags::POLLIN)));
    match poll(&mut fds, timeout) {
        Ok(_ready) => Ok(fds[0].revents().is_some_and(|found| !found.is_empty())),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn tell(talk: &mut Talk<File, File>, id: WatchId, sight: Sight) -> io::Result<()> {
    talk.tell(Kind::Watch, news_to_bytes(WatchNews { id, sight }))
}

#[cfg(test)]
mod tests;
