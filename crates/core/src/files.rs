//! Files: names of content, paths that stay where they belong, and operations on one path of one node.

pub mod answer;
pub mod ask;
pub mod content;
pub mod entity;
pub mod fence;
pub mod names;
pub mod op;
pub mod path;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
