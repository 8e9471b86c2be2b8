//! Passwords from a file, from standard input, or from a terminal that does not show them. Never from
//! an argument, nor from the environment.

use std::io::{self, BufRead, IsTerminal, Read};

use cortex_core::limits::PASSWORD_BYTES_MAX;
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use crate::error::{Failure, Result};
use crate::output::Output;

/// Ctrl-C, which is a byte while it sends no signal.
const INTERRUPT: char = '\u{3}';

/// The password: what `file` holds without its last line break (`-` is standard input), or what is typed.
pub(crate) fn read(output: Output, file: Option<&str>, prompt: &str) -> Result<String> {
    let text = match file {
        Some("-") => bounded(io::stdin().lock()),
        Some(file) => std::fs::File::open(file).and_then(bounded),
        None => return typed(output, prompt),
    };
    let text = text.map_err(|error| {
        Failure::usage(
            format!("The password cannot be read: {error}."),
            "Give `--password-file` a file with the password alone, or `-` for standard input.",
        )
    })?;
    Ok(without_break(&text).to_owned())
}

/// A new password: as [`read`], and typed twice on a terminal. `None` when nothing was typed, or when there
/// is no terminal to ask on.
pub(crate) fn read_new(output: Output, file: Option<&str>) -> Result<Option<String>> {
    if file.is_some() {
        return read(output, file, "").map(Some);
    }
    if !on_terminal() {
        return Ok(None);
    }
    let first = typed(output, "New password (empty for none): ")?;
    if first.is_empty() {
        return Ok(None);
    }
    if typed(output, "Once more: ")? != first {
        return Err(Failure::usage("The two passwords are not the same.", "Type it again, twice alike."));
    }
    Ok(Some(first))
}

fn on_terminal() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

fn bounded(source: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    source.take(PASSWORD_BYTES_MAX as u64 + 3).read_to_end(&mut bytes)?;
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not text"))
}

fn without_break(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

fn typed(output: Output, prompt: &str) -> Result<String> {
    if !on_terminal() {
        return Err(Failure::usage(
            "There is no terminal to ask for the password on.",
            "Give `--password-file FILE`, or `--password-file -` for standard input.",
        ));
    }
    output.ask(prompt);
    let quiet = Quiet::begin();
    let mut line = String::new();
    let read = io::stdin().lock().take(PASSWORD_BYTES_MAX as u64 + 3).read_line(&mut line);
    drop(quiet);
    output.say("");
    let line = without_break(&line);
    if read.is_err() || line.contains(INTERRUPT) {
        output.say("Nothing was done.");
        return Err(Failure::Exit(1));
    }
    Ok(line.to_owned())
}

/// A terminal that shows nothing of what is typed, until this is dropped. No signal ends the program
/// meanwhile: the terminal would stay as it is.
struct Quiet(Option<Termios>);

impl Quiet {
    fn begin() -> Self {
        let Ok(before) = tcgetattr(io::stdin()) else { return Self(None) };
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO | LocalFlags::ISIG);
        match tcsetattr(io::stdin(), SetArg::TCSAFLUSH, &quiet) {
            Ok(()) => Self(Some(before)),
            Err(_) => Self(None),
        }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // A terminal that is gone has nothing to be set back.
            let _restored = tcsetattr(io::stdin(), SetArg::TCSANOW, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_line_break_is_not_part_of_a_password() {
        for (text, password) in
            [("a b\n", "a b"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a ", " a "), ("", ""), ("ö\n", "ö")]
        {
            assert_eq!(without_break(text), password, "{text:?}");
        }
        assert!(bounded(&b"\xff"[..]).is_err());
        let long = vec![b'x'; 10 * PASSWORD_BYTES_MAX];
        assert!(bounded(&long[..]).expect("read").len() <= PASSWORD_BYTES_MAX + 3);
    }
}
