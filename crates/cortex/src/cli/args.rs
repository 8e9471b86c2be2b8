//! Small parsers that several commands share.

use std::collections::BTreeMap;

use cortex_core::name::{Selector, check_label};

use crate::duration;
use crate::error::{Failure, Result};

/// `--ttl`, `--timeout`, `--for`: milliseconds.
pub(crate) fn span_ms(text: &str) -> std::result::Result<u64, String> {
    duration::parse(text).map(duration::ms)
}

/// `K=V`, with anything in V.
pub(crate) fn variable(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("write it as NAME=VALUE".to_owned()),
    }
}

/// `K=V` as a label.
pub(crate) fn label(text: &str) -> std::result::Result<(String, String), String> {
    let (key, value) = variable(text)?;
    check_label(&key, &value).map_err(|refusal| refusal.message)?;
    Ok((key, value))
}

/// A selector, checked here so that a mistake is found before anything is sent. One without a label
/// would mean every node; mostly it is a variable of a script that was not set.
pub(crate) fn selector(text: &str) -> std::result::Result<String, String> {
    let selector = Selector::parse(text).map_err(|refusal| refusal.message)?;
    if selector.is_all() {
        return Err("it has no label; write one such as role=ci".to_owned());
    }
    Ok(text.to_owned())
}

/// `NODE[,NODE]`, without doubles, in the order given.
pub(crate) fn nodes(text: &str) -> Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    if names.is_empty() {
        return Err(Failure::usage(
            "No node is named.",
            "Name one, such as `build-2`, or several: `build-1,build-2`.",
        ));
    }
    Ok(names)
}

/// A path on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The node, by name or id.
    pub(crate) node: String,
    /// The path, from the top of the node's disk. What it may hold is judged by the hub.
    pub(crate) path: String,
}

impl Place {
    /// The last part of the path.
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// As it was written, for commands that are shown.
    pub(crate) fn shown(&self) -> String {
        whole_argv(&[format!("{}:{}", self.node, self.path)])
    }
}

/// `NODE:PATH`. The first colon ends the name of the node, which has none; one `/` at the end of the path is
/// left out.
pub(crate) fn place(text: &str) -> Result<Place> {
    let shown = cortex_core::name::printable(text, 200);
    let (node, path) = match text.split_once(':') {
        Some((node, path)) if !node.is_empty() && !node.contains('/') => (node, path),
        Some(_) | None => {
            let example = if text.starts_with('/') { shown.as_str() } else { "/srv/app" };
            return Err(Failure::usage(
                format!("`{shown}` names no node."),
                format!(
                    "Write it as NODE:PATH, such as `build-2:{example}`; `cortex node ls` shows the names."
                ),
            ));
        }
    };
    if node.contains(',') {
        let one = node.split(',').find(|name| !name.trim().is_empty()).unwrap_or("build-2").trim();
        let again = whole_argv(&[format!("{one}:{path}")]);
        return Err(Failure::usage(
            format!("`{shown}` names several nodes; a command on files works on one."),
            format!(
                "Run it once for each node, first with {again}; `cortex push` copies to several at once."
            ),
        ));
    }
    if !path.starts_with('/') {
        return Err(Failure::usage(
            format!("The path of `{shown}` does not begin at the top of the node's disk."),
            format!(
                "Write the whole path, such as `{}:/srv/app`; a node has no current folder and no `~`.",
                cortex_core::name::printable(node, 64)
            ),
        ));
    }
    let path = path.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(path);
    Ok(Place { node: node.to_owned(), path: path.to_owned() })
}

/// Labels on one line.
pub(crate) fn show_labels(labels: &BTreeMap<String, String>) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Widest actor in a list.
pub(crate) const ACTOR_CHARS_MAX: usize = 20;

/// For a column; the record itself shows the whole.
pub(crate) fn short(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// How long ago an RFC 3339 moment was, for people; `-` when there is none.
pub(crate) fn age(moment: Option<&str>) -> String {
    let Some(then) = moment.and_then(|text| text.parse::<jiff::Timestamp>().ok()) else {
        return "-".to_owned();
    };
    let milliseconds = jiff::Timestamp::now().as_millisecond().saturating_sub(then.as_millisecond());
    let milliseconds = u64::try_from(milliseconds).unwrap_or(0);
    if milliseconds < 1000 {
        "now".to_owned()
    } else {
        format!("{} ago", duration::show(milliseconds / 1000 * 1000))
    }
}

/// A text that others wrote, with nothing that a terminal would obey; `-` when there is none.
pub(crate) fn or_dash(text: Option<&str>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| cortex_core::name::printable(text, usize::MAX))
}

/// A command line for lists: as [`whole_argv`], and long arguments are cut.
pub(crate) fn show_argv(argv: &[String]) -> String {
    shown_argv(argv, 200)
}

/// A command line for people to read: arguments with anything unusual in quotes. Nothing of it is left
/// out, since somebody may decide by it.
pub(crate) fn whole_argv(argv: &[String]) -> String {
    shown_argv(argv, usize::MAX)
}

fn shown_argv(argv: &[String], chars_max: usize) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    let shown = argv.iter().map(|argument| {
        if !argument.is_empty() && argument.len() <= chars_max && argument.chars().all(plain) {
            argument.clone()
        } else {
            format!("'{}'", cortex_core::name::printable(argument, chars_max).replace('\'', "'\\''"))
        }
    });
    shown.collect::<Vec<_>>().join(" ")
}

/// A number of bytes as people write it: `1024`, `500k`, `5M`, `1G`; units are powers of 1,024. `None` for what is
/// none, or beyond 64 bits.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let (digits, unit) = match text.bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'M') => (&text[..text.len() - 1], 1 << 20),
        Some(b'G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1_u64),
    };
    // A sign is no digit.
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_named_twice_is_one_node() {
        assert_eq!(nodes("a, b,a,").expect("names"), ["a", "b"]);
        assert_eq!(nodes(" , ").expect_err("no name").exit(), 2);
    }

    #[test]
    fn a_place_is_a_node_and_a_whole_path_with_anything_in_it() {
        let taken = |text: &str| place(text).map(|place| (place.node, place.path));
        for (text, node, path) in [
            ("a:/", "a", "/"),
            ("a:/x", "a", "/x"),
            ("a:/x/", "a", "/x"),
            ("a:/x//", "a", "/x/"),
            ("build-2:/srv/a b:c", "build-2", "/srv/a b:c"),
            ("a:/مجلد/ملف.txt", "a", "/مجلد/ملف.txt"),
        ] {
            assert_eq!(taken(text), Ok((node.to_owned(), path.to_owned())), "{text}");
        }
        for (text, hint) in [
            ("", "NODE:PATH"),
            ("a", "NODE:PATH"),
            ("/srv/x", "`build-2:/srv/x`"),
            ("/srv/x:y", "`build-2:/srv/x:y`"),
            (":/x", "NODE:PATH"),
            ("a,b:/x", "first with a:/x;"),
            ("a:", "`a:/srv/app`"),
            ("a:x", "`a:/srv/app`"),
            ("a:~/x", "no `~`"),
        ] {
            let failure = place(text).expect_err(text);
            assert_eq!(failure.exit(), 2, "{text}");
            assert!(format!("{failure:?}").contains(hint), "{text}: {failure:?}");
        }
    }

    #[test]
    fn a_selector_without_a_label_is_not_taken_for_all_nodes() {
        assert!(selector("role=ci").is_ok());
        for text in ["", " ", " , "] {
            assert!(selector(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_long_actor_is_cut_and_a_short_one_is_not() {
        assert_eq!([short("token:admin", 20), short("ééé", 2)], ["token:admin", "éé…"]);
    }

    #[test]
    fn a_command_is_shown_so_that_its_arguments_can_be_told_apart() {
        let argv = ["echo", "a b", "", "it's"].map(str::to_owned);
        assert_eq!(show_argv(&argv), "echo 'a b' '' 'it'\\''s'");
        assert_eq!(whole_argv(&argv), show_argv(&argv));
    }

    #[test]
    fn a_long_argument_is_cut_in_a_list_and_whole_where_somebody_decides_by_it() {
        let argv = [format!("{};id", " true;".repeat(100)), "x".repeat(900)];
        let (list, whole) = (show_argv(&argv), whole_argv(&argv));
        assert!(list.len() < 450 && list.matches('…').count() == 2, "{list}");
        assert!(whole.contains(";id'") && whole.ends_with(&argv[1]), "{whole}");
    }
}
