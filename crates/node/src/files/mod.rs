//! Operations on files beneath a root that is open: what is done, and in which order, so that nobody sees
//! half of it, nothing that somebody else wrote is lost, and what is acknowledged is on the disk.
//!
//! A change has two steps. [`begin`](op::begin) prepares it, after which nothing is visible yet and its
//! outcome is known; then whoever asked decides once more, and commits or drops it. All of that blocks, and
//! is done by a [`clerk`], a process in the room of a policy; [`clerks`] has the node's end of these
//! processes, and [`errand`] what is said to one of them. One more clerk watches folders ([`watching`],
//! [`lookout`]).
//!
//! Never here: the network, and who may do what (`cortex_core::policy`).

pub(crate) mod acl;
pub(crate) mod apply;
pub(crate) mod beneath;
pub(crate) mod cat;
pub(crate) mod clerk;
pub(crate) mod clerks;
pub(crate) mod edit;
pub(crate) mod errand;
pub(crate) mod fault;
pub(crate) mod frame;
pub(crate) mod grep;
mod ignore;
pub(crate) mod list;
pub(crate) mod lookout;
pub(crate) mod make;
pub(crate) mod moving;
pub(crate) mod op;
pub(crate) mod place;
pub(crate) mod priority;
pub(crate) mod read;
pub(crate) mod relay;
pub(crate) mod remove;
pub(crate) mod scan;
pub(crate) mod seam;
mod spans;
pub(crate) mod swap;
pub(crate) mod sweep;
mod target;
pub(crate) mod temp;
pub(crate) mod transfer;
mod tree;
pub(crate) mod walk;
pub(crate) mod watching;
pub(crate) mod write;

#[cfg(test)]
mod space_tests;
#[cfg(test)]
mod support;
