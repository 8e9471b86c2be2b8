//! Who has a file open or mapped for writing when names change.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::super::*;
use super::support::{At, Folder, MIRROR, PUSH, Shop, ask, made, noise, run};
use crate::files::beneath::{Follow, Stat};
use crate::files::scan::writers::{Writers, has_writer};
use crate::files::scan::{self, Cache, ScanSpec, await_tick};
use crate::files::seam::Plain;
use crate::files::support::{Mapping, on_small_disk, open, rel};

const PAGE: usize = 4_096;

/// How many files below have a writer, of how many.
fn written(folder: &Path) -> (usize, usize) {
    let (mut open, mut all) = (0, 0);
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("read").path();
        if path.is_dir() {
            let below = written(&path);
            (open, all) = (open + below.0, all + below.1);
        } else if path.is_file() {
            all += 1;
            open += usize::from(has_writer(&File::open(&path).expect("open")));
        }
    }
    (open, all)
}

#[test]
fn of_what_is_staged_nothing_is_open_for_writing_when_it_gets_its_name() {
    let from = Folder::with(&[("f", b"new"), ("d/e/ملف", b"other"), ("empty", b"")]);
    (0..200).for_each(|number| from.write(&format!("many/{number}"), noise(number, 20_000)));
    from.write("long", noise(1, 3 << 20));
    let target = from.tree();
    // Also of what a try before had staged, a long file among it.
    for breaks_after in [None, Some(150)] {
        let to = Folder::with(&[("f", b"old")]);
        let local = to.tree();
        if breaks_after.is_some() {
            let mut shop = Shop::of(&[&target]);
            shop.breaks_after = breaks_after;
            run(&to, &local, &ask(&target, PUSH), &mut shop, &Plain).expect_err("cut off");
        }
        let found = Cell::new((0, 0));
        let looks = At::new(Some(Moment::Staged), 1, || {
            let mut tries = fs::read_dir(to.at(".cortex/staging")).expect("a folder");
            let only = tries.next().expect("one try").expect("read").path();
            found.set(written(&only.join("tree")));
        });
        let applied = run(&to, &local, &ask(&target, PUSH), &mut Shop::of(&[&target]), &looks);
        let applied = applied.expect("received");
        assert_eq!(applied.resumed > 0, breaks_after.is_some());
        assert_eq!(found.get(), (0, 204));
    }
}

fn stat(path: &Path) -> Stat {
    Stat::of_open(File::open(path).expect("open")).expect("there")
}

/// Replaces a file that is mapped, or removes it. Nobody knows it, so it is hashed; the program stores to it
/// after that. `false` when the times moved with it.
fn try_after_look(may_exchange: bool, removes: bool) -> bool {
    let from = Folder::with(&[("new", b"new")]);
    if !removes {
        from.write("f", vec![b'n'; PAGE]);
    }
    let to = Folder::with(&[("f", &[b'a'; PAGE])]);
    let (local, target) = (to.tree(), from.tree());
    let f = to.at("f");
    let mapping = Mapping::of(&f);
    let is_unseen = Cell::new(false);
    let act = |moment| {
        if moment == Moment::Staged {
            // From here on the disk is not written as a whole.
            mapping.store(b'a');
            let long_ago = SystemTime::now() - Duration::from_secs(3_600);
            File::options().write(true).open(&f).and_then(|f| f.set_modified(long_ago)).expect("set");
        } else if moment == Moment::Looked {
            let before = stat(&f);
            mapping.store(b'z');
            is_unseen.set(stat(&f).is_untouched_since(&before));
        }
    };
    let asked = Ask { base: Some(local.root()), ..ask(&target, MIRROR) };
    let seam = Acting { act: &act, may_exchange };
    let applied = run(&to, &local, &asked, &mut Shop::of(&[&target, &local]), &seam).expect("received");
    if !is_unseen.get() {
        return false;
    }
    assert_eq!(applied.troubles.first, [(rel("f"), Trouble::Changed { kept: None })], "{applied:?}");
    assert_eq!(to.read("f")[..2], *b"za", "what the program wrote is there");
    true
}

struct Acting<'a> {
    act: &'a dyn Fn(Moment),
    may_exchange: bool,
}

impl Seam for Acting<'_> {
    fn pass(&self, moment: Moment) {
        (self.act)(moment);
    }

    fn may_exchange(&self) -> bool {
        self.may_exchange
    }
}

/// Receives what replaces one file and removes another, of which a scan with a cache knows the times; a program
/// that had both mapped before stores to them while content comes. `false` when the times moved with it.
fn try_after_scan(to: &Path) -> bool {
    let names = ["replaced", "ملف"];
    for name in names.iter().chain(&["calm"]) {
        fs::write(to.join(name), [b'a'; PAGE]).expect("written");
    }
    let from = Folder::with(&[("replaced", &[b'n'; PAGE]), ("calm", &[b'n'; PAGE]), ("new", b"new")]);
    let (local, target) = (made(to), from.tree());
    let mappings = names.map(|name| Mapping::of(&to.join(name)));
    mappings.iter().for_each(|mapping| mapping.store(b'a'));
    let root = open(to);
    let root = root.dir(&RelPath::root(), Follow::Never).expect("a folder");
    await_tick(&root);
    let (spec, mut cache) = (ScanSpec { vcs: true, ..ScanSpec::default() }, Cache::default());
    let scanned =
        scan::scan_telling(&root, &spec, &mut cache, None, &HashMap::new(), &|_, _| {}).expect("scanned");
    let (is_unseen, sights) = (Cell::new(true), cache.sights());
    let mut shop = Shop::of(&[&target, &local]);
    shop.before = Some(Box::new(|event| {
        if event == 1 {
            for (name, mapping) in names.iter().zip(&mappings) {
                let before = stat(&to.join(name));
                mapping.store(b'z');
                is_unseen.set(is_unseen.get() && stat(&to.join(name)).is_untouched_since(&before));
            }
        }
    }));
    let believed = Cell::new(0);
    let known = |path: &RelPath, stat: &Stat| {
        let is = sights.are(path, stat);
        believed.set(believed.get() + u32::from(is));
        is
    };
    let kept = Objects::default();
    let ground = Ground {
        root: &root,
        scanned: &scanned,
        known: &known,
        excluded: &|_, _| false,
        kept: &kept,
        undone: &[],
    };
    let asked = Ask { base: Some(scanned.root), ..ask(&target, MIRROR) };
    let applied = apply(&ground, &asked, &mut shop, &Plain, &mut Objects::default()).expect("received");
    drop(shop);
    if !is_unseen.get() {
        return false;
    }
    let mut failed = applied.troubles.first;
    failed.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(failed, names.map(|name| (rel(name), Trouble::Changed { kept: None })));
    for name in names {
        assert_eq!(fs::read(to.join(name)).expect("there")[..2], *b"za", "what the program wrote is there");
    }
    assert_eq!(fs::read(to.join("calm")).expect("there"), [b'n'; PAGE]);
    assert_eq!(believed.get(), u32::from(Writers::of(&root).none_of_ours()), "one is known without a look");
    true
}

#[test]
fn sync_06_what_is_stored_through_a_mapping_between_scan_and_replacement_is_not_lost() {
    assert!((0..100).any(|_| try_after_scan(Folder::new().path())), "a store that nobody sees");
    on_small_disk("8m", |scene| {
        assert!(try_after_scan(&scene.disk("")), "on a disk in memory no such store is seen");
    });
}

#[test]
fn sync_06_what_is_stored_through_a_mapping_after_the_last_look_comes_back() {
    for (may_exchange, removes) in [(true, false), (false, false), (true, true)] {
        assert!((0..100).any(|_| try_after_look(may_exchange, removes)), "{may_exchange} {removes}");
    }
}
