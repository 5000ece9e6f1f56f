//! Memory shared with a peer, and the ring disciplines over it.

pub mod bytes;
pub mod front;
pub mod shared;
