//! The only place of xtask that prints: results on stdout, talk on stderr.

/// Prints a result.
#[expect(clippy::print_stdout, reason = "the one place for results")]
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// Prints what is going on.
#[expect(clippy::print_stderr, reason = "the one place for talk")]
pub(crate) fn note(text: &str) {
    eprintln!("{text}");
}
