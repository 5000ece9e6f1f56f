//! Memory: the frames of the domain, the tables that map them, the heap, and the window onto frames of others.
//!
//! Only the window's addresses ever map memory of another domain; all others keep for ever what boot gave them.

mod frames;
pub mod heap;
pub mod layout;
pub mod m2p;
mod memory;
mod tables;
pub mod window;

pub use memory::{BootMemoryError, Budget, address_of_mfn, free_frames, give_frame, init, mfn_of, take_frame};
pub use tables::{DATA, READ_ONLY, entry};
