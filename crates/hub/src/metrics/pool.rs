//! Figures of the work pool. Each label is from a closed list, all of whose values are there from the
//! start, so that what has not happened yet is 0 and not missing.

use std::sync::atomic::{AtomicI64, AtomicU64};

use cortex_core::pool::TaskState;
use cortex_core::pool::figures::{HolderKind, LeaseEnd, TickEnd};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};

use super::{Labels, counter, gauge};
use crate::board::Board;
use crate::service::pool::Kept;

pub(super) fn register(registry: &mut Registry, board: &Board, kept: Option<&Kept>) {
    let (figures, now) = board.figures();
    if let Some(kept) = kept {
        let tasks = kept.tasks.iter().map(|(state, count)| (state.as_str(), *count));
        registry.register("pool_tasks", "Tasks that are kept, by state.", gauges("state", tasks));
        let seconds = ConstGauge::new(kept.oldest_ready_ms as f64 / 1e3);
        let help = "How long the ready task has waited that waits longest.";
        registry.register_with_unit("pool_oldest_ready_age", help, Unit::Seconds, seconds);
    }
    gauge(registry, "pool_lanes", "Lanes in which something may be ready.", now.lanes as u64);
    let leases = [("node", now.node_leases as u64), ("worker", now.worker_leases as u64)];
    registry.register("pool_leases", "Leases, by who has them.", gauges("holder", leases));
    counter(registry, "pool_tasks_submitted", "New tasks.", figures.submitted);
    let of = |kind: &HolderKind| (kind.as_str(), figures.claims.get(kind).copied().unwrap_or(0));
    let claims = counters("holder", HolderKind::ALL.iter().map(of));
    registry.register("pool_claims", "Tasks that were handed out, by whom they went to.", claims);
    let of = |end: &LeaseEnd| (end.as_str(), figures.lease_ends.get(end).copied().unwrap_or(0));
    let ends = counters("reason", LeaseEnd::ALL.iter().map(of));
    registry.register("pool_leases_ended", "Leases that ended, by how.", ends);
    let ended = TaskState::ALL.iter().filter(|state| state.is_final());
    let of = |state: &TaskState| (state.as_str(), figures.ended.get(state).copied().unwrap_or(0));
    let ended = counters("state", ended.map(of));
    registry.register("pool_tasks_ended", "Tasks that came to their end, by which.", ended);
    let help = "Reports and extensions of attempts that were over.";
    counter(registry, "pool_stale_reports", help, figures.stale);
    let of = |end: &TickEnd| (end.as_str(), figures.ticks.get(end).copied().unwrap_or(0));
    let ticks = counters("outcome", TickEnd::ALL.iter().map(of));
    registry.register("pool_schedule_ticks", "Ticks of schedules, by what became of them.", ticks);
}

fn counters<'v>(
    label: &'static str,
    values: impl IntoIterator<Item = (&'v str, u64)>,
) -> Family<Labels<1>, Counter<u64, AtomicU64>> {
    let family: Family<Labels<1>, Counter<u64, AtomicU64>> = Family::default();
    for (value, count) in values {
        family.get_or_create(&[(label, value.to_owned())]).inc_by(count);
    }
    family
}

fn gauges<'v>(
    label: &'static str,
    values: impl IntoIterator<Item = (&'v str, u64)>,
) -> Family<Labels<1>, Gauge<i64, AtomicI64>> {
    let family: Family<Labels<1>, Gauge<i64, AtomicI64>> = Family::default();
    for (value, count) in values {
        family.get_or_create(&[(label, value.to_owned())]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    family
}
