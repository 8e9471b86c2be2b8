//! What a nursery is told of its room and a guard of its run, and what they answer: whatever the bytes
//! are, they become a message that is the same when it was written and read again, or none.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| cortex_node::fuzzing::read(bytes));
