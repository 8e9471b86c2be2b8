//! The pool over both stores in step, against a model that knows no lanes: it sorts all that is
//! ready by the rule of `cortex_core::pool::order`. `CORTEX_ROUNDS` plays more histories than 256;
//! `CORTEX_WAITING=1000000` lets so many tasks wait in SQLite and prints what that costs.

#[path = "pool/bound.rs"]
mod bound;
#[path = "pool/history.rs"]
mod history;
#[path = "pool/large.rs"]
mod large;
#[path = "pool/model.rs"]
mod model;
#[path = "pool/ops.rs"]
mod ops;
