//! The receiving end of `xl migrate`: what it says to xl, what it takes from it, and the file that it leaves.
//!
//! `tap` is the wire, `stream` knows what a migration looks like, `landing` is the file.

pub mod landing;
pub mod stream;
mod tap;

pub use tap::{Patient, Tap};
