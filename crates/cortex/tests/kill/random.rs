//! Power cuts at moments that nobody chose, with twenty commands under way.

use std::time::{Duration, Instant};

use crate::history::History;
use crate::world::hub;
use crate::{SOON, restart};

/// Rounds when nobody says otherwise.
const ROUNDS: usize = 2;

#[test]
fn a_power_cut_at_any_moment_loses_and_doubles_nothing_of_twenty_runs() {
    let rounds = std::env::var("CORTEX_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    let mut world = hub().open_node("a").start();
    let mut history = History::new(&world);
    for round in 0..rounds {
        let mut random = [0; 2];
        getrandom::fill(&mut random).expect("randomness");
        let delay = Duration::from_millis(u64::from(u16::from_le_bytes(random)) % 800);
        let victim = if round % 2 == 0 { "hub" } else { "node" };
        let pid = if victim == "hub" { world.hub().pid() } else { world.node_pid("a") };
        let context = format!("round {round}: the {victim} after {delay:?}");
        let began = Instant::now();
        let children: Vec<_> = (0..20).map(|_| history.launch(&world)).collect();
        std::thread::sleep(delay.saturating_sub(began.elapsed()));
        let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("end our own process");
        children.into_iter().for_each(|child| history.note(&crate::world::Ended::of(child)));
        restart(&mut world, if victim == "hub" { "hub::random" } else { "node::random" });
        history.start_surely(&world);
        assert!(began.elapsed() < 2 * SOON, "{context}");
        history.settle(&world, &context);
    }
    history.check(&world);
}
