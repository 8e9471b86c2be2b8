//! Attempts to get out of the walls of a run, one line of standard output for each:
//! `name<TAB>open` or `name<TAB>denied<TAB>errno`.
//!
//! *Open* means that it worked: the bytes were read, the packet was sent, the signal was
//! delivered. Where success would harm the machine (loading a kernel, restarting), it is enough
//! that the system looked at the arguments, which it does after looking at rights: see [`reached`].
//! What is attempted on comes as `name=value` arguments, so that a test sets the scene; without
//! walls most attempts must be open, or they show nothing. Each runs in a process of its own.
//! Never here: harm to the machine, and packets that leave it.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

mod files;
mod kernel;
mod network;
mod processes;
mod sys;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use nix::libc;

/// What a program says that an attempt has executed: it ran.
const RAN: &str = "__ran";
/// The same, when it also got rights that its caller had not.
const GAINED: &str = "__gained";

/// Nothing when it worked, or the system's reason.
type Outcome = Result<(), i32>;

/// A name, and what is done.
type Attempt = (&'static str, fn(&Scene) -> Outcome);

/// What the test has prepared.
struct Scene(BTreeMap<String, String>);

impl Scene {
    fn text(&self, name: &str) -> Result<&str, i32> {
        self.0.get(name).map(String::as_str).ok_or(libc::ENODATA)
    }

    /// A file below one of the folders of the scene.
    fn path(&self, folder: &str, name: &str) -> Result<PathBuf, i32> {
        Ok(PathBuf::from(self.text(folder)?).join(name))
    }

    fn number(&self, name: &str) -> Result<u32, i32> {
        self.text(name)?.parse().map_err(|_| libc::EINVAL)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(RAN) => return ExitCode::SUCCESS,
        Some(GAINED) => return ExitCode::from(if sys::has_gained() { 0 } else { libc::EPERM as u8 }),
        _ => {}
    }
    let pairs = arguments.iter().filter_map(|argument| argument.split_once('='));
    let scene = Scene(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
    let all = [kernel::INHERITED, network::ALL, files::ALL, processes::ALL, kernel::ALL];
    for (name, attempt) in all.into_iter().flatten() {
        match sys::apart(|| attempt(&scene)) {
            Ok(()) => println!("{name}\topen"),
            Err(errno) => println!("{name}\tdenied\t{errno}"),
        }
    }
    ExitCode::SUCCESS
}

/// The system looked at what was asked, and not only at who asks.
fn reached(outcome: Outcome) -> Outcome {
    match outcome {
        Err(errno) if ![libc::EPERM, libc::EACCES, libc::ENOSYS].contains(&errno) => Ok(()),
        other => other,
    }
}
