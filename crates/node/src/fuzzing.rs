//! What node, nursery and guard read of each other, for random bytes (`fuzz/targets/room.rs`). In builds
//! for that alone. Never here: anything that a node does.

use crate::run::protocol::{Launch, Order, REPORT_BYTES, Report};
use crate::sandbox::walls::{Room, answer, answered};

/// Reads a message of the kind that the first byte says. What is read is the same after it was written
/// and read again; a launch is written in one way only.
///
/// # Panics
///
/// When that is not so.
pub fn read(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    let framed = [&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes(), body].concat();
    match kind {
        0 => launch(&framed),
        1 => room(&framed),
        2 => told(&framed),
        3 => report(body),
        // With whatever length the bytes themselves say.
        _ => {
            launch(body);
            room(body);
            told(body);
        }
    }
}

fn launch(mut message: &[u8]) {
    let whole = message;
    if let Ok(read) = Launch::read_from(&mut message) {
        assert_eq!(read.to_bytes(), whole[..whole.len() - message.len()]);
    }
}

fn room(mut message: &[u8]) {
    if let Ok(read) = Room::read_from(&mut message) {
        let again = Room::read_from(&mut read.to_bytes().as_slice()).expect("it was written just now");
        assert_eq!(again, read);
    }
}

fn told(mut message: &[u8]) {
    if let Ok(read) = answered(&mut message) {
        let mut written = Vec::new();
        answer(&mut written, &read).expect("memory takes it");
        assert_eq!(answered(&mut written.as_slice()).expect("it was written just now"), read);
    }
}

fn report(body: &[u8]) {
    let order = body.first().and_then(|byte| Order::from_byte(*byte));
    assert_eq!(order.and_then(|order| Order::from_byte(order.to_byte())), order);
    if let Some(Ok(bytes)) = body.get(..REPORT_BYTES).map(<[u8; REPORT_BYTES]>::try_from) {
        let read = Report::from_bytes(bytes);
        assert_eq!(read.and_then(|read| Report::from_bytes(read.to_bytes())), read);
    }
}
