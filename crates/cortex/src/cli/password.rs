//! Passwords from a file, from standard input, or from a terminal that does not show them. Never from
//! an argument, nor from the environment.

use std::io::{self, BufRead, IsTerminal, Read};

use cortex_core::limits::PASSWORD_BYTES_MAX;
use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};

use crate::error::{Failure, Result};
use crate::output::Output;

/// Ctrl-C, which is a byte while it sends no signal.
const INTERRUPT: u8 = 3;

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
    let line = line(io::stdin().lock());
    drop(quiet);
    output.say("");
    match line {
        Ok(Some(line)) => Ok(without_break(&line).to_owned()),
        Ok(None) => {
            output.say("Nothing was done.");
            Err(Failure::Exit(130))
        }
        Err(error) => Err(Failure::usage(
            format!("The password cannot be read: {error}."),
            "Type it once more, or give `--password-file FILE`.",
        )),
    }
}

/// One line as it was typed; `None` as soon as Ctrl-C is among it.
fn line(source: impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    for byte in source.take(PASSWORD_BYTES_MAX as u64 + 3).bytes() {
        match byte? {
            INTERRUPT => return Ok(None),
            byte => bytes.push(byte),
        }
        if bytes.ends_with(b"\n") {
            break;
        }
    }
    let text = String::from_utf8(bytes);
    text.map(Some).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not text"))
}

/// A terminal that shows nothing of what is typed, until this is dropped. No signal ends the program
/// meanwhile: the terminal would stay as it is.
struct Quiet(Option<Termios>);

impl Quiet {
    fn begin() -> Self {
        let Ok(before) = tcgetattr(io::stdin()) else { return Self(None) };
        let mut quiet = before.clone();
        quiet.local_flags.remove(LocalFlags::ECHO | LocalFlags::ISIG);
        // It ends the line too, so that it is heard at once.
        quiet.control_chars[SpecialCharacterIndices::VEOL as usize] = INTERRUPT;
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
    fn what_is_typed_ends_with_its_line_or_at_once_with_ctrl_c() {
        let typed = |bytes: &[u8]| line(bytes).expect("read");
        assert_eq!(typed(b"ab\ncd\n").as_deref(), Some("ab\n"));
        assert_eq!(typed(b"ab").as_deref(), Some("ab"));
        // Nothing after it is waited for: a terminal would not give it.
        let waits = io::BufReader::new((&b"ab\x03"[..]).chain(Never));
        assert_eq!(line(waits).expect("read"), None);
    }

    /// A terminal on which nobody types any more.
    struct Never;

    impl Read for Never {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            panic!("nobody types here")
        }
    }

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
