//! Objects of trees as a peer sends them. What is read is written again byte for byte, keeps its quota,
//! and is the one form of its entries: the object that would be written for them.
#![no_main]

use std::collections::BTreeMap;

use bytes::Bytes;
use cortex_core::files::content::ContentId;
use cortex_content::graph::{GraphCheck, TreeQuota};
use cortex_content::object::{Node, Object, read_object, write_object};
use cortex_content::tree::write_dir;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let bytes = Bytes::copy_from_slice(input);
    let Ok(object) = read_object(&bytes) else { return };
    assert_eq!(write_object(&object), bytes);
    let mut objects = BTreeMap::from([(ContentId::of(&bytes), bytes.clone())]);
    let quota = TreeQuota { entries: 1_000, bytes: 1 << 32, depth: 9 };
    let mut check = GraphCheck::new(ContentId::of(&bytes).into(), quota);
    for id in check.wanted(9) {
        if check.feed(id, &bytes).is_ok() {
            let totals = check.totals().expect("the first object was fed");
            assert!(totals.entries <= quota.entries && totals.bytes <= quota.bytes && totals.depth <= quota.depth);
        }
    }
    let Object::Dir(entries) = object else { return };
    // One that stands alone is the one that would be written for its entries.
    let mut put = |id, bytes| drop(objects.insert(id, bytes));
    let (id, totals) = write_dir(entries.iter().rev().cloned().collect(), &mut put).expect("what was read");
    assert_eq!(id, ContentId::of(&bytes).into());
    assert!(totals.entries as usize >= entries.len());
    assert!(entries.windows(2).all(|pair| pair[0].name < pair[1].name));
    for entry in &entries {
        assert!(!entry.name.contains(&b'/') && !entry.name.contains(&0));
        assert!(!matches!(&entry.name[..], b"" | b"." | b".."));
        assert!(!matches!(&entry.node, Node::File(file) if file.size > 1 << 40));
    }
});
