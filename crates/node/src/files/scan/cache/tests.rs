//! What the cache of a scan believes, and what not.

use std::fs;

use super::super::super::support::Scene;
use super::super::ScanSpec;
use super::super::tests::{PLAIN, again, open, settle};
use bytes::BytesMut;

use super::*;

fn kept() -> (Scene, Vec<u8>) {
    let scene = Scene::new();
    scene.write("د/a", "one");
    scene.write("big", vec![3; 2_000_000]);
    std::os::unix::fs::symlink("a", scene.disk("link")).expect("made");
    settle();
    let mut cache = Cache::default();
    again(&scene, &PLAIN(), &mut cache);
    cache.save(&open(&scene)).expect("kept");
    let bytes = scene.read(".cortex/scan");
    (scene, bytes)
}

#[test]
fn a_cache_is_kept_and_what_it_knows_is_not_read_again() {
    let (scene, bytes) = kept();
    let mut cache = Cache::load(&open(&scene));
    let first = again(&scene, &PLAIN(), &mut Cache::default());
    let found = again(&scene, &PLAIN(), &mut cache);
    assert_eq!((found.root, found.hashed), (first.root, 0));
    assert_eq!(found.objects.len(), first.objects.len(), "the map of a long file is made of what is known");
    assert!(!cache.is_changed, "nothing new is nothing to write");
    cache.save(&open(&scene)).expect("kept");
    assert_eq!(scene.read(".cortex/scan"), bytes);
    assert_eq!(scene.names(".cortex"), ["scan"], "nothing is left of the writing");
    fs::remove_dir_all(scene.disk("د")).expect("removed");
    again(&scene, &PLAIN(), &mut cache);
    assert_eq!(cache.folders.len(), 1, "a folder that is gone is forgotten");
}

#[test]
fn a_cache_that_is_damaged_cut_or_of_another_folder_is_an_empty_one() {
    let (scene, bytes) = kept();
    for at in 0..bytes.len() {
        if at > 300 && at % 97 != 0 {
            continue;
        }
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert!(Cache::parse(damaged.into()).is_none(), "byte {at}");
        assert!(Cache::parse(bytes[..at].to_vec().into()).is_none(), "{at} bytes");
    }
    fs::write(scene.disk(".cortex/scan"), "damaged").expect("written");
    assert_eq!(again(&scene, &PLAIN(), &mut Cache::load(&open(&scene))).hashed, 2_000_003);
    let other = Scene::new();
    other.write("د/a", "two");
    fs::create_dir(other.disk(".cortex")).expect("made");
    fs::write(other.disk(".cortex/scan"), &bytes).expect("written");
    let mut cache = Cache::load(&open(&other));
    assert_eq!(again(&other, &PLAIN(), &mut cache).hashed, 3);
    fs::remove_file(other.disk(".cortex/scan")).expect("removed");
    std::os::unix::fs::symlink(scene.disk("big"), other.disk(".cortex/scan")).expect("made");
    assert!(Cache::load(&open(&other)).folders.is_empty(), "no link is followed");
}

#[test]
fn a_cache_that_somebody_else_wrote_neither_stops_a_scan_nor_takes_memory() {
    let (scene, bytes) = kept();
    let body = &bytes[..bytes.len() - HASH_BYTES];
    for at in 24..body.len() {
        if at > 200 && at % 31 != 0 {
            continue;
        }
        for value in [0, 0xff] {
            let mut forged = BytesMut::from(body);
            forged[at] = value;
            // Whatever it says, it is read to its end and the scan goes on.
            if let Some(mut cache) = Cache::parse(sealed(forged)) {
                again(&scene, &PLAIN(), &mut cache);
            }
        }
    }
    let mut short = BytesMut::from(&body[..24]);
    short[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(Cache::parse(sealed(short)).is_none());
}

#[test]
fn a_cache_of_before_writers_were_told_is_believed_by_a_scan_and_knows_nothing_surely() {
    let (scene, bytes) = kept();
    let dir = open(&scene);
    let is_telling = super::super::writers::Writers::of(&dir).none_of_ours();
    let big = super::super::super::support::rel("big");
    let are = |cache: &Cache| cache.sights().are(&big, &dir.stat(b"big").expect("there"));
    let mut body = BytesMut::from(&bytes[..bytes.len() - HASH_BYTES]);
    // Size, both times and inode are of 8 bytes each, and the mode of 2.
    let row = body.windows(5).position(|at| at == b"\x01\x03big").expect("its row");
    let flags = &mut body[row + 5 + 4 * 8 + 2];
    assert_eq!(*flags, if is_telling { 2 } else { 0 });
    *flags = 0;
    let mut old = Cache::parse(sealed(body)).expect("a cache");
    assert!(are(&Cache::parse(bytes.into()).expect("a cache")) == is_telling && !are(&old));
    assert_eq!(again(&scene, &PLAIN(), &mut old).hashed, 0);
    assert!(!are(&old), "nobody has read it since");
    again(&scene, &ScanSpec { full: true, ..PLAIN() }, &mut old);
    assert_eq!(are(&old), is_telling);
}
