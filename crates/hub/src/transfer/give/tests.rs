//! What a node may ask for: its trees, and no more of them than it may have open.

use super::super::played::{Folder, fetch, file, files, pair, store};
use super::*;
use crate::transfer::merge;
use cortex_core::files::path::RelPath;

fn tree(hub: &Chunks, pin: &cortex_store::blobs::Pin, entries: &[(&str, &[u8])]) -> TreeId {
    let edits = entries
        .iter()
        .map(|(path, content)| (RelPath::parse(path).expect("a path"), Some(file(hub, content, pin))));
    let empty = merge::empty(hub, pin).expect("written");
    merge::edited(hub, empty, edits.collect(), pin)
}

#[tokio::test]
async fn a_node_gets_the_whole_tree_and_nothing_that_lies_in_no_tree_of_the_transfer() {
    let (hub, folder) = (store(), Folder::new());
    let pin = hub.pin().expect("a pin");
    let mut long = vec![0; 5 << 20];
    blake3::Hasher::new().update(b"long").finalize_xof().fill(&mut long);
    let root = tree(&hub, &pin, &[("a/b", b"one"), ("طويل", &long), ("e", b"")]);
    let secret = tree(&hub, &pin, &[("secret", b"of another workspace")]);
    let (stream, mut clerk) = pair();
    let serving = tokio::spawn({
        let hub = hub.clone();
        async move { serve(&hub, vec![root], stream, |_| ()).await }
    });
    let came = fetch(&folder.chunks, &mut clerk, root, &folder.pin).await.expect("it came");
    assert!(came > 5);
    *folder.tree.lock().expect("no panic") = root;
    assert_eq!(folder.files(), files(&hub, root));
    for id in [ContentId::of(b"of another workspace"), secret.into(), ContentId::of(b"nobody has it")] {
        assert!(clerk.say(Carry::Wants(vec![id])).await);
        assert_eq!(clerk.hear().await, Some(Ok(Carry::Missing(vec![id]))));
    }
    assert!(clerk.say(Carry::End(Box::default())).await);
    assert_eq!(serving.await.expect("no panic"), Ok(Box::default()));
}

#[tokio::test]
async fn who_asks_for_more_than_it_may_have_open_is_refused() {
    let hub = store();
    let pin = hub.pin().expect("a pin");
    let root = tree(&hub, &pin, &[("a", b"one")]);
    let (stream, clerk) = pair();
    let serving = tokio::spawn(async move { serve(&hub, vec![root], stream, |_| ()).await });
    let ids: Vec<ContentId> = (0..WANTS_MAX as u32).map(|n| ContentId::of(&n.to_le_bytes())).collect();
    while clerk.say(Carry::Wants(ids.clone())).await {}
    let refused = serving.await.expect("no panic").expect_err("too much, or gone");
    assert!(matches!(refused.code, Code::TooLarge | Code::Timeout | Code::NodeOffline), "{refused:?}");
}
