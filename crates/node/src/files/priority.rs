//! Work on much content gives way to everything else on its machine, so that commands keep their pace beside
//! any number of transfers (MISSION 16.5). On a machine with nothing else to do it is as quick as ever.

use std::io;
use std::thread;

/// How far it gives way: 0 not at all, 19 to everybody.
const NICE: i32 = 10;

/// Lets this thread, and those that it starts from here on, give way to others. Who is not root cannot take
/// that back.
///
/// # Errors
/// The system's.
pub fn give_way() -> io::Result<()> {
    rustix::process::nice(NICE)?;
    Ok(())
}

/// Does it in a thread of its own that gives way to others; in this one when the system starts none.
///
/// # Errors
/// When it panicked.
pub(crate) fn giving_way<T: Send>(work: impl FnOnce() -> T + Send) -> thread::Result<T> {
    let work = std::sync::Mutex::new(Some(work));
    let take = || work.lock().ok().and_then(|mut work| work.take());
    thread::scope(|scope| {
        let begun = thread::Builder::new().name("bulk".to_owned()).spawn_scoped(scope, || {
            // Then it is as urgent as everything else.
            let _urgent = give_way();
            take().map(|work| work())
        });
        match begun {
            Ok(thread) => thread.join(),
            Err(_none) => Ok(take().map(|work| work())),
        }
    })
    .and_then(|done| done.ok_or_else(|| Box::new("it was done before") as _))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priority() -> i32 {
        rustix::process::getpriority_process(None).expect("a priority")
    }

    #[test]
    fn it_gives_way_in_a_thread_of_its_own_and_whoever_waits_for_it_does_not() {
        let before = priority();
        let inside = giving_way(|| (priority(), thread::spawn(priority).join().expect("no panic")));
        let expected = (before + NICE).min(19);
        assert_eq!(inside.expect("no panic"), (expected, expected));
        assert_eq!(priority(), before);
        giving_way(|| panic!("as the test wants it")).expect_err("it panicked");
    }
}
