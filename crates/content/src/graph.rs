//! A tree that comes from a peer, object by object: whether it is what it says, and no more than it may
//! be, before the next object is asked for (ABUSE 54).
//!
//! Each row tells what lies below it, so the topmost object alone shows entries, bytes and depth of all;
//! each further object is held against the row that named it. A tree of which the same directory is in
//! many places is checked once per directory, and counted once per place: thirty objects that name each
//! other twice are a thousand million entries, and refused as that.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use cortex_core::files::content::{ContentId, TreeId};
use cortex_core::limits::{TREE_CHECK_OBJECTS_MAX, TREE_CHECK_WAITING_MAX, TREE_OBJECT_ROWS_MAX};
use cortex_core::{Code, Refusal};

use super::object::{DirPart, MapPart, Node, Object, Sum, Totals, read_object};
use super::{malformed, too_large};

/// What a tree may have; the bounds of the format hold beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeQuota {
    /// Files, links and directories.
    pub entries: u32,
    /// Bytes of all files.
    pub bytes: u64,
    /// Directories below one another.
    pub depth: u16,
}

/// What an object is asked for as.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Role {
    Root,
    /// All of a directory.
    Dir(Totals),
    /// A part of one.
    DirPart {
        level: u8,
        totals: Totals,
        /// The name in front of it, none at the beginning.
        after: Option<Box<[u8]>>,
        /// Its last name.
        last: Box<[u8]>,
        /// Whether nothing of its directory follows.
        tail: bool,
    },
    /// All of a map.
    Map(u64),
    /// A part of one.
    MapPart {
        level: u8,
        len: u64,
        tail: bool,
    },
}

impl Role {
    /// Rows of the object that may be asked for in turn, at most.
    fn growth(&self) -> usize {
        let rows = match self {
            Self::Dir(totals) | Self::DirPart { totals, .. } => totals.entries as usize,
            Self::MapPart { level: 0, .. } => 0,
            Self::Root | Self::Map(_) | Self::MapPart { .. } => TREE_OBJECT_ROWS_MAX,
        };
        rows.min(TREE_OBJECT_ROWS_MAX)
    }
}

/// The check of one tree. Its memory is bounded by [`TREE_CHECK_OBJECTS_MAX`] and
/// [`TREE_CHECK_WAITING_MAX`], whatever comes.
///
/// Ask for [`wanted`](Self::wanted) objects, [`feed`](Self::feed) each as it comes, until
/// [`is_whole`](Self::is_whole).
pub struct GraphCheck {
    quota: TreeQuota,
    totals: Option<Totals>,
    /// What is to be asked for, last first: a tree is walked down before it is walked on.
    waiting: Vec<(ContentId, Role)>,
    /// What was asked for.
    asked: BTreeMap<ContentId, Vec<Role>>,
    /// What that may add to what waits, at most.
    growth: usize,
    /// What was asked for or waits, so that it is not asked for again. Without parts of directories:
    /// one that is in two places is rare, and its names would cost more than to look twice.
    seen: HashSet<(ContentId, Role)>,
    /// Whether maps of files are part of what is checked.
    maps: bool,
    failed: Option<Refusal>,
}

impl GraphCheck {
    /// The check of this tree.
    pub fn new(root: TreeId, quota: TreeQuota) -> Self {
        Self {
            quota,
            totals: None,
            waiting: vec![(root.into(), Role::Root)],
            asked: BTreeMap::new(),
            growth: 0,
            seen: HashSet::new(),
            maps: true,
            failed: None,
        }
    }

    /// The check of this tree without the maps of its files: for whoever compares its entries and needs
    /// none of its content.
    pub fn of_entries(root: TreeId, quota: TreeQuota) -> Self {
        Self { maps: false, ..Self::new(root, quota) }
    }

    /// Up to `max` objects that are to be fetched next; fewer when what they name could be more than may
    /// wait. None may also mean that the rest was asked for already.
    pub fn wanted(&mut self, max: usize) -> Vec<ContentId> {
        let mut ids = Vec::new();
        while ids.len() < max && self.failed.is_none() {
            let Some((_, role)) = self.waiting.last() else { break };
            let more = self.waiting.len() + self.asked.len() + self.growth + role.growth();
            if !self.asked.is_empty() && more > TREE_CHECK_WAITING_MAX / 2 {
                break;
            }
            let Some((id, role)) = self.waiting.pop() else { break };
            self.growth += role.growth();
            let roles = self.asked.entry(id).or_default();
            roles.push(role);
            if roles.len() == 1 {
                ids.push(id);
            }
        }
        ids
    }

    /// Takes an object that was asked for, and tells what it is.
    ///
    /// # Errors
    /// `invalid_argument` for one that was not asked for, is not what its id names, or not what the row
    /// says that named it; `quota` for a tree above its quota, `too_large` above the bounds of the format.
    /// The same again from there on.
    pub fn feed(&mut self, id: ContentId, bytes: &Bytes) -> Result<Object, Refusal> {
        self.take(id, bytes, true)
    }

    /// The same for one below which all is there and was checked before: nothing below it is asked for.
    ///
    /// # Errors
    /// Those of [`feed`](Self::feed).
    pub fn feed_known(&mut self, id: ContentId, bytes: &Bytes) -> Result<Object, Refusal> {
        self.take(id, bytes, false)
    }

    /// Whether all objects came and were right.
    pub fn is_whole(&self) -> bool {
        self.failed.is_none() && self.waiting.is_empty() && self.asked.is_empty()
    }

    /// What the tree has, as its topmost object says; `None` before that came.
    pub const fn totals(&self) -> Option<Totals> {
        self.totals
    }

    fn take(&mut self, id: ContentId, bytes: &Bytes, below: bool) -> Result<Object, Refusal> {
        if let Some(refusal) = &self.failed {
            return Err(refusal.clone());
        }
        let taken = self.judge(id, bytes, below);
        if let Err(refusal) = &taken {
            self.failed = Some(refusal.clone());
            self.waiting = Vec::new();
            self.asked.clear();
            self.growth = 0;
            self.seen = HashSet::new();
        }
        taken
    }

    fn judge(&mut self, id: ContentId, bytes: &Bytes, below: bool) -> Result<Object, Refusal> {
        let roles = self.asked.remove(&id);
        let roles = roles.ok_or_else(|| malformed(format!("The object {id} was not asked for.")))?;
        if ContentId::of(bytes) != id {
            return Err(malformed(format!("An object came as {id} and is not that.")));
        }
        let object = read_object(bytes)?;
        let sum = object.sum()?;
        self.growth -= roles.iter().map(Role::growth).sum::<usize>();
        for role in roles {
            self.hold(&object, &sum, &role).map_err(|refusal| refusal.detail("object", id.to_string()))?;
            if below {
                self.want_below(&object, &role)?;
            }
        }
        Ok(object)
    }

    /// Holds an object against what it was asked for as.
    fn hold(&mut self, object: &Object, sum: &Sum, role: &Role) -> Result<(), Refusal> {
        let fits = match (role, sum) {
            (Role::Root, Sum::Dir(totals)) => {
                self.totals = Some(*totals);
                within(totals, &self.quota)?;
                is_whole(object)
            }
            (Role::Dir(told), Sum::Dir(totals)) => told == totals && is_whole(object),
            (Role::DirPart { level, totals: told, after, last, tail }, Sum::Dir(totals)) => {
                let (first, its_last) = names(object);
                let behind = after.as_deref().is_none_or(|after| first.is_some_and(|first| first > after));
                let placed = *level == object.level() && behind && its_last == Some(&**last);
                told == totals && placed && (*tail || object.closed())
            }
            (Role::Map(told), Sum::Map(len)) => told == len && is_whole(object),
            (Role::MapPart { level, len: told, tail }, Sum::Map(len)) => {
                told == len && *level == object.level() && (*tail || object.closed())
            }
            (Role::Root | Role::Dir(_) | Role::DirPart { .. }, Sum::Map(_))
            | (Role::Map(_) | Role::MapPart { .. }, Sum::Dir(_)) => false,
        };
        if fits {
            Ok(())
        } else {
            Err(malformed("An object of a tree is not what the row says that names it."))
        }
    }

    fn want_below(&mut self, object: &Object, role: &Role) -> Result<(), Refusal> {
        let (start, tail) = match role {
            Role::DirPart { after, tail, .. } => (after.clone(), *tail),
            Role::MapPart { tail, .. } => (None, *tail),
            Role::Root | Role::Dir(_) | Role::Map(_) => (None, true),
        };
        match object {
            Object::Dir(entries) => entries.iter().try_for_each(|entry| match &entry.node {
                Node::File(file) => match file.map {
                    Some(map) if self.maps => self.want(map, Role::Map(file.size)),
                    Some(_) | None => Ok(()),
                },
                Node::Dir { id, totals } => self.want((*id).into(), Role::Dir(*totals)),
                Node::Link { .. } => Ok(()),
            }),
            Object::DirIndex { level, parts } => {
                let mut after = start;
                for (number, DirPart { last, totals, id }) in parts.iter().enumerate() {
                    let (totals, last): (_, Box<[u8]>) = (*totals, last[..].into());
                    let tail = tail && number + 1 == parts.len();
                    let role = Role::DirPart { level: level - 1, totals, after, last: last.clone(), tail };
                    after = Some(last);
                    self.want(*id, role)?;
                }
                Ok(())
            }
            Object::Map(_) => Ok(()),
            Object::MapIndex { level, parts } => {
                parts.iter().enumerate().try_for_each(|(number, MapPart { len, id })| {
                    let tail = tail && number + 1 == parts.len();
                    self.want(*id, Role::MapPart { level: level - 1, len: *len, tail })
                })
            }
        }
    }

    fn want(&mut self, id: ContentId, role: Role) -> Result<(), Refusal> {
        let once = !matches!(role, Role::DirPart { .. });
        if once && !self.seen.insert((id, role.clone())) {
            return Ok(());
        }
        self.waiting.push((id, role));
        if self.seen.len() > TREE_CHECK_OBJECTS_MAX || self.waiting.len() > TREE_CHECK_WAITING_MAX {
            return Err(too_large(format!(
                "A tree has more than {TREE_CHECK_OBJECTS_MAX} different directories, or is too deep and too wide."
            )));
        }
        Ok(())
    }
}

fn within(totals: &Totals, quota: &TreeQuota) -> Result<(), Refusal> {
    let asked = [u64::from(totals.entries), totals.bytes, u64::from(totals.depth)];
    let given = [u64::from(quota.entries), quota.bytes, u64::from(quota.depth)];
    let names = ["entries", "bytes", "directories below one another"];
    let above = names.iter().zip(asked.iter().zip(given)).find(|(_, (asked, given))| *asked > given);
    above.map_or(Ok(()), |(name, (asked, given))| {
        Err(Refusal::new(Code::Quota, format!("A tree has {asked} {name}; at most {given} are free."))
            .hint("Send less, or raise the quota, then try again."))
    })
}

/// Whether an object may be the topmost one: an index that names one object would be a second form of
/// that object.
fn is_whole(object: &Object) -> bool {
    match object {
        Object::Dir(_) | Object::Map(_) => true,
        Object::DirIndex { parts, .. } => parts.len() > 1,
        Object::MapIndex { parts, .. } => parts.len() > 1,
    }
}

/// The first and the last name of a part. Of an index the first is the last one of its first part, which
/// is held against what is in front of it in turn.
fn names(object: &Object) -> (Option<&[u8]>, Option<&[u8]>) {
    match object {
        Object::Dir(entries) => {
            (entries.first().map(|entry| &entry.name[..]), entries.last().map(|entry| &entry.name[..]))
        }
        Object::DirIndex { parts, .. } => {
            (parts.first().map(|part| &part.last[..]), parts.last().map(|part| &part.last[..]))
        }
        Object::Map(_) | Object::MapIndex { .. } => (None, None),
    }
}

#[cfg(test)]
mod tests;
