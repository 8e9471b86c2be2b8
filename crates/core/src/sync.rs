//! What has to happen so that a folder of a node and a tree of the hub are the same again.
//!
//! A planner over three trees: the hub's, the node's, and what both last agreed on. It looks at no disk
//! and at no clock; what it reads comes from scans, what it answers is carried out elsewhere, step by
//! step, each with what must still be there (SYNC 9, and rules 1 to 3, 6, 7, 9 to 11, 19).

mod agreed;
mod halts;
mod names;
mod one_way;
mod plan;
mod rows;
mod steps;
mod tree;
mod two_way;
mod verdict;

pub use self::halts::{Cause, DeleteLimits, Halt, HaltId, Rule};
pub use self::names::NameRules;
pub use self::plan::{Inputs, Mode, Push, plan};
pub use self::steps::{Act, Step};
pub use self::tree::{End, Entry, Problem, RootState, Seen, Side, SideCounts};
pub use self::verdict::{Conflict, Held, Plan, PlanCounts, Why};
