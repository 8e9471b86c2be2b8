//! What to run, and the bounds of it.

use crate::error::{Code, Refusal};
use crate::limits;

/// What to run, as the caller gave it and as it was checked by [`RunSpec::check`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunSpec {
    /// Program and arguments. No shell sees them.
    pub argv: Vec<String>,
    /// Working directory on the node; its home directory when not given.
    pub cwd: Option<String>,
    /// Variables to set beside the node's minimal environment.
    pub env: Vec<(String, String)>,
    /// Time after which the run is ended, milliseconds.
    pub timeout_ms: Option<u64>,
    /// Whether standard input will be sent; otherwise it is empty.
    pub stdin: bool,
}

impl RunSpec {
    /// Checks lengths, counts and bytes that no program could be given.
    pub fn check(&self) -> Result<(), Refusal> {
        let invalid = |message: &str| Err(Refusal::new(Code::InvalidArgument, message));
        let too_large = |what: &str, max: usize| {
            Err(Refusal::new(Code::TooLarge, format!("{what}; the bound is {max}.")))
        };
        let Some(program) = self.argv.first() else {
            return invalid("The command is empty: argv needs at least the program.");
        };
        if program.is_empty() {
            return invalid("The program's name is empty.");
        }
        if self.argv.len() > limits::ARGV_MAX {
            return too_large("The command has too many arguments", limits::ARGV_MAX);
        }
        if self.argv.iter().map(|arg| arg.len() + 1).sum::<usize>() > limits::ARGV_BYTES_MAX {
            return too_large("The command's arguments are too long together", limits::ARGV_BYTES_MAX);
        }
        if self.env.len() > limits::ENV_MAX {
            return too_large("Too many environment variables", limits::ENV_MAX);
        }
        if self.env.iter().map(|(k, v)| k.len() + v.len() + 2).sum::<usize>() > limits::ENV_BYTES_MAX {
            return too_large("The environment variables are too long together", limits::ENV_BYTES_MAX);
        }
        if self.cwd.as_ref().is_some_and(|cwd| cwd.len() > limits::PATH_BYTES_MAX) {
            return too_large("The working directory's path is too long", limits::PATH_BYTES_MAX);
        }
        if self.cwd.as_ref().is_some_and(|cwd| !cwd.starts_with('/')) {
            return invalid("The working directory must be an absolute path.");
        }
        let texts = self.argv.iter().chain(self.cwd.iter()).chain(self.env.iter().flat_map(|(k, v)| [k, v]));
        if texts.into_iter().any(|text| text.contains('\0')) {
            return invalid(
                "An argument, variable or path contains a NUL byte, which no program can be given.",
            );
        }
        if self.env.iter().any(|(name, _)| name.is_empty() || name.contains('=')) {
            return invalid("An environment variable's name is empty or contains `=`.");
        }
        if self.timeout_ms.is_some_and(|ms| ms == 0 || ms > limits::RUN_TIMEOUT_MS_MAX) {
            return invalid("The timeout must be above 0 and at most 30 days.");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(change: impl FnOnce(&mut RunSpec)) -> Result<(), Code> {
        let mut spec = RunSpec { argv: vec!["echo".into()], ..RunSpec::default() };
        change(&mut spec);
        spec.check().map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_command_at_its_bounds_is_taken_and_beyond_refused() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let bytes = |count: usize| "x".repeat(count);
        let (large, bad) = (Err(Code::TooLarge), Err(Code::InvalidArgument));
        assert_eq!(spec(|s| s.argv = vec!["a".into(); limits::ARGV_MAX]), Ok(()));
        assert_eq!(spec(|s| s.argv = vec!["a".into(); limits::ARGV_MAX + 1]), large);
        assert_eq!(spec(|s| s.argv = vec!["a".into(), bytes(limits::ARGV_BYTES_MAX - 3)]), Ok(()));
        assert_eq!(spec(|s| s.argv = vec!["a".into(), bytes(limits::ARGV_BYTES_MAX - 2)]), large);
        assert_eq!(spec(|s| s.env = vec![pair("a", ""); limits::ENV_MAX]), Ok(()));
        assert_eq!(spec(|s| s.env = vec![pair("a", ""); limits::ENV_MAX + 1]), large);
        assert_eq!(spec(|s| s.env = vec![pair("a", &bytes(limits::ENV_BYTES_MAX - 3))]), Ok(()));
        assert_eq!(spec(|s| s.env = vec![pair("a", &bytes(limits::ENV_BYTES_MAX - 2))]), large);
        assert_eq!(spec(|s| s.cwd = Some(format!("/{}", bytes(limits::PATH_BYTES_MAX - 1)))), Ok(()));
        assert_eq!(spec(|s| s.cwd = Some(format!("/{}", bytes(limits::PATH_BYTES_MAX)))), large);
        assert_eq!(spec(|s| s.timeout_ms = Some(limits::RUN_TIMEOUT_MS_MAX)), Ok(()));
        assert_eq!(spec(|s| s.timeout_ms = Some(limits::RUN_TIMEOUT_MS_MAX + 1)), bad);
        assert_eq!(spec(|s| s.timeout_ms = Some(0)), bad);
        assert_eq!(spec(|s| s.argv.clear()), bad);
        assert_eq!(spec(|s| s.argv = vec![String::new()]), bad);
        assert_eq!(spec(|s| s.argv.push("a\0b".into())), bad);
        assert_eq!(spec(|s| s.cwd = Some("tmp".into())), bad);
        assert_eq!(spec(|s| s.cwd = Some("/a\0".into())), bad);
        assert_eq!(spec(|s| s.env = vec![pair("", "x")]), bad);
        assert_eq!(spec(|s| s.env = vec![pair("A=B", "x")]), bad);
        assert_eq!(spec(|s| s.env = vec![pair("A", "x\0")]), bad);
    }
}
