//! An invite as somebody pastes it: it is read to the very text that it came from, or refused.
#![no_main]

use cortex_core::invite::InviteText;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(invite) = InviteText::parse(text) {
        let again = InviteText::parse(&invite.reveal()).expect("what was read is written so that it is read");
        assert_eq!(again.reveal(), invite.reveal());
    }
});
