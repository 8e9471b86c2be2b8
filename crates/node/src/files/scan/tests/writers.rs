//! What somebody may write to without a sign is not taken for what the scan saw.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::super::super::beneath::Root;
use super::super::super::support::Mapping;
use super::super::writers::Writers;
use super::*;

const PAGE: usize = 4_096;

fn stat(scene: &Scene, path: &str) -> Stat {
    open(scene).stat(path.as_bytes()).expect("there")
}

/// Whether the times of files there tell of those who come to write.
fn is_telling(scene: &Scene) -> bool {
    Writers::of(&open(scene)).none_of_ours()
}

/// Stores something else, as nobody can see by its times; whether that is so. A page that the system just wrote to
/// the disk gives a sign.
fn stores_unseen(scene: &Scene, path: &str, mapping: &Mapping) -> bool {
    let before = stat(scene, path);
    mapping.store(mapping.first() + 1);
    stat(scene, path).is_untouched_since(&before)
}

/// Scans what is mapped, open and neither, and stores to what is mapped; `false` when that was seen.
fn try_mapped(scene: &Scene) -> bool {
    for path in ["mapped", "open", "قديم", "plain"] {
        scene.write(path, vec![b'a'; PAGE]);
    }
    let mapping = Mapping::of(&scene.disk("mapped"));
    mapping.store(b'b');
    Mapping::of(&scene.disk("قديم")).store(b'b');
    let writer = File::options().write(true).open(scene.disk("open")).expect("open");
    settle();
    let mut cache = Cache::default();
    let are = |cache: &Cache, path: &str| cache.sights().are(&rel(path), &stat(scene, path));
    let found = again(scene, &PLAIN(), &mut cache);
    if !stores_unseen(scene, "mapped", &mapping) {
        return false;
    }
    assert_ne!(ContentId::of(&scene.read("mapped")), file(&found, "mapped").id, "it is not what was seen");
    for _ in 0..2 {
        let known = ["mapped", "open", "قديم", "plain"].map(|path| are(&cache, path));
        assert_eq!(known, [false, false, is_telling(scene), is_telling(scene)]);
        // By the next scan neither, which reads nothing, and keeps what is known.
        assert_eq!(again(scene, &PLAIN(), &mut cache).hashed, 0);
    }
    drop((mapping, writer));
    let again = again(scene, &ScanSpec { full: true, ..PLAIN() }, &mut cache);
    assert_eq!(ContentId::of(&scene.read("mapped")), file(&again, "mapped").id);
    assert_eq!(
        ["mapped", "open"].map(|path| are(&cache, path)),
        [is_telling(scene); 2],
        "once nobody has it"
    );
    true
}

/// The same of what is mapped only after the scan, and read before it is stored to.
fn mapped_later(scene: &Scene) {
    scene.write("f", vec![b'a'; PAGE]);
    settle();
    let mut cache = Cache::default();
    let found = again(scene, &PLAIN(), &mut cache);
    let mapping = Mapping::of(&scene.disk("f"));
    assert_eq!(mapping.first(), b'a');
    settle();
    assert_eq!(stores_unseen(scene, "f", &mapping), !is_telling(scene));
    drop(mapping);
    assert_ne!(ContentId::of(&scene.read("f")), file(&found, "f").id);
    assert!(!cache.sights().are(&rel("f"), &stat(scene, "f")));
}

/// The same of what is stored after the content was read, by a program that goes away while the scan still has the
/// file; `false` when that was seen.
fn try_gone(scene: &Scene) -> bool {
    scene.write("f", vec![b'a'; PAGE]);
    let mapping = Mapping::of(&scene.disk("f"));
    mapping.store(b'b');
    let mapping = Mutex::new(Some(mapping));
    settle();
    let is_unseen = AtomicBool::new(false);
    let take = |_, _: &[u8]| {
        if let Some(mapping) = mapping.lock().expect("no panic").take() {
            is_unseen.store(stores_unseen(scene, "f", &mapping), Ordering::Relaxed);
        }
    };
    let mut cache = Cache::default();
    let spec = PLAIN();
    let guide = Guide { take: Some(&take), asks_writers: true, ..Guide::of(&spec) };
    let found = whole(&open(scene), &guide, &mut cache, None, 3).expect("scanned");
    if !is_unseen.load(Ordering::Relaxed) {
        return false;
    }
    assert_ne!(ContentId::of(&scene.read("f")), file(&found, "f").id);
    assert!(!cache.sights().are(&rel("f"), &stat(scene, "f")));
    true
}

fn on_each_disk(body: impl Fn(&Scene) + Sync) {
    body(&Scene::new());
    on_small_disk("4m", |scene| {
        assert!(!is_telling(scene), "a disk in memory");
        body(scene);
    });
}

#[test]
fn sync_06_a_file_that_is_open_or_mapped_for_writing_is_not_what_the_scan_saw() {
    on_each_disk(|scene| assert!((0..100).any(|_| try_mapped(scene)), "a store that nobody sees"));
}

#[test]
fn sync_06_a_file_that_was_mapped_while_it_was_read_is_not_what_the_scan_saw() {
    on_each_disk(|scene| assert!((0..100).any(|_| try_gone(scene)), "a store that nobody sees"));
}

#[test]
fn what_is_known_of_writers_stays_when_only_the_time_that_is_kept_becomes_another() {
    let (scene, other) = (Scene::new(), Scene::new());
    for scene in [&other, &scene] {
        scene.write("f", "x");
        scene.write("open", "x");
        settle();
    }
    let writer = File::options().write(true).open(scene.disk("open")).expect("open");
    let (mut cache, base) = (Cache::default(), look(&other, &PLAIN()));
    let first = again(&scene, &PLAIN(), &mut cache);
    drop(writer);
    let sticky = Base { root: base.root, objects: &base.objects };
    let found = scan_telling(&open(&scene), &PLAIN(), &mut cache, Some(&sticky), &HashMap::new(), &|_, _| {});
    let found = found.expect("scanned");
    assert!((found.root, found.hashed) == (base.root, 0) && first.root != base.root);
    let known = ["f", "open"].map(|path| cache.sights().are(&rel(path), &stat(&scene, path)));
    assert_eq!(known, [is_telling(&scene), false]);
}

#[test]
fn sync_06_a_file_that_was_mapped_after_the_scan_is_not_what_the_scan_saw() {
    on_each_disk(mapped_later);
}

#[test]
fn sync_06_a_mapping_through_another_file_system_that_shows_this_one_is_not_overlooked() {
    on_small_disk("4m", |scene| {
        let (lower, upper, work) = (scene.disk("l"), scene.disk("u"), scene.disk("w"));
        for path in [&lower, &upper, &work, &scene.disk("m")] {
            fs::create_dir(path).expect("made");
        }
        let options =
            format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        let at = scene.disk("m");
        mount(Some("overlay"), &at, Some("overlay"), MsFlags::empty(), Some(&*options)).expect("mounted");
        fs::write(at.join("f"), vec![b'a'; PAGE]).expect("written");
        let mapping = Mapping::of(&at.join("f"));
        mapping.store(b'b');
        settle();
        let dir =
            Root::open(&at).and_then(|root| root.dir(&RelPath::root(), Follow::Never)).expect("a folder");
        let mut cache = Cache::default();
        scan(&dir, &PLAIN(), &mut cache, None).expect("scanned");
        let before = dir.stat(b"f").expect("there");
        mapping.store(b'c');
        let after = dir.stat(b"f").expect("there");
        assert!(after.is_untouched_since(&before) && !cache.sights().are(&rel("f"), &after));
        drop((mapping, dir));
        umount2(&at, MntFlags::MNT_DETACH).expect("unmounted");
    });
}

#[test]
fn who_opens_files_for_writing_while_they_are_scanned_is_not_kept_and_the_scan_goes_on() {
    let scene = Scene::new();
    (0..50).for_each(|number| scene.write(&format!("f{number}"), "x"));
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let opens = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                for number in 0..50 {
                    let began = std::time::Instant::now();
                    File::options().write(true).open(scene.disk(&format!("f{number}"))).expect("open");
                    longest = longest.max(began.elapsed());
                }
            }
            longest
        });
        let spec = ScanSpec { full: true, ..PLAIN() };
        let until = std::time::Instant::now() + Duration::from_millis(300);
        while std::time::Instant::now() < until {
            assert_eq!(look(&scene, &spec).counts.files, 50);
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        let longest = opens.join().expect("it ends");
        assert!(longest < Duration::from_secs(5), "{longest:?}");
    });
}
