//! Names that are fine here and something else there: on Windows, or where a disk tells no large letter
//! from a small one.

use crate::error::{Code, Refusal};
use crate::name::printable;

/// Names of devices on Windows, with any ending: `nul.txt` is the device too.
const DEVICES: &[&str] = &["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$", "CLOCK$"];

/// Refuses `bad_path` a single name that Windows cannot keep, or takes for something else: a device,
/// a stream (`a:stream`), a name that it would shorten (it drops dots and blanks at the end), and the
/// characters that it reserves (ABUSE 51). Whoever calls it knows that such a machine is a member.
pub fn refuse_windows(part: &str) -> Result<(), Refusal> {
    let refuse = |what: &str| {
        let message = format!("The name `{}` {what}, and a Windows node is a member.", printable(part, 200));
        Err(Refusal::new(Code::BadPath, message)
            .hint("Use another name, or leave the path out with `.cortexignore`."))
    };
    if part.chars().any(|c| c.is_control() || "<>:\"/\\|?*".contains(c)) {
        return refuse("has a character that Windows reserves");
    }
    if part.ends_with(['.', ' ']) {
        return refuse("ends with a dot or blank, which Windows drops");
    }
    if is_device(part) {
        return refuse("is a device on Windows");
    }
    Ok(())
}

fn is_device(part: &str) -> bool {
    let stem = part.split('.').next().unwrap_or_default().trim_end_matches(' ').to_uppercase();
    let port = stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT"));
    let mut digits = port.unwrap_or_default().chars();
    let is_port = matches!((digits.next(), digits.next()), (Some('0'..='9' | '¹' | '²' | '³'), None));
    is_port || DEVICES.contains(&stem.as_str())
}

/// A key that two names share when a disk that ignores case may take them for one. It joins too many
/// rather than too few (`ß` and `ss`, `ſ` and `s`): what comes of it is a report and never a change. Bytes
/// that are no UTF-8 stay. Forms of one letter (`é` as one character or as two) have different keys.
pub fn fold_key(part: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(part.len());
    for chunk in part.utf8_chunks() {
        // Twice: the large `ẞ` is `ss` only after it was `ß`.
        let folded = chunk.valid().chars().flat_map(folded).flat_map(folded);
        let mut buffer = [0; 4];
        for c in folded {
            key.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
        }
        key.extend_from_slice(chunk.invalid());
    }
    key
}

fn folded(c: char) -> impl Iterator<Item = char> {
    c.to_uppercase().flat_map(char::to_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a51_windows_names_are_refused_where_a_windows_node_is_a_member() {
        for name in [
            "CON",
            "con",
            "Con.txt",
            "con.tar.gz",
            "nul",
            "NUL .txt",
            "AUX",
            "prn",
            "COM1",
            "com9.log",
            "LPT0",
            "LPT¹",
            "CONIN$",
            "conout$",
            "a:stream",
            "C:",
            "a.",
            "a ",
            "...",
            "a. .",
            " ",
            "a<b",
            "a>b",
            "a\"b",
            "a|b",
            "a?b",
            "a*b",
            "a\\b",
            "a\tb",
        ] {
            let refusal = refuse_windows(name).expect_err(name);
            assert_eq!(refusal.code, Code::BadPath, "{name:?}");
            assert!(refusal.message.contains("Windows"), "{}", refusal.message);
        }
    }

    #[test]
    fn other_names_are_fine_on_windows_too() {
        for name in [
            "a",
            ".a",
            "a.b",
            "console",
            "con1",
            "com",
            "com10",
            "COM1x",
            "lpt",
            "null",
            "xCON",
            "a b",
            " a",
            "ملف",
            "文件",
            "…",
            "100%",
            "$x",
            "a;b,c=[d]",
            "~",
            "-",
        ] {
            assert_eq!(refuse_windows(name), Ok(()), "{name:?}");
        }
    }

    #[test]
    fn names_that_differ_by_case_have_one_key() {
        for (one, other) in [
            ("README", "readme"),
            ("Straße", "STRASSE"),
            ("STRAẞE", "strasse"),
            ("ΣΑΣ", "σας"),
            ("Жук", "жУК"),
            ("ŐSZ", "ősz"),
            ("K", "\u{212a}"),
            ("ǅ", "ǆ"),
        ] {
            assert_eq!(fold_key(one.as_bytes()), fold_key(other.as_bytes()), "{one} {other}");
        }
        for (one, other) in [("a", "b"), ("a", "á"), ("ملف", "ملفّ"), ("a_b", "a-b"), ("", "a")] {
            assert_ne!(fold_key(one.as_bytes()), fold_key(other.as_bytes()), "{one} {other}");
        }
        assert_eq!(fold_key(b"A\xff\xfeB"), b"a\xff\xfeb");
    }

    #[test]
    fn the_key_of_a_key_is_the_key() {
        for c in '\0'..=char::MAX {
            let key = fold_key(c.to_string().as_bytes());
            assert_eq!(fold_key(&key), key, "{c:?}");
        }
    }
}
