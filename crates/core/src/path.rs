//! Absolute paths as text: compared by their parts, never by looking at a disk.

use crate::error::{Code, Refusal};
use crate::limits::PATH_BYTES_MAX;
use crate::name::printable;

/// The path without doubled or trailing slashes. Refused `invalid_argument`: one that is empty,
/// relative, longer than [`PATH_BYTES_MAX`], or that has a `.`, a `..` or a control character: what
/// it means would depend on the disk, or on who reads it.
pub fn normal(path: &str) -> Result<String, Refusal> {
    let refuse = |what: &str| {
        Err(Refusal::new(Code::InvalidArgument, format!("The path `{}` {what}.", printable(path, 200)))
            .hint("Give an absolute path without `.`, `..` and control characters."))
    };
    if path.len() > PATH_BYTES_MAX {
        return refuse("is too long");
    }
    if !path.starts_with('/') {
        return refuse("is not absolute");
    }
    if path.chars().any(char::is_control) {
        return refuse("has a control character");
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.iter().any(|part| matches!(*part, "." | "..")) {
        return refuse("has a `.` or `..`");
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Whether a normal path is `root` or lies below it.
pub fn within(path: &str, root: &str) -> bool {
    match path.strip_prefix(root) {
        Some(rest) => rest.is_empty() || rest.starts_with('/') || root == "/",
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_normal_path_is_absolute_and_means_one_thing() {
        for (path, normalised) in
            [("/", "/"), ("/a", "/a"), ("//a///b/", "/a/b"), ("/a/...", "/a/..."), ("/ب/ж", "/ب/ж")]
        {
            assert_eq!(normal(path).as_deref(), Ok(normalised), "{path}");
        }
        let long = format!("/{}", "a".repeat(PATH_BYTES_MAX));
        for path in ["", "a", "./a", "/a/./b", "/a/../b", "/..", "/a\0b", "/a\nb", "~/a", long.as_str()] {
            assert_eq!(normal(path).map_err(|refusal| refusal.code), Err(Code::InvalidArgument), "{path:?}");
        }
    }

    #[test]
    fn what_only_begins_alike_is_not_within() {
        for (path, root, is) in [
            ("/a/b", "/a", true),
            ("/a", "/a", true),
            ("/ab", "/a", false),
            ("/a", "/a/b", false),
            ("/a", "/", true),
            ("/", "/", true),
        ] {
            assert_eq!(within(path, root), is, "{path} {root}");
        }
    }
}
