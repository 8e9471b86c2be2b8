//! The walls of a policy on this machine: every path is looked up, what must never be granted is
//! refused or covered, and what is not there is told. Never here: mounting anything.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use cortex_core::name::printable;
use cortex_core::sandbox::{Access, Level, Place, Tree, Walls};
use cortex_core::{Code, Refusal};

use super::base;
use super::identity::RunUser;
use super::mounts;
use super::rules;
use super::scratch::give;
use super::walls::{Bound, FileId, Mask, Room};

/// Never granted, nor anything in them: the system's own view of itself.
const SYSTEM: &[&str] = &["/proc", "/sys", "/dev"];

/// What a node knows of its machine when it makes rooms.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    /// The level that was reached.
    pub(crate) level: Level,
    /// As whom runs execute, when not as the node's own user.
    pub(crate) user: Option<RunUser>,
    /// Home directory and folders for work.
    pub(crate) place: Place,
    /// Folders that no run may see, without symlinks: where keys and databases are.
    reserved: Vec<PathBuf>,
    /// Home directories of all users, without symlinks.
    homes: BTreeSet<PathBuf>,
    /// What lies in the base set and must not be seen.
    in_base: Vec<Mask>,
}

impl Host {
    /// Looks around. Reads files: for a blocking thread.
    pub(crate) fn new(level: Level, user: Option<RunUser>, place: Place, reserved: &[PathBuf]) -> Self {
        let etc = Path::new("/etc/cortex");
        let reserved = reserved.iter().map(PathBuf::as_path).chain([etc]);
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let homes = std::fs::read_to_string(base::PASSWD).unwrap_or_default();
        let homes = homes.lines().filter_map(|line| line.split(':').nth(5)).map(Path::new);
        let own_home = Path::new(&place.home);
        let homes = homes.chain([own_home]).filter(|home| home.is_absolute() && home.parent().is_some());
        let mut host = Self {
            level,
            user,
            reserved: reserved.map(real).collect(),
            homes: homes.map(real).collect(),
            in_base: Vec::new(),
            place,
        };
        host.in_base = host.hidden_in_base();
        host
    }

    fn hidden_in_base(&self) -> Vec<Mask> {
        let homes = self.homes.iter().flat_map(|home| base::SECRETS.iter().map(|name| home.join(name)));
        let hidden = self.reserved.iter().cloned().chain(homes).filter(|path| rules::is_base(path));
        hidden.filter_map(|path| Some(Mask { is_dir: path.metadata().ok()?.is_dir(), path })).collect()
    }

    /// The room of these walls. Refused `sandbox_unavailable` with the rule's name: a root that must
    /// not be granted, and one for writing that is not there.
    pub(crate) fn room(&self, walls: &Walls, host: &str) -> Result<Room, Refusal> {
        if self.level < walls.level || self.level == Level::None {
            return Err(unreached(walls.level, self.level));
        }
        let mut room = Room {
            level: self.level,
            trees: Vec::new(),
            masks: self.in_base.clone(),
            network: walls.network.clone(),
            user: self.user.clone(),
            host: host.to_owned(),
        };
        if let (Some(mask), false) = (self.in_base.first(), room.is_full()) {
            return Err(reserved(
                &mask.path,
                "is where every run may read, and only level full can cover it",
            ));
        }
        for tree in &walls.trees {
            self.add(&mut room, walls, tree)?;
        }
        room.trees.sort_by(|a, b| a.path.cmp(&b.path));
        room.trees.dedup_by(|later, first| later.path == first.path);
        if room.is_full() {
            keep_apart(&room.trees)?;
        }
        room.masks.sort_by(|a, b| a.path.cmp(&b.path));
        room.masks.dedup();
        Ok(room)
    }

    fn add(&self, room: &mut Room, walls: &Walls, tree: &Tree) -> Result<(), Refusal> {
        let path = Path::new(&tree.path);
        let Some(source) = self.look_up(tree)? else { return Ok(()) };
        self.refuse_reserved(path, &source)?;
        self.cover(room, walls, path, &source)?;
        let is_base = rules::is_base(&source);
        let (access, exec) = walls.allows(&tree.path).unwrap_or((tree.access, tree.exec));
        if is_base && access == Access::Read {
            return Ok(());
        }
        let data = source.metadata().map_err(|error| missing(path, &error))?;
        let bound = Bound {
            path: path.to_owned(),
            source,
            access,
            // The base set has to stay what it is.
            exec: exec || is_base,
            is_dir: data.is_dir(),
            file: FileId::of(&data),
        };
        put(room, walls, bound)
    }

    fn refuse_reserved(&self, path: &Path, source: &Path) -> Result<(), Refusal> {
        for one in [path, source] {
            let is_system = SYSTEM.iter().any(|folder| one.starts_with(folder));
            if is_system || one.parent().is_none() || mounts::led_to(one) == Path::new("/tmp") {
                return Err(reserved(path, "is the system's own; name what is needed of it"));
            }
        }
        if self.reserved.iter().any(|folder| source.starts_with(folder)) {
            return Err(reserved(path, "holds what the node itself lives by"));
        }
        Ok(())
    }

    /// The tree's real path; `None` for one that is only read and is not there.
    fn look_up(&self, tree: &Tree) -> Result<Option<PathBuf>, Refusal> {
        let path = Path::new(&tree.path);
        match path.canonicalize() {
            Ok(source) => Ok(Some(source)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if tree.access == Access::Read {
                    return Ok(None);
                }
                if !self.place.work.contains(&tree.path) {
                    return Err(missing(path, &error));
                }
                self.make_work(path).map_err(|error| missing(path, &error))?;
                path.canonicalize().map(Some).map_err(|error| missing(path, &error))
            }
            Err(error) => Err(missing(path, &error)),
        }
    }

    /// The owner's folder for work, for the run's user alone.
    fn make_work(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
        give(path, self.user.as_ref())
    }

    /// What lies in a tree and must not be seen. Landlock cannot take a part out of what it grants,
    /// so without a file system of its own such a tree is refused.
    fn cover(&self, room: &mut Room, walls: &Walls, path: &Path, source: &Path) -> Result<(), Refusal> {
        let inside = self.homes.iter().filter(|home| home.starts_with(source)).map(PathBuf::as_path);
        let places = inside.chain([source]);
        let secrets = places.flat_map(|place| base::SECRETS.iter().map(|name| place.join(name)));
        let own = self.reserved.iter().cloned();
        for hidden in own.chain(secrets) {
            // What a link leads to outside is not in the tree.
            let Ok(hidden) = hidden.canonicalize() else { continue };
            let Ok(rest) = hidden.strip_prefix(source) else { continue };
            let Ok(data) = hidden.metadata() else { continue };
            let shown = path.join(rest);
            let is_named = walls.trees.iter().any(|tree| {
                let named = Path::new(&tree.path);
                named == shown || named == hidden
            });
            if is_named {
                continue;
            }
            if !room.is_full() {
                let hidden = printable(&hidden.to_string_lossy(), 200);
                return Err(reserved(path, &format!("holds `{hidden}`, which only level full can cover")));
            }
            let is_dir = data.is_dir();
            if source != path {
                room.masks.push(Mask { path: hidden, is_dir });
            }
            room.masks.push(Mask { path: shown, is_dir });
        }
        Ok(())
    }
}

/// Adds a tree at its name, and at its real one: programs that ask for that must find it.
fn put(room: &mut Room, walls: &Walls, bound: Bound) -> Result<(), Refusal> {
    let outer = outer_of(walls, &bound.path);
    if let Some((Some((Access::Write, _)), seen)) = &outer
        && *seen != bound.source
    {
        // A run could have made it lead anywhere.
        return Err(reserved(&bound.path, "is behind a link in a root that runs write to"));
    }
    if bound.source != bound.path {
        room.trees.push(Bound { path: bound.source.clone(), ..bound.clone() });
    }
    if room.is_full() && mounts::led_to(&bound.path) == bound.source && bound.source != bound.path {
        // The link of this machine is the one of the room.
        return Ok(());
    }
    let is_there_already = outer.is_some_and(|(rights, seen)| {
        // A link inside of another root leads to the real name by itself.
        let has_same = bound.source == bound.path && rights == Some((bound.access, bound.exec));
        seen != bound.source || has_same
    });
    if !is_there_already {
        room.trees.push(bound);
    }
    Ok(())
}

/// Refuses roots below `/tmp` and `/var/tmp` that a run would find at the same place.
fn keep_apart(trees: &[Bound]) -> Result<(), Refusal> {
    let lasting = trees.iter().filter(|tree| mounts::led_to(&tree.path) != tree.path);
    for one in lasting {
        let place = mounts::led_to(&one.path);
        let meets = |other: &&Bound| {
            let is_apart = !other.path.starts_with(&place) && !place.starts_with(&other.path);
            mounts::led_to(&other.path) == other.path && !is_apart
        };
        if let Some(other) = trees.iter().find(meets) {
            let other = printable(&other.path.to_string_lossy(), 200);
            let why = format!("has the place of `{other}` in a run, whose /var/tmp is its /tmp");
            return Err(reserved(&one.path, &why));
        }
    }
    Ok(())
}

/// The innermost other root around a path: what may be done there, and which file the path would be
/// by that root alone.
fn outer_of(walls: &Walls, path: &Path) -> Option<(Option<(Access, bool)>, PathBuf)> {
    let around = walls.trees.iter().filter(|other| Path::new(&other.path) != path);
    let outer = around.filter(|other| path.starts_with(&other.path)).max_by_key(|other| other.path.len())?;
    let rest = path.strip_prefix(&outer.path).ok()?;
    let source = Path::new(&outer.path).canonicalize().ok()?;
    Some((walls.allows(&outer.path), source.join(rest)))
}

/// The level that is asked for was not reached.
pub(crate) fn unreached(needed: Level, reached: Level) -> Refusal {
    let (needed, reached) = (needed.as_str(), reached.as_str());
    Refusal::new(
        Code::SandboxUnavailable,
        format!("The policy needs the sandbox at level {needed}, and this node reaches {reached}."),
    )
}

fn reserved(path: &Path, why: &str) -> Refusal {
    let shown = printable(&path.to_string_lossy(), 200);
    Refusal::new(Code::SandboxUnavailable, format!("`{shown}` {why} (roots.reserved)."))
}

fn missing(path: &Path, error: &io::Error) -> Refusal {
    let shown = printable(&path.to_string_lossy(), 200);
    Refusal::new(
        Code::SandboxUnavailable,
        format!("The root `{shown}` of the policy cannot be used on this node: {error} (roots.missing)."),
    )
}
