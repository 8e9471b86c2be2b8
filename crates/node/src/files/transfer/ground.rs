//! Where a transfer works: its folder, opened beneath the root, or what is there in place of it.

use cortex_core::Refusal;
use cortex_core::files::op::Kind;
use cortex_core::name::printable;
use cortex_core::sync::RootState;
use cortex_core::transfer::Filters;

use super::super::beneath::{Dir, Follow, Stat};
use super::super::fault::{Fault, unfit};
use super::super::make::{self, Made};
use super::super::place::{Place, Work};
use super::super::scan::{Links, ScanSpec};
use super::super::write::denied;

/// The folder that is to become something.
#[derive(Debug)]
pub(super) struct Dest {
    /// `None`: it is not there, and was not to be made.
    pub(super) dir: Option<Dir>,
    /// Folders that were made for it. They go again when they are dropped and nothing is in them.
    pub(super) made: Made,
}

/// Opens the folder of an APPLY; with `may_make` it is made when it is not there, with those above it.
///
/// # Errors
/// `unsupported_entry` for what is no folder, `path_outside_roots`, `forbidden` with the owner of the folder
/// in which it cannot be made.
pub(super) fn dest(work: &Work<'_>, place: &Place<'_>, may_make: bool) -> Result<Dest, Refusal> {
    let failed = |fault| place.refusal(fault);
    let is_there = match find(place)? {
        Some((stat, link)) => {
            if stat.kind != Kind::Dir {
                return Err(no_folder(place, &stat, link));
            }
            true
        }
        None => false,
    };
    if is_there {
        let dir = match place.rel.parent() {
            None => place.root.dir(place.rel, Follow::Never).map_err(failed)?,
            Some(_) => {
                let (above, name) = place.parent()?;
                above.dir_or_mount(name.as_bytes()).map_err(failed)?
            }
        };
        return Ok(Dest { dir: Some(dir), made: Made::default() });
    }
    if !may_make {
        return Ok(Dest { dir: None, made: Made::default() });
    }
    match make::folders(work, place.root, place.rel, None) {
        Ok((dir, made)) => Ok(Dest { dir: Some(dir), made }),
        Err(fault) => Err(refused(place, fault)),
    }
}

/// A failure to make something in the folder that is there of those above.
fn refused(place: &Place<'_>, fault: Fault) -> Refusal {
    let refusal = place.refusal(fault);
    let above = std::iter::successors(place.rel.parent(), |path| path.parent());
    let there = above.into_iter().find_map(|path| place.root.stat(&path, Follow::Within).ok());
    match there {
        Some(stat) => denied(refusal, &stat),
        None => refusal,
    }
}

/// What a SEND is about.
#[derive(Debug)]
pub(super) enum Found {
    /// A folder, and the one entry of it that is sent.
    Folder(Dir, Option<String>),
    /// No folder and no file.
    None(RootState),
}

/// Opens what is sent: the folder, or the one that a file lies in.
///
/// # Errors
/// `unsupported_entry` for a file that the policy gives by itself, and for a link to a file;
/// `path_outside_roots`, `forbidden`.
pub(super) fn source(place: &Place<'_>, only: Option<&str>) -> Result<Found, Refusal> {
    let failed = |fault| place.refusal(fault);
    let Some((stat, link)) = find(place)? else { return Ok(Found::None(RootState::Missing)) };
    let leads_to = match link {
        Some(_) => place.root.stat(place.rel, Follow::Within).map_err(failed)?,
        None => stat,
    };
    match (leads_to.kind, link, only) {
        (Kind::Dir, _, only) => {
            let dir = place.root.dir(place.rel, Follow::Within).map_err(failed)?;
            Ok(Found::Folder(dir, only.map(str::to_owned)))
        }
        (Kind::File, None, None) => {
            let (above, name) = place.parent().map_err(|refusal| {
                refusal.hint("Read it by itself, or ask an administrator to give the folder that it lies in.")
            })?;
            Ok(Found::Folder(above, Some(name.to_owned())))
        }
        (Kind::File, link, _) => Err(no_folder(place, &stat, link)),
        (Kind::Link | Kind::Other, ..) => Ok(Found::None(RootState::OtherKind)),
    }
}

/// What an entry is, and its text when it is a link.
type Entry = (Stat, Option<Vec<u8>>);

/// What is there, itself, with the text of a link; `None` when nothing is.
fn find(place: &Place<'_>) -> Result<Option<Entry>, Refusal> {
    match place.root.stat_entry(place.rel) {
        Ok(found) => Ok(Some(found)),
        Err(fault) if fault.is_absent() => Ok(None),
        Err(fault) => Err(place.refusal(fault)),
    }
}

fn no_folder(place: &Place<'_>, stat: &Stat, link: Option<Vec<u8>>) -> Refusal {
    let path = printable(place.path.as_str(), 300);
    let refusal = match stat.kind {
        // As it is said of what is written to, but it is a folder that is needed.
        Kind::Dir | Kind::File => Fault::Sys(nix::errno::Errno::ENOTDIR).refusal(place.path.as_str()),
        kind @ (Kind::Link | Kind::Other) => unfit(place.path.as_str(), kind),
    };
    let refusal = refusal.detail("path", path);
    let Some(target) = link else { return refusal.hint("Name a folder, or one that is not there yet.") };
    let target = printable(&String::from_utf8_lossy(&target), 200);
    refusal.hint(format!("It leads to `{target}`; name that path.")).detail("target", target)
}

/// What of the folder a scan looks at.
///
/// # Errors
/// `invalid_argument` for a pattern that is none.
pub(in crate::files) fn spec(filters: &Filters, full: bool, only: Option<&str>) -> Result<ScanSpec, Refusal> {
    let spec = ScanSpec {
        excludes: filters.exclude.clone(),
        ignore_files: filters.ignore_files,
        vcs: filters.vcs,
        links: if filters.links_outside { Links::Keep } else { Links::Refuse },
        full,
        only: only.map(|only| only.as_bytes().into()),
    };
    spec.check()?;
    Ok(spec)
}
