//! Small entities for the tests, alike for every store. Ids count up, so that order is known.

use std::time::Duration;

use cortex_core::event::{Event, EventKind};
use cortex_core::id::{NodeId, Revision, RunId};
use cortex_core::run::{Run, RunSpec};
use cortex_core::time::WallTime;

/// Far beyond what any of these takes; a test that meets it has failed.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) fn bytes(number: u8) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, number]
}

pub(crate) fn node_id(number: u8) -> NodeId {
    NodeId::from_slice(&bytes(number)).expect("sixteen bytes")
}

pub(crate) fn run_id(number: u64) -> RunId {
    RunId::mint(number, &[7; 10])
}

pub(crate) fn run(number: u64, node: u8) -> Run {
    let spec = RunSpec { argv: vec!["true".to_owned()], ..RunSpec::default() };
    Run::accepted(run_id(number), node_id(node), spec, "token:admin".to_owned(), Revision(1), WallTime(1_000))
}

pub(crate) fn event(subject: impl Into<String>) -> Event {
    Event::new(EventKind::NodeChanged, WallTime(5)).subject(subject)
}
