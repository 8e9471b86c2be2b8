//! How long it takes; run by hand, on a release build and a folder in memory:
//! `TMPDIR=/dev/shm cargo test --release -p cortex-node --lib speed -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use cortex_content::object::{FileNode, Node};
use cortex_content::pack::ChunkRef;
use cortex_core::files::content::ContentId;

use super::super::*;
use super::support::{Folder, Made, NEXT, PUSH, Shop, ask, noise, run};
use crate::files::seam::Plain;
use nix::sys::resource::{UsageWho, getrusage};

/// Time on the wall and on the processor, the kernel's in it.
struct Watch(Instant, Duration);

impl Watch {
    fn start() -> Self {
        Self(Instant::now(), cpu())
    }

    fn told(&self) -> String {
        format!("{:?}, {:?} of the processor", self.0.elapsed(), cpu().saturating_sub(self.1))
    }
}

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("it is told");
    let time = |time: nix::sys::time::TimeVal| {
        Duration::new(time.tv_sec().unsigned_abs(), time.tv_usec().unsigned_abs() as u32 * 1_000)
    };
    time(usage.user_time()) + time(usage.system_time())
}

/// The chunks of a tree in the order in which a receiver asks for them.
fn order(made: &Made) -> Vec<ContentId> {
    let store = Store { local: &made.scanned.objects, came: Objects::default() };
    let mut ids = Vec::new();
    below(&store, made.root(), &mut ids);
    ids
}

fn below(store: &Store<'_>, tree: TreeId, ids: &mut Vec<ContentId>) {
    for entry in store.dir(tree).expect("a folder") {
        match entry.node {
            Node::Dir { id, .. } => below(store, id, ids),
            Node::File(FileNode { map: Some(map), .. }) => {
                let mut push = |chunk: ChunkRef| {
                    ids.push(chunk.id);
                    Ok(())
                };
                store.chunks(&map, &mut push).expect("a map");
            }
            Node::File(FileNode { id, size, .. }) if size > 0 => ids.push(id),
            Node::File(_) | Node::Link { .. } => {}
        }
    }
}

/// Lines as sources have them, so that packs shrink.
fn lines(seed: u64, len: usize) -> Vec<u8> {
    let words =
        ["let ", "value", " = ", "self.", "match ", "Some(", ")", ";\n", "return ", "state", "// why\n"];
    let mut bytes = Vec::with_capacity(len + 8);
    for byte in noise(seed, len) {
        if bytes.len() >= len {
            break;
        }
        bytes.extend_from_slice(words[usize::from(byte) % words.len()].as_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[test]
#[ignore = "it measures, and says nothing about right and wrong"]
fn speed_of_twenty_thousand_files_and_of_one_that_is_long() {
    let from = Folder::new();
    for number in 0..20_000_u64 {
        let len = 2_000 + (number * 7_919 % 20_000) as usize;
        from.write(&format!("d{:02}/e{:02}/f{number}.rs", number % 50, number / 50 % 50), lines(number, len));
    }
    let target = from.tree();
    let mut shop = Shop::of(&[&target]);
    let packing = shop.prepare(&order(&target));
    for round in 0..4 {
        let to = Folder::new();
        let local = to.tree();
        shop.rewind();
        let start = Watch::start();
        let applied = run(&to, &local, &ask(&target, PUSH), &mut shop, &Plain).expect("received");
        let took = start.told();
        println!(
            "{round}: first push of {} files, {} bytes: {took} (packing them takes {packing:?} elsewhere)",
            applied.files, applied.bytes
        );
        if round == 3 {
            assert_eq!(to.tree().root(), target.root());
            let base = to.tree();
            for number in (0..20_000_u64).step_by(100) {
                from.write(
                    &format!("d{:02}/e{:02}/f{number}.rs", number % 50, number / 50 % 50),
                    lines(number + 1, 5_000),
                );
            }
            let target = from.tree();
            let mut shop = Shop::of(&[&target, &base]);
            shop.prepare(&order(&target));
            let asked = Ask { base: Some(base.root()), ..ask(&target, NEXT) };
            let start = Watch::start();
            let applied = run(&to, &base, &asked, &mut shop, &Plain).expect("received");
            println!("1 % changed, {} files: {}", applied.files, start.told());
        }
    }
    let from = Folder::new();
    let long = noise(1, 1 << 28);
    from.write("long", &long);
    let (target, to) = (from.tree(), Folder::new());
    let mut shop = Shop::of(&[&target]);
    shop.prepare(&order(&target));
    let local = to.tree();
    let start = Watch::start();
    run(&to, &local, &ask(&target, PUSH), &mut shop, &Plain).expect("received");
    println!("256 MiB of noise: {}", start.told());
    let mut longer = long;
    longer.splice(1 << 27..1 << 27, noise(2, 1 << 20));
    from.write("long", &longer);
    let (target, base) = (from.tree(), to.tree());
    let mut shop = Shop::of(&[&target, &base]);
    shop.prepare(&order(&target));
    let asked = Ask { base: Some(base.root()), ..ask(&target, NEXT) };
    let start = Watch::start();
    let applied = run(&to, &base, &asked, &mut shop, &Plain).expect("received");
    println!("1 MiB put into it: {}, {} bytes fetched", start.told(), applied.fetched);
}
