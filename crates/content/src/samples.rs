//! Bytes for tests that are the same on every machine and in every year.

/// So many bytes in which nothing repeats (splitmix64).
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// So many bytes of lines as sources have them: they shrink to about a quarter.
pub(super) fn text(seed: u64, len: usize) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "let ",
        "mut ",
        "value",
        "self.",
        "state",
        "(",
        ")",
        " = ",
        "match ",
        "Some(",
        "None",
        "\n    ",
        ";\n",
        "return ",
        "مرحبا ",
        "// why\n",
    ];
    let mut bytes = Vec::with_capacity(len + 16);
    for choice in noise(seed, len) {
        if bytes.len() >= len {
            break;
        }
        bytes.extend_from_slice(WORDS[usize::from(choice) % WORDS.len()].as_bytes());
        if choice > 240 {
            bytes.extend_from_slice(choice.to_string().as_bytes());
        }
    }
    bytes.truncate(len);
    bytes
}
