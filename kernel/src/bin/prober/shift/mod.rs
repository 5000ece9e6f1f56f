//! A guest in good order that keeps its p2m as the three-level tree, which Linux has given up, and rewrites page tables
//! without end: frames become tables, change entry by entry, and are ordinary memory again.
//!
//! It answers a request to suspend, goes on where it stood or restored in another domain, and checks each frame before
//! it touches it.

mod begin;
mod life;
mod moving;
mod tree;

pub use begin::shift;
