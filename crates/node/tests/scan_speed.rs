//! How long it takes to read a folder as a tree. Figures, no verdict: run it by hand, built for release.

use std::path::Path;
use std::time::Instant;

use cortex_core::files::content::ContentId;
use cortex_node::local::{LocalSpec, LocalTree};

/// Folders, and files in each, of about 12 KB.
const FOLDERS: u32 = 1_000;
const FILES: u32 = 20;

fn fill(root: &Path) {
    let mut state = 7_u64;
    for folder in 0..FOLDERS {
        let path = root.join(format!("d{}/e{folder}", folder % 30));
        std::fs::create_dir_all(&path).expect("made");
        for file in 0..FILES {
            let mut text = String::new();
            while text.len() < 12_000 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push_str(&format!("let value_{} = {};\n", state >> 50, state >> 40));
            }
            std::fs::write(path.join(format!("file{file}.rs")), text).expect("written");
        }
    }
}

#[expect(clippy::print_stdout, reason = "figures are what it is for")]
fn timed<T>(what: &str, act: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = act();
    println!("{what}: {:.1} ms", begun.elapsed().as_secs_f64() * 1_000.0);
    done
}

#[test]
#[ignore = "figures"]
fn figures_of_a_tree_of_20_000_files_and_of_a_file_of_1_gib() {
    let place = std::env::var_os("CORTEX_SCAN_AT").unwrap_or_else(|| "/dev/shm".into());
    let folder = tempfile::tempdir_in(place).expect("a folder");
    let (tree, cache) = (folder.path().join("tree"), folder.path().join("cache"));
    fill(&tree);
    let plain = LocalSpec::default();
    let spec = LocalSpec { ignore_files: true, ..LocalSpec::default() };
    for _ in 0..3 {
        drop(timed("20,000 files, nothing known", || LocalTree::open(&tree, &plain, None).expect("read")));
    }
    let first = timed("20,000 files, nothing known, kept", || {
        LocalTree::open(&tree, &spec, Some(&cache)).expect("read")
    });
    for _ in 0..5 {
        let again =
            timed("20,000 files, known", || LocalTree::open(&tree, &spec, Some(&cache)).expect("read"));
        assert_eq!((again.root(), again.notes().hashed), (first.root(), 0));
    }
    println!("cache: {} bytes", std::fs::metadata(&cache).expect("kept").len());
    let big = folder.path().join("big");
    std::fs::create_dir(&big).expect("made");
    let mut state = 1_u64;
    let piece: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(1 << 26)
    .collect();
    let mut file = std::fs::File::create(big.join("big")).expect("made");
    for number in 0..16_u64 {
        std::io::Write::write_all(&mut file, &number.to_le_bytes()).expect("written");
        std::io::Write::write_all(&mut file, &piece).expect("written");
    }
    drop(file);
    let mut tree =
        timed("1 GiB, nothing known", || LocalTree::open(&big, &plain, Some(&cache)).expect("read"));
    assert_eq!(tree.read(&ContentId::of(b"other")).expect("no failure"), None);
    drop(timed("1 GiB, known", || LocalTree::open(&big, &plain, Some(&cache)).expect("read")));
}
