//! Patterns for names, as `.gitignore` has them: those of a caller, and those that folders bring along.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use cortex_core::error::{Code, Refusal};
use cortex_core::files::op::Glob;
use cortex_core::name::printable;
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// Names of the files with patterns, the later one says the last word.
pub const FILES: [&[u8]; 2] = [b".gitignore", b".cortexignore"];
/// Bytes of one of them that is read; the patterns of a larger one do not count.
pub const BYTES_MAX: u64 = 256 * 1024;
/// What no search looks into unless it looks at what is ignored as well.
pub const GIT: &[u8] = b".git";

/// A pattern of a caller.
#[derive(Debug)]
pub struct Pattern(Gitignore);

impl Pattern {
    /// # Errors
    ///
    /// `invalid_argument` when it is none.
    pub fn new(glob: &Glob) -> Result<Self, Refusal> {
        let text = glob.as_str();
        // At the front these mean something in a file of patterns only.
        let line = if text.starts_with(['!', '#']) { format!("\\{text}") } else { text.to_owned() };
        let mut builder = GitignoreBuilder::new(".");
        builder.allow_unclosed_class(false);
        let built = builder.add_line(None, &line).map(|_| ()).and_then(|()| builder.build());
        match built {
            Ok(pattern) if !pattern.is_empty() => Ok(Self(pattern)),
            Ok(_) | Err(_) => {
                let shown = printable(text, 80);
                Err(Refusal::new(Code::InvalidArgument, format!("`{shown}` is no pattern for names."))
                    .hint("Use `*`, `?`, `**` and `[abc]`, with each bracket closed."))
            }
        }
    }

    /// Whether it is about the entry of this path, relative to the folder that is looked through.
    pub fn is_about(&self, path: &[u8], is_dir: bool) -> bool {
        self.0.matched(Path::new(OsStr::from_bytes(path)), is_dir).is_ignore()
    }
}

/// What the ignore files of a folder, and of those above it, leave out.
#[derive(Clone, Debug, Default)]
pub struct Ignored {
    /// Bytes of the path of the folder, with the slash behind it, and its patterns; outermost first.
    levels: Vec<(usize, Arc<Gitignore>)>,
}

impl Ignored {
    /// Takes in patterns that were read, the later text says the last word. Whether they could be.
    pub fn take(&mut self, texts: &[Vec<u8>], prefix: usize) -> bool {
        let mut builder = GitignoreBuilder::new(".");
        let mut has_any = false;
        for text in texts {
            let text = String::from_utf8_lossy(text);
            for line in text.trim_start_matches('\u{feff}').lines() {
                // A line that is no pattern says nothing; the others count.
                has_any |= builder.add_line(None, line).is_ok();
            }
        }
        if has_any {
            match builder.build() {
                Ok(patterns) if !patterns.is_empty() => self.levels.push((prefix, Arc::new(patterns))),
                Ok(_) => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// Forgets folders whose path is as long as `prefix`, or longer.
    pub fn leave(&mut self, prefix: usize) {
        while self.levels.last().is_some_and(|(of, _)| *of >= prefix) {
            self.levels.pop();
        }
    }

    /// Whether an entry is left out. `path` begins where the outermost folder's does.
    pub fn has(&self, path: &[u8], is_dir: bool) -> bool {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        name == GIT || self.says(path, is_dir) == Some(true)
    }

    /// Whether the patterns leave an entry out, or keep it; `None` when they say nothing of it.
    pub fn says(&self, path: &[u8], is_dir: bool) -> Option<bool> {
        self.levels.iter().rev().find_map(|(prefix, patterns)| {
            let path = path.get(*prefix..)?;
            match patterns.matched(Path::new(OsStr::from_bytes(path)), is_dir) {
                Match::Ignore(_) => Some(true),
                Match::Whitelist(_) => Some(false),
                Match::None => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_without_a_slash_is_about_the_name_and_with_one_about_the_path() {
        for (glob, path, is_dir, is) in [
            ("*.rs", "a.rs", false, true),
            ("*.rs", "src/deep/a.rs", false, true),
            ("*.rs", "a.rs.bak", false, false),
            ("src/*.rs", "src/a.rs", false, true),
            ("src/*.rs", "src/deep/a.rs", false, false),
            ("src/*.rs", "x/src/a.rs", false, false),
            ("src/**/*.rs", "src/deep/er/a.rs", false, true),
            ("**/a.rs", "src/a.rs", false, true),
            ("a?c", "abc", false, true),
            ("a?c", "a/c", false, false),
            ("[ab]", "b", false, true),
            ("ملف*", "dir/ملفات", false, true),
            ("build/", "build", true, true),
            ("build/", "build", false, false),
            ("!a", "!a", false, true),
            ("#a", "#a", false, true),
            ("A", "a", false, false),
        ] {
            let pattern = Pattern::new(&Glob::parse(glob).expect("text")).expect(glob);
            assert_eq!(pattern.is_about(path.as_bytes(), is_dir), is, "{glob} {path}");
        }
        let pattern = Pattern::new(&Glob::parse("caf?").expect("text")).expect("a pattern");
        assert!(pattern.is_about(b"caf\xe9", false), "names that are no UTF-8 as well");
        for glob in ["[a", "a**[", "/", "  "] {
            let refused = Pattern::new(&Glob::parse(glob).expect("text")).map(drop).map_err(|r| r.code);
            assert_eq!(refused, Err(Code::InvalidArgument), "{glob}");
        }
    }
}
