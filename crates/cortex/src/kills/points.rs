//! Points that the program sets up and its kill tests go through one after the other.

/// On the way of a tree into a folder, in their order.
pub(crate) const APPLY: &[&str] = &[
    "apply::piece",
    "apply::pack_synced",
    "apply::staged",
    "apply::logged",
    "apply::created",
    "files::looked",
    "apply::exchanged",
    "apply::trashed",
    "apply::batch_synced",
    "apply::before_end",
    "apply::base_written",
    "apply::base_named",
];

/// Of a hub that brings the members of a workspace together.
pub(crate) const WAVES: &[&str] = &["waves::planned", "waves::sent", "waves::ended", "waves::committed"];
