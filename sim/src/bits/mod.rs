//! Single bits of a small store that flip while it lies still: really every one, of every block that anybody reads.

mod disk;
mod readers;
mod small;
mod sweep;

pub use sweep::{Bits, sweep, table};
