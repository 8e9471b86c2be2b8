//! Power cuts at named points, for the kill tests. Never part of a release: only compiled with the
//! feature `failpoints`.
//!
//! A point is armed by a file `kill-<point>` in the folder that `FAILPOINT_KILLS` names. The
//! process that comes to the point removes the file and ends by SIGKILL, as in a power cut; a
//! file that is gone is the proof that the point was reached.

use std::path::Path;

/// All points, in hub, store and node.
const POINTS: &[&str] = &[
    "hub::after_accept",
    "hub::enrol_before_commit",
    "hub::enrol_after_commit",
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
    "node::before_journal",
    "node::after_journal",
    "node::after_spawn",
    "node::before_end",
    "node::files_prepared",
    "node::files_done",
    "waves::planned",
    "waves::sent",
    "waves::ended",
    "waves::committed",
];

/// Sets every point up, when a test asks for it.
pub(crate) fn prepare() {
    let Some(folder) = std::env::var_os("FAILPOINT_KILLS") else { return };
    for point in POINTS {
        let armed = Path::new(&folder).join(format!("kill-{}", point.replace("::", "-")));
        if let Err(error) = fail::cfg_callback(*point, move || end_if(&armed)) {
            tracing::error!(point, %error, "a failpoint cannot be set up");
        }
    }
}

/// Of several threads that come here at once, the one that removes the file ends the process.
fn end_if(armed: &Path) {
    if std::fs::remove_file(armed).is_ok() {
        // It does not come back from this; should it, the abort ends the process as well.
        let _never = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
        std::process::abort();
    }
}
