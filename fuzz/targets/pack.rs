//! A pack as a peer sends it. What is taken for a head is written again byte for byte; whatever comes
//! behind it and in whatever pieces, no chunk is handed out that is not what its id names, and no more
//! than the head says. What we pack ourselves is read again.
#![no_main]

use bytes::Bytes;
use cortex_core::files::content::ContentId;
use cortex_content::pack::{Added, PackHead, PackWriter};
use cortex_content::unpack::{TailCheck, Unpack};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((piece, bytes)) = input.split_first() else { return };
    let piece = usize::from(*piece) + 1;
    if let Ok(Some((head, len))) = PackHead::read(bytes) {
        assert_eq!(head.to_bytes(), bytes[..len]);
        let plain: u64 = head.chunks().iter().map(|chunk| u64::from(chunk.len)).sum();
        assert_eq!(plain, u64::from(head.plain_len()));
        let taken = unpack(&head, &bytes[len..], piece);
        let mut check = TailCheck::new(head).expect("memory");
        let pushed = bytes[len..].chunks(piece).all(|piece| check.push(Bytes::copy_from_slice(piece)).is_ok());
        assert!(!taken || pushed && check.finish().is_ok(), "what was unpacked is as it was written");
    }
    let mut writer = PackWriter::new(1);
    for chunk in bytes.chunks(piece * 7) {
        let id = ContentId::of(chunk);
        assert!(matches!(writer.add(id, chunk), Added::Yes | Added::Already));
    }
    let Some(pack) = writer.finish() else { return };
    assert_eq!(PackHead::read(&pack.head.to_bytes()), Ok(Some((pack.head.clone(), pack.head.head_len()))));
    assert!(unpack(&pack.head, &pack.tail, piece));
});

/// Whether all of it was there and right.
fn unpack(head: &PackHead, tail: &[u8], piece: usize) -> bool {
    let mut unpack = Unpack::new(head.clone()).expect("memory");
    let mut rows = head.chunks().iter();
    for piece in tail.chunks(piece) {
        if unpack.push(Bytes::copy_from_slice(piece)).is_err() {
            return false;
        }
        while let Ok(Some((id, bytes))) = unpack.next_chunk() {
            let row = rows.next().expect("no more chunks than the head names");
            assert_eq!((row.id, row.len as usize), (id, bytes.len()));
            assert_eq!(ContentId::of(bytes), id);
        }
    }
    unpack.finish().is_ok()
}
