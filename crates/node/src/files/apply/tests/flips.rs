//! Bits that the disk flips in what a transfer left that was cut off (ABUSE 59).

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use super::super::*;
use super::support::{Folder, Killed, PUSH, Shop, ask, noise, run};
use crate::files::seam::Plain;

fn source() -> Folder {
    let from = Folder::with(&[("f", b"new"), ("d/ملف", b"other"), ("empty", b"")]);
    from.write("long", noise(1, (1 << 20) + 9_000));
    from
}

/// A folder in which a try was cut off at that moment.
fn cut_off_at(at: Moment, target: &super::support::Made) -> Folder {
    let to = Folder::with(&[("f", b"old")]);
    let (local, asked) = (to.tree(), ask(target, PUSH));
    let mut shop = Shop::of(&[target]);
    catch_unwind(AssertUnwindSafe(|| run(&to, &local, &asked, &mut shop, &Killed { at })))
        .expect_err("killed");
    to
}

/// Files below, by their paths from the top.
fn files(top: &Path) -> Vec<PathBuf> {
    let (mut files, mut next) = (Vec::new(), vec![top.to_owned()]);
    while let Some(folder) = next.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("read").path();
            if path.is_dir() {
                next.push(path)
            } else {
                files.push(path.strip_prefix(top).expect("below").into())
            }
        }
    }
    files.sort();
    files
}

#[test]
fn a59_a_bit_that_flips_in_staging_is_found_before_anything_gets_its_name() {
    let from = source();
    let target = from.tree();
    let (mut flips, mut kinds) = (0, std::collections::BTreeSet::new());
    for moment in [Moment::Staged, Moment::Exchanged] {
        let left = files(&cut_off_at(moment, &target).at(".cortex"));
        assert!(left.len() >= 2, "{moment:?}: {left:?}");
        for path in left {
            for part in 0..4_u64 {
                let to = cut_off_at(moment, &target);
                let spoilt = to.at(".cortex").join(&path);
                let mut bytes = fs::read(&spoilt).expect("it is there");
                if bytes.is_empty() {
                    break;
                }
                let at = (bytes.len() - 1) * usize::try_from(part).expect("small") / 3;
                bytes[at] ^= 1 << (at % 8);
                let times = fs::metadata(&spoilt).expect("there").modified().expect("a time");
                fs::write(&spoilt, bytes).expect("a disk");
                fs::File::options()
                    .write(true)
                    .open(&spoilt)
                    .expect("open")
                    .set_modified(times)
                    .expect("set");
                let mut shop = Shop::of(&[&target]);
                let applied = run(&to, &to.tree(), &ask(&target, PUSH), &mut shop, &Plain).expect("received");
                let when = format!("{moment:?}: byte {at} of {}", path.display());
                assert_eq!(applied.troubles.count, 0, "{when}: {applied:?}");
                for name in from.paths().iter().filter(|name| from.at(name).is_file()) {
                    assert!(to.read(name) == from.read(name), "{when}: `{name}` is spoilt");
                }
                // What was out of sight and is nobody's any more comes back beside; nothing else is new.
                let beside = to.paths().into_iter().filter(|path| !from.paths().contains(path));
                let spoils_old = path.to_string_lossy().contains("/was/");
                assert!(spoils_old || beside.count() == 0, "{when}: {:?}", to.paths());
                flips += 1;
                kinds.insert(path.components().nth(2).map(|kind| kind.as_os_str().to_owned()));
            }
        }
    }
    assert!(flips > 25 && kinds.len() == 5, "{flips} flips in tree, was, taken, objects and log: {kinds:?}");
}
