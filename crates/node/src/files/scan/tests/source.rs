//! What a receiver asks for comes out of the folder, verified.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

/// Bytes in which nothing repeats.
fn noise(len: usize) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"noise");
    let mut bytes = vec![0; len];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// Chunks of a file in their order.
fn chunks(scanned: &Scanned, path: &str) -> Vec<(ContentId, u32)> {
    let found = file(scanned, path);
    let Some(map) = found.map else { return vec![(found.id, found.size as u32)] };
    match read_object(scanned.objects.get(&map).expect("there")).expect("an object") {
        Object::Map(chunks) => chunks.iter().map(|chunk| (chunk.id, chunk.len)).collect(),
        other @ (Object::Dir(_) | Object::DirIndex { .. } | Object::MapIndex { .. }) => panic!("{other:?}"),
    }
}

fn read(source: &mut Source<'_>, id: &ContentId) -> Option<Vec<u8>> {
    let mut room = vec![0; source.len_of(id).unwrap_or_default() as usize];
    source.read_into(id, &mut room).expect("no failure").then_some(room)
}

#[test]
fn a_source_gives_every_object_and_every_chunk_of_what_was_scanned() {
    let scene = Scene::new();
    let big = noise(3_000_000);
    scene.write("د/كبير", &big);
    scene.write("د/صغير", "small");
    scene.write("empty", "");
    let scanned = look(&scene, &PLAIN());
    let dir = open(&scene);
    let mut source = Source::new(&dir, &scanned).expect("built");
    for (id, object) in scanned.objects.iter() {
        assert_eq!(read(&mut source, id).as_deref(), Some(&object[..]));
        let mut longer = vec![0; object.len() + 1];
        assert_eq!(source.read_into(id, &mut longer), Ok(false), "nothing is given in part");
        assert_eq!(source.len_of(id), Some(object.len() as u32));
    }
    let mut whole = Vec::new();
    for (id, len) in chunks(&scanned, "د/كبير") {
        assert_eq!(source.len_of(&id), Some(len));
        whole.extend_from_slice(&read(&mut source, &id).expect("there"));
    }
    assert_eq!(whole, big);
    assert_eq!(read(&mut source, &ContentId::of(b"small")).as_deref(), Some(&b"small"[..]));
    for unknown in [ContentId::of(b"other"), ContentId::of(b"")] {
        assert_eq!((read(&mut source, &unknown), source.len_of(&unknown)), (None, None));
    }
}

#[test]
fn what_changed_or_went_away_since_is_not_given_and_another_place_of_it_is() {
    let scene = Scene::new();
    scene.write("a", "same");
    scene.write("z/b", "same");
    scene.write("gone", "gone");
    scene.write("changed", "before");
    fs::write(scene.outside("secret"), "linked").expect("written");
    scene.write("linked", "linked");
    let scanned = look(&scene, &PLAIN());
    scene.write("changed", "behind");
    scene.write("a", "other");
    fs::remove_file(scene.disk("gone")).expect("removed");
    fs::remove_file(scene.disk("linked")).expect("removed");
    symlink(scene.outside("secret"), scene.disk("linked")).expect("made");
    let dir = open(&scene);
    let mut source = Source::new(&dir, &scanned).expect("built");
    let mut read = |text: &str| read(&mut source, &ContentId::of(text.as_bytes()));
    assert_eq!((read("gone"), read("before"), read("behind")), (None, None, None));
    assert_eq!(read("linked"), None, "nothing is read through a link");
    assert_eq!(read("same").as_deref(), Some(&b"same"[..]));
    fs::remove_file(scene.disk("z/b")).expect("removed");
    nix::unistd::mkfifo(&scene.disk("z/b"), nix::sys::stat::Mode::S_IRWXU).expect("made");
    assert_eq!(read("same"), None, "and nobody waits for a pipe");
}
