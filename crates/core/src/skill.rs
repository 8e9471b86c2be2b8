//! The library of skills: named trees with a `SKILL.md`, each a list of revisions that never change. Of
//! several who promote at once the one whose expectation still holds wins, and the others are told by
//! whom; no folder of the library can be half written, because it has none: a revision is one row.

use std::collections::BTreeMap;

use crate::error::{Code, Refusal};
use crate::event::{Event, EventKind};
use crate::files::content::{ContentId, TreeId};
use crate::files::path::{FilePath, RelPath};
use crate::id::{NodeId, Revision, WorkspaceId};
use crate::limits::{SKILL_BYTES_MAX, SKILL_FILES_MAX, SKILL_MOUNTS_MAX, SKILL_TEXT_BYTES_MAX, SKILLS_MAX};
use crate::name::{Name, printable};
use crate::sync::Entry;
use crate::time::WallTime;
use crate::workspace::{Complete, Member};

/// The file that makes a folder a skill.
pub const SKILL_FILE: &str = "SKILL.md";

/// One revision of a skill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkillRow {
    /// The skill.
    pub name: Name,
    /// Its number.
    pub n: Revision,
    /// Its tree.
    pub tree: TreeId,
    /// What is in it, whenever it was written, see [`Package`].
    pub content: ContentId,
    /// Who promoted it.
    pub by: String,
    /// Out of which workspace, if out of one.
    pub from: Option<WorkspaceId>,
    /// When, on the hub's wall clock.
    pub at: WallTime,
    /// When the skill was removed, with this as its newest revision.
    pub removed_at: Option<WallTime>,
}

/// A tree that is a skill, and is whole in the chunk store.
#[derive(Debug, PartialEq, Eq)]
pub struct Package {
    complete: Complete,
    content: ContentId,
}

impl Package {
    /// Checks a tree. `entries` are all of it, the root aside, and `text` is what its `SKILL.md` holds.
    ///
    /// # Errors
    /// `too_large` beyond [`SKILL_FILES_MAX`], [`SKILL_BYTES_MAX`] or [`SKILL_TEXT_BYTES_MAX`];
    /// `invalid_argument` without a `SKILL.md`, or with one that is no text; `unsupported_entry` for a link
    /// that leads out of it.
    pub fn check(
        complete: Complete,
        entries: &BTreeMap<RelPath, Entry>,
        text: &[u8],
    ) -> Result<Self, Refusal> {
        if complete.files() > SKILL_FILES_MAX || complete.bytes() > SKILL_BYTES_MAX {
            return Err(too_large());
        }
        if text.len() > SKILL_TEXT_BYTES_MAX {
            let message = format!("`{SKILL_FILE}` has at most {SKILL_TEXT_BYTES_MAX} bytes.");
            return Err(Refusal::new(Code::TooLarge, message).hint("Move parts of it into files beside it."));
        }
        let own = entries.iter().find(|(path, _)| path.as_str() == SKILL_FILE).map(|(_, entry)| entry);
        let is_text = std::str::from_utf8(text).is_ok();
        if !is_text || !matches!(own, Some(Entry::File { id, .. }) if *id == ContentId::of(text)) {
            let message = format!("A skill is a folder with a file `{SKILL_FILE}` of UTF-8 text in it.");
            return Err(Refusal::new(Code::InvalidArgument, message)
                .hint("Name the folder that has the file, or write one."));
        }
        if let Some((path, _)) = entries.iter().find(|(path, entry)| leads_out(path, entry)) {
            let message = format!("The link `{}` leads out of the skill.", printable(path.as_str(), 200));
            return Err(Refusal::new(Code::UnsupportedEntry, message)
                .hint("Use a file in its place, or a relative link to one in the folder."));
        }
        let content = content(entries);
        Ok(Self { complete, content })
    }

    /// The hash of paths, kinds, exec bits and contents, and of nothing else: no times.
    pub const fn content(&self) -> ContentId {
        self.content
    }
}

/// What a tree beyond [`SKILL_FILES_MAX`] or [`SKILL_BYTES_MAX`] is refused with.
pub fn too_large() -> Refusal {
    let message = format!("A skill has at most {SKILL_FILES_MAX} files and {SKILL_BYTES_MAX} bytes.");
    Refusal::new(Code::TooLarge, message)
        .hint("Leave out what is not needed, and fetch large files when the skill is used.")
}

/// Whether it is a link whose text, followed from where it lies, is above the root at any point.
fn leads_out(path: &RelPath, entry: &Entry) -> bool {
    let Entry::Link { target } = entry else { return false };
    let mut depth = path.parts().count() - 1;
    target.first() == Some(&b'/')
        || target.split(|byte| *byte == b'/').any(|part| match part {
            b"" | b"." => false,
            b".." => depth.checked_sub(1).map(|above| depth = above).is_none(),
            _ => {
                depth += 1;
                false
            }
        })
}

fn content(entries: &BTreeMap<RelPath, Entry>) -> ContentId {
    let mut hash = blake3::Hasher::new_derive_key("cortex 2026 content of a skill");
    for (path, entry) in entries {
        hash.update(&(path.as_str().len() as u64).to_le_bytes()).update(path.as_str().as_bytes());
        match entry {
            Entry::File { id, exec, .. } => hash.update(&[b'f', u8::from(*exec)]).update(id.as_bytes()),
            Entry::Dir => hash.update(b"d"),
            Entry::Link { target } => hash.update(b"l").update(ContentId::of(target).as_bytes()),
        };
    }
    ContentId::new(hash.finalize().into())
}

/// What came of a promotion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promoted {
    /// A new revision, and what is told of it.
    New(Box<SkillRow>, Event),
    /// The newest revision has this content already.
    Already(Revision),
}

/// Promotes `package` to the library. `head` is the newest revision of the skill that ever was, `expect`
/// the one that the promoter saw: 0 when he saw none.
///
/// # Errors
/// `conflict` when there is another newest revision than he saw.
pub fn promote(
    head: Option<&SkillRow>,
    name: &Name,
    expect: Revision,
    package: &Package,
    by: &str,
    from: Option<WorkspaceId>,
    now: WallTime,
) -> Result<Promoted, Refusal> {
    let live = head.filter(|row| row.removed_at.is_none());
    if let Some(row) = live.filter(|row| row.content == package.content) {
        return Ok(Promoted::Already(row.n));
    }
    let seen = live.map(|row| row.n).unwrap_or_default();
    if seen != expect {
        let winner = live.map(|row| format!(", promoted by {}", printable(&row.by, 120)));
        let message = match winner {
            Some(winner) => format!("Skill {name} is at revision {seen}{winner}; not at {expect}."),
            None => format!("There is no skill {name}; not at revision {expect}."),
        };
        return Err(Refusal::new(Code::Conflict, message)
            .hint("Read the newest revision with `cortex skill show NAME`, and promote on top of it.")
            .detail("head", seen.to_string()));
    }
    let row = SkillRow {
        name: name.clone(),
        n: head.map(|row| row.n).unwrap_or_default().next(),
        tree: package.complete.tree(),
        content: package.content,
        by: by.to_owned(),
        from,
        at: now,
        removed_at: None,
    };
    let event = Event::new(EventKind::SkillPromoted, now).actor(by).subject(name.as_str());
    let event = event.detail(row.n.to_string());
    Ok(Promoted::New(Box::new(row), event))
}

/// Where the library is kept, within one transaction.
pub trait Library {
    /// Why it could not do its work.
    type Error: From<Refusal>;

    /// The newest revision of a skill, a removed one too.
    ///
    /// # Errors
    /// Those of the library.
    fn newest(&self, name: &Name) -> Result<Option<SkillRow>, Self::Error>;
    /// How many skills there are that were not removed.
    ///
    /// # Errors
    /// Those of the library.
    fn count(&self) -> Result<usize, Self::Error>;
    /// Keeps a revision, and what is told of it.
    ///
    /// # Errors
    /// Those of the library.
    fn put(&mut self, row: &SkillRow, event: &Event) -> Result<(), Self::Error>;
}

/// Who promotes what.
#[derive(Debug)]
pub struct Promotion<'p> {
    /// The skill.
    pub name: &'p Name,
    /// The revision that the promoter saw: 0 when he saw none.
    pub expect: Revision,
    /// What becomes its newest revision.
    pub package: &'p Package,
    /// Who.
    pub by: &'p str,
    /// Out of which workspace, if out of one.
    pub from: Option<WorkspaceId>,
}

/// Promotes to a library, and keeps what was decided.
///
/// # Errors
/// Those of [`promote`]; `quota` beyond [`SKILLS_MAX`] skills.
pub fn promote_to<L: Library + ?Sized>(
    library: &mut L,
    promotion: &Promotion<'_>,
    now: WallTime,
) -> Result<Promoted, L::Error> {
    let Promotion { name, expect, package, by, from } = promotion;
    let head = library.newest(name)?;
    let promoted = promote(head.as_ref(), name, *expect, package, by, *from, now)?;
    if let Promoted::New(row, event) = &promoted {
        let is_new = head.is_none_or(|head| head.removed_at.is_some());
        if is_new && library.count()? >= SKILLS_MAX {
            return Err(Refusal::new(Code::Quota, format!("The library has {SKILLS_MAX} skills."))
                .hint("Remove skills that are not needed with `cortex skill rm NAME`.")
                .into());
        }
        library.put(row, event)?;
    }
    Ok(promoted)
}

/// Removes a skill. Its revisions stay, and their numbers are not given again.
///
/// # Errors
/// `not_found` when it was removed.
pub fn remove(head: &SkillRow, by: &str, now: WallTime) -> Result<(SkillRow, Event), Refusal> {
    if head.removed_at.is_some() {
        return Err(Refusal::new(Code::NotFound, format!("There is no skill {}.", head.name))
            .hint("List the skills with `cortex skill ls` and use one of those names."));
    }
    let event = Event::new(EventKind::SkillRemoved, now).actor(by).subject(head.name.as_str());
    Ok((SkillRow { removed_at: Some(now), ..head.clone() }, event.detail(head.n.to_string())))
}

/// A folder of a node that is what a skill is. It is written by the hub alone, and nothing of it is ever read
/// back: there is no step from a mount to the library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The skill.
    pub skill: Name,
    /// On which node.
    pub node: NodeId,
    /// The folder.
    pub path: FilePath,
    /// The revision that it stays at; else it follows the newest one.
    pub pin: Option<Revision>,
    /// The revision that it was last brought to, with its tree.
    pub reached: Option<(Revision, TreeId)>,
    /// Who mounted it.
    pub by: String,
    /// When, on the hub's wall clock.
    pub at: WallTime,
}

/// Checks that a folder can be made a mount. `mounts` are all there are, `members` those of workspaces on its
/// node.
///
/// # Errors
/// `quota` beyond [`SKILL_MOUNTS_MAX`]; `conflict` when a mount or a member of a workspace has the folder, one
/// above or one in it: two would write it, and what a workspace takes from its members is not the library's.
pub fn mount(new: &Mount, mounts: &[Mount], members: &[Member]) -> Result<(), Refusal> {
    if mounts.len() >= SKILL_MOUNTS_MAX {
        return Err(Refusal::new(Code::Quota, format!("{SKILL_MOUNTS_MAX} folders follow skills."))
            .hint("Unmount those that are not needed: `cortex skill unmount NODE:PATH`."));
    }
    refuse_mounted(new.node, &new.path, mounts)?;
    match members.iter().find(|member| member.node == new.node && meet(&member.path, &new.path)) {
        Some(member) => Err(taken(&member.path, "a member of a workspace")),
        None => Ok(()),
    }
}

/// Checks that no mount has a folder that a workspace is to have.
///
/// # Errors
/// `conflict`.
pub fn refuse_mounted(node: NodeId, path: &FilePath, mounts: &[Mount]) -> Result<(), Refusal> {
    match mounts.iter().find(|other| other.node == node && meet(&other.path, path)) {
        Some(other) => Err(taken(&other.path, &format!("a mount of the skill {}", other.skill))),
        None => Ok(()),
    }
}

/// Whether one lies in the other, or is it.
fn meet(one: &FilePath, other: &FilePath) -> bool {
    one.below(other.as_str()).is_some() || other.below(one.as_str()).is_some()
}

fn taken(path: &FilePath, by: &str) -> Refusal {
    let message = format!("`{}` on this node is {by}.", printable(path.as_str(), 200));
    Refusal::new(Code::Conflict, message).hint("Choose a folder beside it, or give that one up first.")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const NOW: WallTime = WallTime(1_800_000_000_000);
    const TEXT: &str = "# يبني المشروع";

    fn name() -> Name {
        Name::parse("build").expect("a name")
    }

    fn at(node: u8, path: &str) -> Mount {
        Mount {
            skill: name(),
            node: NodeId::mint(1, &[node; 10]),
            path: FilePath::parse(path).expect("a path"),
            pin: None,
            reached: None,
            by: "token:ada".to_owned(),
            at: NOW,
        }
    }

    #[test]
    fn no_two_write_one_folder() {
        let there = [at(1, "/srv/مهارات/build"), at(1, "/a")];
        for (node, path, is_free) in [
            (1, "/srv/مهارات/build", false),
            (1, "/srv/مهارات/build/bin", false),
            (1, "/srv", false),
            (1, "/srv/مهارات/build2", true),
            (1, "/ab", true),
            (2, "/srv/مهارات/build", true),
        ] {
            let new = at(node, path);
            assert_eq!(mount(&new, &there, &[]).is_ok(), is_free, "{path}");
            assert_eq!(refuse_mounted(new.node, &new.path, &there).is_ok(), is_free, "{path}");
        }
        let many = vec![at(3, "/x"); SKILL_MOUNTS_MAX];
        assert_eq!(mount(&at(1, "/y"), &many, &[]).expect_err("full").code, Code::Quota);
    }

    fn file(text: &str) -> Entry {
        Entry::File { id: ContentId::of(text.as_bytes()), map: None, size: text.len() as u64, exec: false }
    }

    fn link(target: &'static str) -> Entry {
        Entry::Link { target: Bytes::from_static(target.as_bytes()) }
    }

    fn tree(more: &[(&str, Entry)]) -> BTreeMap<RelPath, Entry> {
        let own = (SKILL_FILE, file(TEXT));
        let all = more.iter().cloned().chain([own]);
        all.map(|(path, entry)| (RelPath::parse(path).expect("a path"), entry)).collect()
    }

    fn whole(number: u8) -> Complete {
        Complete::walked_in_the_chunk_store(TreeId::of(&[number]), 2, 20)
    }

    fn package(number: u8) -> Package {
        let entries = tree(&[("سكربت.sh", file(&number.to_string()))]);
        Package::check(whole(number), &entries, TEXT.as_bytes()).expect("a skill")
    }

    fn try_to(head: Option<&SkillRow>, expect: u64, number: u8, by: &str) -> Result<Promoted, Refusal> {
        promote(head, &name(), Revision(expect), &package(number), by, None, NOW)
    }

    fn promoted(head: Option<&SkillRow>, expect: u64, number: u8) -> SkillRow {
        match try_to(head, expect, number, "token:ada").expect("promoted") {
            Promoted::New(row, event) => {
                assert_eq!(event.detail, Some(row.n.to_string()));
                *row
            }
            Promoted::Already(n) => panic!("already at {n}"),
        }
    }

    #[test]
    fn r16_6_of_32_promoters_one_wins_and_31_are_told_by_whom() {
        let mut head: Option<SkillRow> = None;
        for round in 0..4_u64 {
            let (mut won, mut told) = (0, 0);
            for who in 0..32_u8 {
                let number = u8::try_from(round).expect("small") * 32 + who;
                match try_to(head.as_ref(), round, number, &format!("node:{who}")) {
                    Ok(Promoted::New(row, _)) => {
                        won += 1;
                        head = Some(*row);
                    }
                    Ok(Promoted::Already(n)) => panic!("all are different, {n}"),
                    Err(refusal) => {
                        assert_eq!(refusal.code, Code::Conflict);
                        assert!(refusal.message.contains("node:0"), "{}", refusal.message);
                        told += 1;
                    }
                }
            }
            assert_eq!((won, told), (1, 31));
            assert_eq!(head.as_ref().map(|row| row.n), Some(Revision(round + 1)));
        }
    }

    #[test]
    fn the_same_content_again_is_no_revision_whenever_it_was_written_and_whatever_was_seen() {
        let head = promoted(None, 0, 1);
        for expect in [0, 1, 9] {
            assert_eq!(try_to(Some(&head), expect, 1, "token:bob"), Ok(Promoted::Already(Revision(1))));
        }
        let touched = Package::check(whole(9), &tree(&[("سكربت.sh", file("1"))]), TEXT.as_bytes());
        assert_eq!(touched.expect("a skill").content(), package(1).content(), "another tree, for its times");
    }

    #[test]
    fn earlier_content_can_be_promoted_again() {
        let first = promoted(None, 0, 1);
        let second = promoted(Some(&first), 1, 2);
        let third = promoted(Some(&second), 2, 1);
        assert_eq!((third.n, third.content), (Revision(3), first.content));
    }

    #[test]
    fn a_removed_skill_begins_anew_with_the_next_number() {
        let head = promoted(None, 0, 1);
        let (gone, event) = remove(&head, "token:ada", NOW).expect("removed");
        assert_eq!(event.kind, EventKind::SkillRemoved);
        assert_eq!(remove(&gone, "token:ada", NOW).expect_err("twice").code, Code::NotFound);
        assert_eq!(try_to(Some(&gone), 1, 1, "token:bob").expect_err("it is gone").code, Code::Conflict);
        assert_eq!(promoted(Some(&gone), 0, 1).n, Revision(2));
    }

    #[test]
    fn every_difference_but_time_is_one_of_content() {
        let of = |entries: &[(&str, Entry)]| content(&tree(entries));
        let plain = of(&[("a", file("x"))]);
        let exec = Entry::File { id: ContentId::of(b"x"), map: None, size: 1, exec: true };
        for (what, other) in [
            ("a path", of(&[("b", file("x"))])),
            ("a text", of(&[("a", file("y"))])),
            ("an exec bit", of(&[("a", exec)])),
            ("a link", of(&[("a", link("x"))])),
            ("a folder", of(&[("a", Entry::Dir)])),
            ("one more", of(&[("a", file("x")), ("c", file(""))])),
        ] {
            assert_ne!(plain, other, "{what}");
        }
    }

    #[test]
    fn what_is_no_skill_is_refused_with_a_reason() {
        let check = |entries: &BTreeMap<RelPath, Entry>, text: &[u8]| {
            Package::check(whole(1), entries, text).err().map(|refusal| refusal.code)
        };
        assert_eq!(check(&tree(&[]), TEXT.as_bytes()), None);
        assert_eq!(check(&tree(&[]), b"another text"), Some(Code::InvalidArgument));
        assert_eq!(check(&BTreeMap::new(), b""), Some(Code::InvalidArgument));
        let latin = b"caf\xe9";
        let id = ContentId::of(latin);
        let path = RelPath::parse(SKILL_FILE).expect("a path");
        let bad = BTreeMap::from([(path, Entry::File { id, map: None, size: 4, exec: false })]);
        assert_eq!(check(&bad, latin), Some(Code::InvalidArgument));
        let long = "a".repeat(SKILL_TEXT_BYTES_MAX + 1);
        assert_eq!(check(&tree(&[]), long.as_bytes()), Some(Code::TooLarge));
        for (files, bytes) in [(SKILL_FILES_MAX + 1, 1), (1, SKILL_BYTES_MAX + 1)] {
            let complete = Complete::walked_in_the_chunk_store(TreeId::of(b"t"), files, bytes);
            let refusal = Package::check(complete, &tree(&[]), TEXT.as_bytes()).expect_err("too large");
            assert_eq!(refusal.code, Code::TooLarge);
        }
    }

    #[test]
    fn a_link_out_of_a_skill_is_refused_and_one_within_it_is_not() {
        for (path, target, leads_out) in [
            ("l", "SKILL.md", false),
            ("d/l", "../SKILL.md", false),
            ("d/l", "./e/../../SKILL.md", false),
            ("l", "/etc/passwd", true),
            ("l", "../x", true),
            ("d/l", "../../x", true),
            ("d/l", "../../build/SKILL.md", true),
            ("l", "a/../../x", true),
        ] {
            let entries = tree(&[("d", Entry::Dir), (path, link(target))]);
            let refused = Package::check(whole(1), &entries, TEXT.as_bytes()).err();
            let expected = leads_out.then_some(Code::UnsupportedEntry);
            assert_eq!(refused.map(|refusal| refusal.code), expected, "{path} -> {target}");
        }
    }
}
