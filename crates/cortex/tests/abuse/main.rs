//! The abuse list, row by row, over the real program: each attempt gets its exact answer, leaves
//! nothing half done, and disturbs nobody else. A test is named after its row.

mod arguments;
mod changes;
mod disk;
mod doors;
mod enrolment;
mod files;
mod policy;
mod pool;
mod proxy;
mod stream;
mod support;
mod table;
mod walls;
#[expect(dead_code, reason = "shared with the e2e tests, which need more of it")]
#[path = "../e2e/world.rs"]
mod world;
