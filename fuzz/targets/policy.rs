//! Policies, documents and ceilings as text: whatever the bytes are, they are read or refused. What was
//! read may be set, and is the same after it was written and read again.
#![no_main]

use cortex_wire::policy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok((read, generation)) = policy::read(bytes) {
        assert_eq!(read.document.check(), Ok(()));
        let written = policy::write(&read, generation).expect("what was read may be written");
        assert_eq!(policy::read(&written).as_ref(), Ok(&(read, generation)));
    }
    if let Ok(document) = policy::read_document(bytes) {
        assert_eq!(document.check(), Ok(()));
        let written = policy::write_document(&document).expect("what was read may be written");
        assert_eq!(policy::read_document(&written).as_ref(), Ok(&document));
    }
    if let Ok(ceilings) = policy::read_ceilings(bytes) {
        assert!(ceilings.iter().all(|bounds| bounds.check().is_ok()));
    }
});
