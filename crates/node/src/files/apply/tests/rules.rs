//! The safety rules, one by one.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};

use cortex_content::graph::TreeQuota;
use cortex_core::error::Code;
use cortex_core::files::content::ContentId;
use cortex_core::sync::{DeleteLimits, Mode, RootState, Rule};
use nix::errno::Errno;

use super::super::*;
use super::support::{At, Folder, MIRROR, NEXT, PUSH, Shop, ask, cut_off, noise, push, run};
use crate::files::fault::Fault;
use crate::files::scan::{self, Base, Cache, ScanSpec};
use crate::files::seam::{Plain, Synced};
use crate::files::support::on_small_disk;

const MIB: usize = 1 << 20;

fn sample() -> Folder {
    let folder = Folder::with(&[
        ("a/one", b"1"),
        ("a/b/two", b"22"),
        ("empty", b""),
        ("مجلد/ملف.txt", "مرحبا".as_bytes()),
        ("a/same", b"1"),
    ]);
    folder.write("big", noise(1, 3 * MIB));
    folder.write(&"م".repeat(127), b"long name");
    folder.set_mode("a/one", 0o755);
    std::fs::create_dir_all(folder.at("hollow/inside")).expect("made");
    symlink("a/one", folder.at("link")).expect("linked");
    symlink("../../elsewhere", folder.at("a/out")).expect("linked");
    folder
}

#[test]
fn a_tree_comes_into_an_empty_folder_with_all_that_it_has() {
    let (from, to) = (sample(), Folder::new());
    let applied = push(&from, &to, PUSH, None);
    assert_eq!((applied.end, applied.troubles.count), (End::Done, 0));
    assert_eq!(to.tree().root(), from.tree().root(), "times, modes and links as well");
    assert_eq!((to.paths(), to.is_clean()), (from.paths(), true));
    assert_eq!(applied.files, 9, "links among them");
    assert_eq!(to.mode("a/b"), 0o755);
    let again = push(&from, &to, PUSH, None);
    assert_eq!((again.end, again.steps.count), (End::InSync, 0));
}

#[test]
fn an_empty_tree_changes_nothing_and_one_into_a_folder_with_others_leaves_those() {
    let (from, to) = (Folder::new(), Folder::with(&[("mine", b"x")]));
    let applied = push(&from, &to, PUSH, None);
    assert_eq!((applied.end, applied.counts.extra), (End::Done, 1));
    assert_eq!(to.paths(), ["mine"]);
    push(&sample(), &to, PUSH, None);
    assert_eq!((to.read("mine"), to.read("a/one")), (b"x".to_vec(), b"1".to_vec()));
}

#[test]
fn what_changed_is_replaced_and_what_went_is_removed() {
    let (from, to) = (sample(), Folder::new());
    push(&from, &to, PUSH, None);
    let base = to.tree();
    to.set_mode("a/b/two", 0o600);
    from.write("a/b/two", b"new");
    from.write("z/new", b"n");
    from.set_mode("a/one", 0o644);
    std::fs::remove_dir_all(from.at("hollow")).expect("removed");
    std::fs::remove_file(from.at("link")).expect("removed");
    symlink("a/b", from.at("link")).expect("linked");
    std::fs::remove_file(from.at("empty")).expect("removed");
    std::fs::create_dir(from.at("empty")).expect("made");
    from.write("empty/f", b"x");
    std::fs::remove_dir_all(from.at("مجلد")).expect("removed");
    from.write("مجلد", b"a file");
    let mut long = from.read("big");
    long.splice(MIB..MIB, noise(9, 1000));
    from.write("big", &long);
    let applied = push(&from, &to, NEXT, Some(&base));
    assert_eq!((&applied.end, applied.troubles.count), (&End::Done, 0), "{applied:?}");
    assert_eq!(to.tree().root(), from.tree().root());
    assert_eq!(to.mode("a/b/two"), 0o600, "what only its owner could read stays so");
    assert!(applied.fetched < MIB as u64 / 2 && applied.copied > 2 * MIB as u64, "{applied:?}");
    assert!(to.is_clean());
}

#[test]
fn a_file_that_moved_is_not_fetched_and_what_lies_there_is_verified() {
    let (from, to) = (Folder::new(), Folder::with(&[("old", &noise(1, 5000)), ("big", &noise(2, 2 * MIB))]));
    let base = to.tree();
    from.write("new/name", noise(1, 5000));
    from.write("large", noise(2, 2 * MIB));
    let applied = push(&from, &to, MIRROR, Some(&base));
    assert_eq!((applied.fetched, applied.copied), (0, 2 * MIB as u64 + 5000));
    assert_eq!(to.tree().root(), from.tree().root());
    // What the scan saw is not there any more: then it comes from the other end.
    let to = Folder::with(&[("old", &noise(1, 5000))]);
    let local = to.tree();
    to.write("old", noise(7, 5000));
    let target = from.tree();
    let mut shop = Shop::of(&[&target]);
    let applied = run(&to, &local, &ask(&target, PUSH), &mut shop, &Plain).expect("received");
    assert_eq!((applied.copied, to.read("new/name")), (0, noise(1, 5000)));
}

#[test]
fn a_dry_run_says_what_would_be_done_and_touches_nothing() {
    let (from, to) = (Folder::new(), Folder::with(&[("gone", b"x")]));
    (0..300).for_each(|number| from.write(&format!("f{number}"), b"x"));
    let (target, local) = (from.tree(), to.tree());
    let asked = Ask { dry_run: true, base: Some(local.root()), ..ask(&target, NEXT) };
    let mut shop = Shop::of(&[&target, &local]);
    let applied = run(&to, &local, &asked, &mut shop, &Plain).expect("planned");
    assert_eq!(
        (applied.end, applied.steps.count, applied.steps.first.len()),
        (End::Planned, 301, outcome::LISTED_MAX)
    );
    assert_eq!((to.paths(), to.at(".cortex").exists(), shop.gates), (vec!["gone".to_owned()], false, 0));
}

#[test]
fn a_halt_is_the_answer_and_only_its_acceptance_lets_it_pass() {
    let (from, to) = (Folder::new(), Folder::new());
    (0..30).for_each(|number| to.write(&format!("f{number}"), format!("{number}")));
    from.write("f1", b"1");
    let (target, local) = (from.tree(), to.tree());
    let asked = Ask { base: Some(local.root()), limits: DeleteLimits::default(), ..ask(&target, NEXT) };
    let applied = run(&to, &local, &asked, &mut Shop::of(&[&target, &local]), &Plain).expect("halted");
    let End::Halted(halt) = applied.end else { panic!("{applied:?}") };
    assert_eq!(halt.causes[0].rule, Rule::Deletes);
    assert_eq!((to.paths().len(), to.is_clean()), (30, true));
    let accepted = Ask { accepted: Some(halt.id), ..asked.clone() };
    let applied = run(&to, &local, &accepted, &mut Shop::of(&[&target, &local]), &Plain).expect("received");
    assert_eq!((applied.end, applied.removed, to.paths()), (End::Done, 29, vec!["f1".to_owned()]));
    let unavailable = Ask { state: RootState::Unavailable, accepted: Some(halt.id), ..asked };
    let to = Folder::with(&[("f", b"x")]);
    let applied =
        run(&to, &to.tree(), &unavailable, &mut Shop::of(&[&target, &local]), &Plain).expect("halted");
    assert!(matches!(applied.end, End::Halted(_)) && to.paths() == ["f"], "{applied:?}");
    assert!(!to.at(".cortex").exists());
}

#[test]
fn sync_04_a_name_appears_only_after_its_last_byte_was_verified() {
    let from = sample();
    let target = from.tree();
    let events = {
        let (to, mut shop) = (Folder::new(), Shop::of(&[&target]));
        run(&to, &to.tree(), &ask(&target, PUSH), &mut shop, &Plain).expect("received");
        shop.events
    };
    assert!(events > 40, "{events}");
    for after in 0..events {
        let to = Folder::with(&[("big", b"old")]);
        let mut shop = Shop::of(&[&target]);
        shop.breaks_after = Some(after);
        shop.before = Some(Box::new(|_| assert_eq!(to.paths(), ["big"], "nothing else has a name")));
        let refusal = run(&to, &to.tree(), &ask(&target, PUSH), &mut shop, &Plain).expect_err("cut off");
        assert_eq!(refusal, cut_off());
        assert_eq!((to.paths(), to.read("big")), (vec!["big".to_owned()], b"old".to_vec()));
        // And the next try brings it to its end.
        let mut shop = Shop::of(&[&target]);
        run(&to, &to.tree(), &ask(&target, PUSH), &mut shop, &Plain).expect("received");
        assert_eq!((to.tree().root(), to.is_clean()), (target.root(), true), "{after}");
    }
}

#[test]
fn what_was_staged_is_not_fetched_again() {
    let from = Folder::new();
    from.write("a/big", noise(1, 20 * MIB));
    (0..400).for_each(|number| from.write(&format!("z/{number}"), noise(number, 20_000)));
    let (target, to) = (from.tree(), Folder::new());
    let all: u64 = 20 * MIB as u64 + 400 * 20_000;
    let mut last = 0;
    for after in [300, 150, 100] {
        let mut shop = Shop::of(&[&target]);
        shop.breaks_after = Some(after);
        run(&to, &to.tree(), &ask(&target, PUSH), &mut shop, &Plain).expect_err("cut off");
        assert!(shop.sent < all, "{after}");
        last += shop.sent;
    }
    let mut shop = Shop::of(&[&target]);
    let applied = run(&to, &to.tree(), &ask(&target, PUSH), &mut shop, &Plain).expect("received");
    assert_eq!(to.tree().root(), target.root());
    let objects: u64 = target.scanned.objects.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    assert_eq!(applied.fetched + applied.resumed, all);
    assert!(applied.resumed > all / 2, "{applied:?}");
    assert_eq!(last + shop.sent, all + objects, "each byte came once");
}

#[test]
fn a_second_try_of_another_plan_takes_nothing_that_it_did_not_ask_for() {
    let (one, other, to) = (Folder::new(), Folder::new(), Folder::new());
    one.write("new/a", b"a");
    one.write("new/b", noise(1, 2 * MIB));
    other.write("new/a", b"A");
    let target = one.tree();
    let mut shop = Shop::of(&[&target]);
    shop.breaks_after = Some(20);
    run(&to, &to.tree(), &ask(&target, PUSH), &mut shop, &Plain).expect_err("cut off");
    assert!(to.at(".cortex/staging").read_dir().expect("a folder").next().is_some());
    push(&other, &to, PUSH, None);
    assert_eq!((to.paths(), to.read("new/a")), (vec!["new".to_owned(), "new/a".to_owned()], b"A".to_vec()));
}

/// A disk whose n-th sync fails, from 0, and all after it.
struct Failing {
    nth: usize,
    synced: std::cell::RefCell<Vec<Synced>>,
}

impl Seam for Failing {
    fn sync(&self, fd: std::os::fd::BorrowedFd<'_>, what: Synced) -> Result<(), Fault> {
        let mut synced = self.synced.borrow_mut();
        synced.push(what);
        if synced.len() > self.nth { Err(Fault::Sys(Errno::EIO)) } else { Plain.sync(fd, what) }
    }
}

#[test]
fn sync_05_the_nth_fsync_that_fails_is_never_acknowledged() {
    let from = Folder::with(&[("a/new", b"n"), ("old", b"new"), ("x/1", b"1")]);
    from.write("big", noise(1, 20 * MIB));
    let target = from.tree();
    for nth in 0.. {
        let to = Folder::with(&[("old", b"old"), ("x/1", b"1"), ("x/gone", b"g")]);
        let local = to.tree();
        let seam = Failing { nth, synced: Default::default() };
        let asked = Ask { base: Some(local.root()), ..ask(&target, MIRROR) };
        let applied = run(&to, &local, &asked, &mut Shop::of(&[&target, &local]), &seam);
        let synced = seam.synced.borrow();
        if let Ok(applied) = applied {
            assert!(nth >= 5 && synced.len() == nth && applied.end == End::Done, "{synced:?}");
            assert_eq!(synced[..2], [Synced::Tree, Synced::Content], "content, and then what is noted");
            break;
        }
        assert_eq!(synced.len(), nth + 1, "a sync that failed is not tried again: {synced:?}");
        assert!([b"old".to_vec(), b"new".to_vec()].contains(&to.read("old")));
        assert!(!to.at("big").exists() || to.read("big") == from.read("big"));
    }
}

#[test]
fn sync_06_a_target_that_changed_since_the_plan_stops_this_path_and_keeps_both() {
    for (moment, may_exchange) in [
        (Moment::Staged, true),
        (Moment::Looked, true),
        (Moment::Exchanged, true),
        (Moment::Staged, false),
        (Moment::Looked, false),
    ] {
        let from = Folder::with(&[("other", b"o"), ("x", b"new")]);
        let to = Folder::with(&[("x", b"old")]);
        let (target, local) = (from.tree(), to.tree());
        let theirs = || {
            std::fs::write(to.at("y"), b"theirs").expect("written");
            std::fs::rename(to.at("y"), to.at("x")).expect("renamed");
        };
        let mut seam = At::new(Some(moment), 1, theirs);
        seam.may_exchange = may_exchange;
        let applied =
            run(&to, &local, &ask(&target, PUSH), &mut Shop::of(&[&target]), &seam).expect("received");
        drop(seam);
        assert_eq!(to.read("other"), b"o", "others go on");
        let all: Vec<Vec<u8>> = to.paths().iter().map(|path| to.read(path)).collect();
        assert!(all.contains(&b"theirs".to_vec()), "{moment:?}: {:?}", to.paths());
        if moment == Moment::Exchanged {
            // It came after ours had the name, and so is the newest; nothing of it was ever out of sight.
            assert_eq!(to.read("x"), b"theirs");
        } else {
            assert_eq!(to.read("x"), b"theirs", "{moment:?}");
            assert!(matches!(applied.troubles.first[..], [(_, Trouble::Changed { .. })]), "{applied:?}");
        }
        assert!(to.is_clean());
    }
}

#[test]
fn sync_06_what_appears_where_something_is_made_or_is_changed_where_something_goes_stays() {
    let from = Folder::with(&[("new", b"n"), ("dir/deep/f", b"f"), ("z", b"z")]);
    for (moment, spoils) in
        [(Moment::Staged, &["new", "dir", "gone"][..]), (Moment::Looked, &["gone"]), (Moment::Trashed, &[])]
    {
        let to = Folder::with(&[("gone", b"g"), ("go/f", b"1")]);
        let (target, local) = (from.tree(), to.tree());
        let theirs = || {
            for path in spoils {
                to.write(path, b"theirs");
            }
            if moment == Moment::Staged {
                to.write("go/mine", b"mine");
            }
        };
        let seam = At::new(Some(moment), 1, theirs);
        let asked = Ask { base: Some(local.root()), ..ask(&target, MIRROR) };
        let applied = run(&to, &local, &asked, &mut Shop::of(&[&target, &local]), &seam).expect("received");
        for path in spoils {
            assert_eq!(to.read(path), b"theirs", "{moment:?} {path}");
            assert!(applied.troubles.first.iter().any(|(at, _)| at.as_str() == *path), "{applied:?}");
        }
        if moment == Moment::Staged {
            assert_eq!((to.read("go/mine"), to.at("go/f").exists()), (b"mine".to_vec(), false));
            assert_eq!(applied.troubles.count, 6, "with what is below `dir`, and `go`: {applied:?}");
        } else {
            assert_eq!(to.read("dir/deep/f"), b"f");
        }
        assert_eq!((to.read("z"), to.is_clean()), (b"z".to_vec(), true));
    }
}

#[test]
fn sync_08_a_folder_that_becomes_a_link_is_not_followed() {
    let outside = Folder::with(&[("f", b"precious")]);
    for moment in [Moment::Staged, Moment::Created, Moment::Looked] {
        let from = Folder::with(&[("a", b"a"), ("d/e/f", b"new"), ("d/e/g", b"new")]);
        let to = Folder::with(&[("d/e/f", b"old"), ("d/e/gone", b"x")]);
        let (target, local) = (from.tree(), to.tree());
        let swap = || {
            std::fs::rename(to.at("d/e"), to.at("d/was")).expect("renamed");
            symlink(outside.path(), to.at("d/e")).expect("linked");
        };
        let seam = At::new(Some(moment), 1, swap);
        let asked = Ask { base: Some(local.root()), ..ask(&target, MIRROR) };
        run(&to, &local, &asked, &mut Shop::of(&[&target, &local]), &seam).expect("received");
        assert_eq!((outside.paths(), outside.read("f")), (vec!["f".to_owned()], b"precious".to_vec()));
    }
    // And what is ours is no link either.
    let to = Folder::new();
    symlink(outside.path(), to.at(".cortex")).expect("linked");
    let target = sample().tree();
    let refused = run(&to, &to.tree(), &ask(&target, PUSH), &mut Shop::of(&[&target]), &Plain);
    assert!(refused.is_err() && outside.paths() == ["f"], "{refused:?}");
}

#[test]
fn sync_16_only_the_exec_bit_travels_and_links_stay_links() {
    let (from, to) = (Folder::with(&[("s", b"s"), ("x", b"x"), ("plain", b"p")]), Folder::new());
    from.set_mode("s", 0o4755);
    from.set_mode("x", 0o777);
    from.set_mode("plain", 0o600);
    symlink("/etc/passwd", from.at("l")).expect("linked");
    push(&from, &to, PUSH, None);
    assert_eq!((to.mode("s"), to.mode("x"), to.mode("plain")), (0o755, 0o755, 0o644));
    assert_eq!(std::fs::read_link(to.at("l")).expect("a link"), std::path::Path::new("/etc/passwd"));
    // A pipe in the way is neither opened nor replaced.
    let to = Folder::new();
    nix::unistd::mkfifo(&to.at("x"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    let applied = push(&from, &to, PUSH, None);
    assert_eq!((applied.held.count, applied.held.first[0].path.as_str()), (1, "x"));
    assert_eq!(to.read("s"), b"s");
}

#[test]
fn sync_17_a_disk_that_fills_in_the_middle_leaves_the_old_content() {
    on_small_disk("8m", |scene| {
        let old = noise(1, 2 * MIB);
        scene.write("f", &old);
        let from = Folder::new();
        from.write("f", noise(2, 5 * MIB));
        let (target, local) = (from.tree(), super::support::made(&scene.disk("")));
        let root = scene.root.dir(&RelPath::root(), crate::files::beneath::Follow::Never).expect("a folder");
        let ground = Ground {
            root: &root,
            scanned: &local.scanned,
            known: &|_, _| false,
            excluded: &|_, _| false,
            kept: &Objects::default(),
            undone: &[],
        };
        let receive =
            |shop: &mut Shop<'_>| apply(&ground, &ask(&target, PUSH), shop, &Plain, &mut Objects::default());
        // In the middle.
        let mut shop = Shop::of(&[&target]);
        let path = scene.disk("theirs");
        shop.before = Some(Box::new(move |event| {
            if event == 20 {
                std::fs::write(&path, noise(3, 3 * MIB)).expect("written");
            }
        }));
        let refusal = receive(&mut shop).expect_err("there is no room");
        assert_eq!((refusal.code, shop.gates), (Code::NoSpace, 0), "{refusal}");
        assert!(scene.read("f") == old && !shop.asked.is_empty());
        assert_eq!(std::fs::read_dir(scene.disk(".cortex/staging")).expect("a folder").count(), 0);
        // Before the first byte.
        let mut shop = Shop::of(&[&target]);
        let refusal = receive(&mut shop).expect_err("there is no room");
        assert_eq!(refusal.code, Code::NoSpace);
        let objects: u64 = target.scanned.objects.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        assert!(shop.sent <= objects, "no content came");
        // And with room.
        std::fs::remove_file(scene.disk("theirs")).expect("removed");
        receive(&mut Shop::of(&[&target])).expect("received");
        assert!(scene.read("f") == from.read("f"));
    });
}

#[test]
fn a53_a_chunk_with_the_wrong_hash_index_or_a_second_content_touches_no_file() {
    let from = Folder::with(&[("f", b"new content of the file f")]);
    from.write("g", noise(1, 2 * MIB));
    let target = from.tree();
    for at in [3_usize, 9, 20, 40, 60, 5_000, 100_000] {
        for packs in [1, 2] {
            let to = Folder::with(&[("f", b"old"), ("g", b"old")]);
            let mut shop = Shop::of(&[&target]);
            let mut pack = 0;
            shop.spoil = Some(Box::new(move |mut bytes| {
                pack += 1;
                let at = at % bytes.len();
                if pack == packs {
                    bytes[at] ^= 1;
                }
                bytes
            }));
            let refusal = run(&to, &to.tree(), &ask(&target, PUSH), &mut shop, &Plain).expect_err("spoilt");
            assert!(matches!(refusal.code, Code::InvalidArgument | Code::TooLarge), "{refusal}");
            assert_eq!((to.read("f"), to.read("g")), (b"old".to_vec(), b"old".to_vec()));
            assert_eq!(shop.gates, 0);
        }
    }
    // Chunks that nobody asked for, and one that comes twice, are passed over.
    let to = Folder::new();
    let mut shop = Shop::of(&[&target]);
    shop.echoes = Some(Default::default());
    run(&to, &to.tree(), &ask(&target, PUSH), &mut shop, &Plain).expect("received");
    assert_eq!(to.tree().root(), target.root());
}

#[test]
fn a54_a_tree_above_its_quota_is_refused_before_its_content_is_asked_for() {
    let from = Folder::new();
    (0..50).for_each(|number| from.write(&format!("d{number}/f"), noise(number, 1000)));
    let target = from.tree();
    let quota = TreeQuota { entries: 99, bytes: 1 << 30, depth: 10 };
    let to = Folder::with(&[("d1", b"mine")]);
    let mut shop = Shop::of(&[&target]);
    let asked = Ask { quota, ..ask(&target, PUSH) };
    let refusal = run(&to, &to.tree(), &asked, &mut shop, &Plain).expect_err("too large");
    assert_eq!((refusal.code, shop.asked.len()), (Code::Quota, 1), "{refusal}");
    assert_eq!(to.paths(), ["d1"]);
}

#[test]
fn a60_hooks_lose_their_exec_bit_and_nothing_lands_in_what_is_ours() {
    let from = Folder::with(&[(".git/hooks/pre-commit", b"#!/bin/sh"), ("run", b"x"), (".git/config", b"c")]);
    from.set_mode(".git/hooks/pre-commit", 0o755);
    from.set_mode("run", 0o755);
    let to = Folder::with(&[(".git/hooks/pre-commit", b"old")]);
    to.set_mode(".git/hooks/pre-commit", 0o755);
    push(&from, &to, PUSH, None);
    assert_eq!((to.mode(".git/hooks/pre-commit"), to.mode("run")), (0o644, 0o755));
    assert_eq!(to.read(".git/hooks/pre-commit"), b"#!/bin/sh");
    let fresh = Folder::new();
    push(&from, &fresh, PUSH, None);
    assert_eq!(fresh.mode(".git/hooks/pre-commit"), 0o644);
    // It stays so when the next push brings nothing new.
    let base = fresh.tree();
    from.write("run", b"y");
    let applied = push(&from, &fresh, MIRROR, Some(&base));
    assert_eq!((applied.steps.count, fresh.mode(".git/hooks/pre-commit")), (1, 0o644));

    // A tree that holds what is ours, made by hand.
    let mut target = Folder::with(&[("f", b"f")]).tree();
    let evil = Folder::with(&[("root", b"0000"), ("scan", b"forged")]).tree();
    let entries = [(b".cortex".as_slice(), evil.root(), evil.scanned.totals)].map(|(name, id, totals)| {
        let node = cortex_content::object::Node::Dir { id, totals };
        cortex_content::object::DirEntry { name: name.into(), node }
    });
    let objects = &mut target.scanned.objects;
    let (root, _) =
        cortex_content::tree::write_dir(entries.to_vec(), &mut |id, bytes| objects.put(id, bytes))
            .expect("a tree");
    target.scanned.root = root;
    let to = Folder::new();
    let mut shop = Shop::of(&[&target, &evil]);
    let applied = run(&to, &to.tree(), &ask(&target, MIRROR), &mut shop, &Plain).expect("received");
    assert_eq!((applied.held.count, applied.steps.count), (1, 0));
    assert!(!to.at(".cortex/root").exists() && !to.at(".cortex/scan").exists());
}

#[test]
fn what_the_other_end_lost_is_told_and_the_rest_comes() {
    let from = Folder::with(&[("a/gone", b"lost"), ("a/there", b"there"), ("top", b"lost")]);
    from.write("b/big", noise(1, 2 * MIB));
    let target = from.tree();
    let to = Folder::with(&[("top", b"old")]);
    let mut shop = Shop::of(&[&target]);
    shop.lose(&ContentId::of(b"lost"));
    let one = target.chunks.keys().find(|id| target.chunks[*id].len() > 10_000).expect("a chunk");
    shop.lose(one);
    let applied = run(&to, &to.tree(), &ask(&target, PUSH), &mut shop, &Plain).expect("received");
    assert_eq!(applied.troubles.count, 3);
    assert!(applied.troubles.first.iter().all(|(_, trouble)| *trouble == Trouble::Missing), "{applied:?}");
    assert_eq!(to.paths(), ["a", "a/there", "b", "top"]);
    assert_eq!((to.read("top"), to.is_clean()), (b"old".to_vec(), true));
}

#[test]
fn a_gate_that_closes_stops_between_batches_and_each_path_is_old_or_new() {
    let (from, to) = (Folder::new(), Folder::new());
    for number in 0..600 {
        from.write(&format!("f{number:03}"), b"new");
        to.write(&format!("f{number:03}"), b"old");
    }
    let target = from.tree();
    let mut shop = Shop::of(&[&target]);
    shop.at_gate = Some(Box::new(|gate| if gate == 2 { Err(cut_off()) } else { Ok(()) }));
    run(&to, &to.tree(), &ask(&target, PUSH), &mut shop, &Plain).expect_err("closed");
    let new = (0..600).filter(|number| to.read(&format!("f{number:03}")) == b"new").count();
    assert_eq!(new, 256, "one batch");
    let mut shop = Shop::of(&[&target]);
    run(&to, &to.tree(), &ask(&target, PUSH), &mut shop, &Plain).expect("received");
    assert_eq!((to.tree().root(), to.is_clean()), (target.root(), true));
}

#[test]
fn what_is_ignored_here_or_has_no_name_stays_and_so_does_its_folder() {
    let to = Folder::with(&[("d/a.ignored", b"mine"), ("d/f", b"f"), ("e/f", b"f"), ("x.ignored", b"mine")]);
    let odd = to.at("e").join(std::ffi::OsStr::from_bytes(b"\xff\xfe"));
    std::fs::write(&odd, b"odd").expect("written");
    let base = to.tree();
    let from = Folder::with(&[("x.ignored", b"theirs"), ("new", b"n")]);
    let mut target = from.tree();
    // The other end has no rules.
    std::fs::rename(from.at("x.ignored"), from.at("x.kept")).expect("renamed");
    target.chunks.extend(from.tree().chunks);
    let applied = {
        let mut shop = Shop::of(&[&target, &base]);
        let asked = Ask { base: Some(base.root()), ..ask(&target, NEXT) };
        run(&to, &base, &asked, &mut shop, &Plain).expect("received")
    };
    assert_eq!(to.read("d/a.ignored"), b"mine");
    assert!(odd.exists() && !to.at("d/f").exists() && !to.at("e/f").exists());
    assert_eq!(to.read("x.ignored"), b"mine");
    assert_eq!(applied.troubles.first.len(), 1, "`e` is not empty: {applied:?}");
}

#[test]
fn rules_of_the_folder_hold_for_the_tree_that_comes() {
    let from = Folder::with(&[("secret/key", b"k"), ("f", b"f")]);
    let (target, to) = (from.tree(), Folder::new());
    let local = to.tree();
    let root = crate::files::support::open(to.path());
    let root = root.dir(&RelPath::root(), crate::files::beneath::Follow::Never).expect("a folder");
    let excluded = |path: &RelPath, is_dir: bool| path.as_str() == "secret" && is_dir;
    let ground = Ground {
        root: &root,
        scanned: &local.scanned,
        known: &|_, _| false,
        excluded: &excluded,
        kept: &Objects::default(),
        undone: &[],
    };
    let mut shop = Shop::of(&[&target]);
    let applied = apply(&ground, &ask(&target, PUSH), &mut shop, &Plain, &mut Objects::default());
    assert_eq!((applied.expect("received").held.count, to.paths()), (1, vec!["f".to_owned()]));
}

#[test]
fn drift_is_told_and_with_repair_kept_beside() {
    let from = Folder::with(&[("f.txt", b"one")]);
    let to = Folder::new();
    push(&from, &to, PUSH, None);
    let base = to.tree();
    to.write("f.txt", b"drifted");
    to.write("mine", b"m");
    from.write("new", b"n");
    let applied = push(&from, &to, Mode::FromHub { repair: false }, Some(&base));
    assert_eq!((to.read("f.txt"), applied.held.count), (b"drifted".to_vec(), 2));
    push(&from, &to, Mode::FromHub { repair: true }, Some(&base));
    assert_eq!((to.read("f.txt"), to.read("f.conflict-n1-7.txt")), (b"one".to_vec(), b"drifted".to_vec()));
}

#[test]
fn two_tries_of_one_transfer_do_not_work_at_the_same_time() {
    let (from, to) = (sample(), Folder::new());
    let target = from.tree();
    let mut shop = Shop::of(&[&target]);
    shop.at_gate = Some(Box::new(|_| {
        let second = run(&to, &to.tree(), &ask(&target, PUSH), &mut Shop::of(&[&target]), &Plain);
        assert_eq!(second.expect_err("busy").code, Code::Conflict);
        Ok(())
    }));
    run(&to, &to.tree(), &ask(&target, PUSH), &mut shop, &Plain).expect("received");
    assert!(shop.gates > 0);
}

#[test]
fn staging_of_dead_transfers_goes_and_that_of_live_ones_stays() {
    let (from, to) = (sample(), Folder::new());
    let target = from.tree();
    let mut shop = Shop::of(&[&target]);
    shop.breaks_after = Some(15);
    run(&to, &to.tree(), &ask(&target, PUSH), &mut shop, &Plain).expect_err("cut off");
    let root = crate::files::support::open(to.path());
    let root = root.dir(&RelPath::root(), crate::files::beneath::Follow::Never).expect("a folder");
    let hour = std::time::Duration::from_secs(3600);
    assert_eq!(sweep_staging(&root, hour, &Plain), Ok(0), "it may be tried again");
    let mut shop = Shop::of(&[&target]);
    shop.at_gate = Some(Box::new(|_| {
        assert_eq!(sweep_staging(&root, std::time::Duration::ZERO, &Plain), Ok(0), "it is at work");
        Err(cut_off())
    }));
    run(&to, &to.tree(), &ask(&target, PUSH), &mut shop, &Plain).expect_err("closed");
    assert_eq!(sweep_staging(&root, std::time::Duration::ZERO, &Plain), Ok(1));
    assert!(to.is_clean() && to.paths().is_empty());
    assert_eq!(sweep_staging(&root, std::time::Duration::ZERO, &Plain), Ok(0));
}

#[test]
fn times_come_with_the_content_and_folders_are_made_whole() {
    let from = Folder::with(&[("d/f", b"f")]);
    let old = std::fs::FileTimes::new()
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000, 7));
    std::fs::File::options().write(true).open(from.at("d/f")).expect("a file").set_times(old).expect("set");
    let to = Folder::new();
    let target = from.tree();
    let seen = |moment| {
        let is_there = to.at("d").exists();
        assert!(!is_there || to.at("d/f").exists(), "{moment:?}");
    };
    struct Watching<'a>(&'a dyn Fn(Moment));
    impl Seam for Watching<'_> {
        fn pass(&self, moment: Moment) {
            (self.0)(moment);
        }
    }
    let mut shop = Shop::of(&[&target]);
    run(&to, &to.tree(), &ask(&target, PUSH), &mut shop, &Watching(&seen)).expect("received");
    let meta = std::fs::metadata(to.at("d/f")).expect("it is there");
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_000_000, 7));
}

/// Scans a folder, makes it what is asked for, and scans it again.
fn receive(root: &Dir, spec: &ScanSpec, cache: &mut Cache, ask: &Ask, shop: &mut Shop) -> Applied {
    let scanned = scan::scan(root, spec, cache, None).expect("scanned");
    let (excluded, kept) = (scan::excluded(spec).expect("patterns"), Objects::default());
    let ground = Ground {
        root,
        scanned: &scanned,
        known: &|_, _| false,
        excluded: &excluded,
        kept: &kept,
        undone: &[],
    };
    let mut objects = Objects::default();
    let mut applied = apply(&ground, ask, shop, &Plain, &mut objects).expect("received");
    let base = Base { root: ask.target, objects: &objects };
    let after = scan::scan_telling(root, spec, cache, Some(&base), &applied.written, &|_, _| {});
    applied.root = Some(after.expect("scanned").root);
    applied
}

#[test]
fn a_folder_is_scanned_before_and_after_and_what_was_written_is_not_read_again() {
    let (from, to) = (sample(), Folder::with(&[("a/b/two", b"old"), ("out/key", b"mine")]));
    from.write("out/secret", b"s");
    let root = crate::files::support::open(to.path());
    let root = root.dir(&RelPath::root(), crate::files::beneath::Follow::Never).expect("a folder");
    let spec = ScanSpec { excludes: vec!["/out".to_owned()], vcs: true, ..ScanSpec::default() };
    let mut cache = Cache::load(&root);
    for (round, mode) in [PUSH, NEXT, NEXT].into_iter().enumerate() {
        let target = from.tree();
        let asked = Ask { base: (mode == NEXT).then(|| target.root()), ..ask(&target, mode) };
        let mut shop = Shop::of(&[&target]);
        let applied = receive(&root, &spec, &mut cache, &asked, &mut shop);
        assert_eq!((to.read("out/key"), to.at("out/secret").exists()), (b"mine".to_vec(), false));
        let scanned = scan::scan(&root, &spec, &mut Cache::default(), None).expect("scanned");
        assert_eq!(applied.root, Some(scanned.root), "what the disk has");
        let files: u64 = applied.written.len() as u64;
        assert_eq!((applied.troubles.count, files), (0, if round == 0 { 7 } else { 0 }));
        for (path, written) in &applied.written {
            assert_eq!(ContentId::of(&to.read(path.as_str())), written.id);
        }
        // Not even those: a scan right behind it reads what is as young as itself, and nothing else.
        let again = scan::scan(&root, &spec, &mut cache, None).expect("scanned");
        assert_eq!(again.root, scanned.root);
    }
    let stale = receive(&root, &spec, &mut cache, &ask(&from.tree(), PUSH), &mut Shop::of(&[&from.tree()]));
    assert_eq!(stale.steps.count, 0);
    assert!(to.is_clean());
}
