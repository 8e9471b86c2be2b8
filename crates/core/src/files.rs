//! Files: names of content, paths that stay where they belong, and operations on one path of one node.

pub mod content;
pub mod names;
pub mod path;
