//! Following runs: shows their events as they come, remembers how far each has come, and takes
//! up a broken stream where it stopped, so that nothing is shown twice and nothing is left out.

mod follow;
mod patience;
mod raw;
mod show;
mod track;

pub(crate) use follow::follow_all;
pub(crate) use patience::Patience;
pub(crate) use raw::follow_bytes;
pub(crate) use show::Show;
pub(crate) use track::{Outcome, TRANSPORT, Watch, status_of, transport_or};
