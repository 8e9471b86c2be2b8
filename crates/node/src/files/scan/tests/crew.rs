//! Several threads go over a folder as one does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::changes::{apply, edit};
use super::*;

/// A scan by so many threads.
fn by(threads: usize, scene: &Scene, spec: &ScanSpec, cache: &mut Cache) -> Scanned {
    whole(&open(scene), &Guide::of(spec), cache, None, threads).expect("scanned")
}

/// All that a scan says, and what it learnt.
fn told(scanned: &Scanned, cache: &mut Cache) -> impl PartialEq + std::fmt::Debug + use<> {
    let Scanned { root, totals, counts, left_out, unnamed, notes, objects, .. } = scanned.clone();
    let mut objects: Vec<_> = objects.iter().map(|(id, _)| *id).collect();
    objects.sort_unstable();
    (root, totals, counts, left_out, unnamed, notes, objects, cache.clone().written())
}

/// A flat folder, a deep one, many small ones, and all that may be left out of them.
fn forest() -> Scene {
    let scene = Scene::new();
    for n in 0..700 {
        scene.write(&format!("flat/ملف-{n}"), format!("{}", n % 300));
    }
    let deep: String = (0..60).map(|n| format!("{n}/")).collect();
    scene.write(&format!("deep/{deep}x"), "the deepest");
    for n in 0..40 {
        for below in 0..6 {
            scene.write(&format!("small/{n}/{below}/a.log"), format!("{n}"));
            scene.write(&format!("small/{n}/{below}/b"), format!("{n} {below}"));
        }
        scene.write(&format!("small/{n}/.gitignore"), if n % 2 == 0 { "*.log\n" } else { "3/\n!*.log\n" });
    }
    for n in 0..30 {
        fs::hard_link(scene.disk(&format!("flat/ملف-{n}")), scene.disk(&format!("small/{n}/again")))
            .expect("linked");
    }
    fs::hard_link(scene.disk("flat/ملف-40"), scene.outside("elsewhere")).expect("linked");
    symlink("/etc", scene.disk("small/7/out")).expect("made");
    fs::set_permissions(scene.disk("small/9"), Permissions::from_mode(0o2755)).expect("set");
    scene
}

#[test]
fn several_threads_find_and_learn_what_one_does() {
    let scene = forest();
    settle();
    let spec = ScanSpec { ignore_files: true, links: Links::Refuse, ..PLAIN() };
    let mut alone = Cache::default();
    let one = by(1, &scene, &spec, &mut alone);
    let expected = told(&one, &mut alone);
    for round in 0..20 {
        let threads = 2 + round % 7;
        let mut cache = Cache::default();
        let several = by(threads, &scene, &spec, &mut cache);
        assert!(told(&several, &mut cache) == expected, "{threads} threads, round {round}");
        assert_eq!(several.hashed, one.hashed);
        let again = by(threads, &scene, &spec, &mut cache);
        assert!(told(&again, &mut cache) == expected, "{threads} threads know it, round {round}");
        assert_eq!(again.hashed, 0);
    }
}

#[test]
fn whoever_has_nothing_to_do_is_given_a_part() {
    let scene = Scene::new();
    (0..300).for_each(|n| scene.write(&format!("{}/{n}", n % 3), format!("{n}")));
    let threads = std::sync::Mutex::new(HashSet::new());
    let take = |_: ContentId, _: &[u8]| {
        // So slow that it is worth another's while.
        std::thread::sleep(Duration::from_micros(200));
        threads.lock().expect("no panic").insert(std::thread::current().id());
    };
    let spec = PLAIN();
    let guide = Guide { take: Some(&take), ..Guide::of(&spec) };
    whole(&open(&scene), &guide, &mut Cache::default(), None, 4).expect("scanned");
    assert_eq!(threads.into_inner().expect("no panic").len(), 4);
}

#[test]
fn a_thread_that_panics_takes_all_with_it_and_nobody_waits() {
    let scene = forest();
    let (spec, count) = (PLAIN(), AtomicUsize::new(0));
    let take = |_: ContentId, _: &[u8]| {
        assert!(count.fetch_add(1, Ordering::Relaxed) < 100, "as the test wants it");
    };
    let guide = Guide { take: Some(&take), ..Guide::of(&spec) };
    let scan = || whole(&open(&scene), &guide, &mut Cache::default(), None, 4);
    assert!(catch_unwind(AssertUnwindSafe(scan)).is_err());
}

#[test]
fn a_fault_of_one_thread_is_that_of_the_scan() {
    let scene = forest();
    let (spec, dir, mut cache) = (PLAIN(), open(&scene), Cache::default());
    // Fewer than the deepest folder needs, since all those above it are open then.
    let all = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(40), ..all }).expect("lowered");
    let few = whole(&dir, &Guide::of(&spec), &mut cache, None, 4).map(|found| found.root);
    setrlimit(Resource::Nofile, all).expect("raised");
    assert!(matches!(few, Err(Fault::Sys(nix::errno::Errno::EMFILE))), "{few:?}");
    let whole = by(4, &scene, &spec, &mut cache);
    assert_eq!(whole.root, look(&scene, &spec).root, "what was learnt before the fault is true");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: super::super::super::support::rounds(16, 500), ..ProptestConfig::default() })]

    #[test]
    fn several_threads_follow_changes_as_one_does(
        rounds in proptest::collection::vec(proptest::collection::vec(edit(), 1..8), 1..5),
    ) {
        let scene = Scene::new();
        let spec = ScanSpec { ignore_files: true, ..PLAIN() };
        let (mut alone, mut together) = (Cache::default(), Cache::default());
        let mut number = 0;
        for round in rounds {
            for edit in round {
                number += 1;
                apply(&scene, &edit, number);
            }
            settle();
            let (one, several) = (by(1, &scene, &spec, &mut alone), by(3, &scene, &spec, &mut together));
            prop_assert!(told(&one, &mut alone) == told(&several, &mut together));
        }
    }
}
