//! Xen's public interface for this project. The crate is a leaf.
#![cfg_attr(not(test), no_std)]
#![deny(missing_docs)]

pub mod types;
