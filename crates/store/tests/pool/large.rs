//! Many waiting tasks.
