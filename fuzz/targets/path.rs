//! A path as a caller writes it: what is taken is absolute, says nothing that depends on a disk, and
//! is normal already when it is taken a second time.
#![no_main]

use cortex_core::path::{normal, within};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(path) = normal(text) else { return };
    assert_eq!(normal(&path).as_ref(), Ok(&path));
    assert!(path.starts_with('/') && !path.contains("//") && !path.contains('\0'));
    assert!(path.split('/').all(|part| part != "." && part != ".."));
    assert!(path == "/" || !path.ends_with('/'));
    assert!(within(&path, "/") && within(&path, &path));
    let below = format!("{}/x", path.trim_end_matches('/'));
    assert!(within(&below, &path) && !within(&path, &below));
});
