//! Words that fit their number, for sentences that people read.

use std::fmt::Display;

/// A number with its noun, and what else follows the number: `1 file`, `12 files`, `0 files`.
pub fn count<N: Display + PartialEq + From<u8>>(number: N, one: &str, many: &str) -> String {
    let noun = if number == N::from(1) { one } else { many };
    format!("{number} {noun}")
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn one_alone_has_the_singular() {
        let shown = [0, 1, 2, 11, 21, u64::MAX].map(|number| count(number, "entry is", "entries are"));
        let expected = ["0 entries are", "1 entry is", "2 entries are", "11 entries are", "21 entries are"];
        assert_eq!(shown[..5], expected);
        assert_eq!(shown[5], format!("{} entries are", u64::MAX));
        assert_eq!(count(1_usize, "file", "files"), "1 file");
    }
}
