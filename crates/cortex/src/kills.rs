//! Power cuts at named points, for the kill tests. Never part of a release: only compiled with the
//! feature `failpoints`.
//!
//! A point is armed by a file `kill-<point>` in the folder that `FAILPOINT_KILLS` names. The
//! process that comes to the point removes the file and ends by SIGKILL, as in a power cut; a
//! file that is gone is the proof that the point was reached. `PASSES PID` in the file lets so many
//! pass before, and ends that process first: a clerk takes its node along. A file `hold-<point>` stops
//! whoever comes first: it becomes `held-<point>`, and the process goes on when that is removed.

mod points;

use std::path::Path;

use points::{APPLY, WAVES};

/// All other points, in hub, store, node and clerk.
const POINTS: &[&str] = &[
    "hub::after_accept",
    "hub::enrol_before_commit",
    "hub::enrol_after_commit",
    "hub::recover_before_commit",
    "hub::recover_after_commit",
    "hub::before_send_start",
    "hub::before_settle",
    "hub::after_settle",
    "hub::log_flush",
    "hub::files_before_ask",
    "hub::files_after_answer",
    "hub::files_before_settle",
    "hub::after_submit",
    "hub::before_claim",
    "hub::after_claim",
    "hub::after_worker_claim",
    "hub::before_report",
    "hub::after_report",
    "hub::before_due",
    "hub::after_due",
    "hub::before_end_lease",
    "hub::after_end_lease",
    "hub::after_task_cancel",
    "store::before_commit",
    "store::after_commit",
    "store::before_answer",
    "blobs::tmp",
    "node::before_journal",
    "node::after_journal",
    "node::after_spawn",
    "node::before_end",
    "node::files_prepared",
    "node::files_done",
    "imports::pack",
    "imports::whole",
    "imports::made",
];

/// Sets every point up, when a test asks for it.
pub(crate) fn prepare() {
    let Some(folder) = std::env::var_os("FAILPOINT_KILLS") else { return };
    for point in [POINTS, APPLY, WAVES].concat() {
        let file = |what: &str| Path::new(&folder).join(format!("{what}-{}", point.replace("::", "-")));
        let (armed, hold, held) = (file("kill"), file("hold"), file("held"));
        let come = move || {
            wait_if(&hold, &held);
            end_if(&armed);
        };
        if let Err(error) = fail::cfg_callback(point, come) {
            tracing::error!(point, %error, "a failpoint cannot be set up");
        }
    }
}

/// A test does something at this moment.
fn wait_if(hold: &Path, held: &Path) {
    if std::fs::rename(hold, held).is_ok() {
        while held.exists() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
}

/// Of several threads that come here at once, the one that removes the file ends the process.
fn end_if(armed: &Path) {
    let Ok(order) = std::fs::read_to_string(armed) else { return };
    let mut numbers = order.split_whitespace().map_while(|word| word.parse::<i32>().ok());
    let (passes, other) = (numbers.next().unwrap_or(0), numbers.next());
    if passes > 0 {
        let left = format!("{} {}", passes - 1, other.map(|pid| pid.to_string()).unwrap_or_default());
        // Whoever armed it waits in vain when this cannot be said.
        let _told = std::fs::write(armed, left);
        return;
    }
    if std::fs::remove_file(armed).is_ok() {
        let kill = |pid| nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        let _gone = other.map(|pid| kill(nix::unistd::Pid::from_raw(pid)));
        // It does not come back from this; should it, the abort ends the process as well.
        let _never = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
        std::process::abort();
    }
}
