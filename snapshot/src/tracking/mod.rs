//! Which pages are to be sent: bitmaps, the batches cut from them, and the state of the rounds.

mod batch;
mod bitmap;
mod rounds;

pub use batch::Batch;
pub use bitmap::{Bitmap, LEAF_BITS};
pub use rounds::{PeekPlan, Sets, Tracking};
