//! The path of a file as a caller or a tree writes it: both kinds of path have one verdict, and what is
//! taken leads nowhere but down, as it is and decoded.
#![no_main]

use cortex_core::files::names::{fold_key, refuse_windows};
use cortex_core::files::path::{FilePath, RelPath};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let absolute = FilePath::parse(&format!("/{text}"));
    let relative = RelPath::parse(text);
    // At their bounds a path with its slash is one byte longer, and nothing below `/` is the root.
    if !text.is_empty() && text.len() < 4_096 {
        assert_eq!(absolute.is_ok(), relative.is_ok());
    }
    let (Ok(absolute), Ok(relative)) = (absolute, relative) else { return };
    assert_eq!(absolute.below("/"), Some(relative.as_str()));
    assert!(relative.parts().all(|part| !part.is_empty() && part != "." && part != ".." && !part.contains('\\')));
    assert_eq!(relative.parts().collect::<Vec<_>>().join("/"), text);
    assert_eq!(relative.parts().try_fold(RelPath::root(), |folder, part| folder.join(part)), Ok(relative.clone()));
    let parent = relative.parent().expect("it is not the root");
    assert!(parent < relative && relative.below(&parent) == Some(relative.name()));
    for part in relative.parts() {
        let _ = refuse_windows(part);
        assert_eq!(fold_key(&fold_key(part.as_bytes())), fold_key(part.as_bytes()));
    }
});
