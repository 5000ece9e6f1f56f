//! Scenes: what cuts of the power do not show, each played once from its beginning to its end.
//!
//! Readers beside the writer, devices that hold something else, structures that are wrong under right digests, sectors
//! that cannot be read for a while, an interrupted cleaner, takes that ask for too much, two writers. Each scene is
//! quiet with every safeguard in place, and says in a sentence what is wrong when one is left out.

mod cleaner;
mod devices;
mod excess;
mod forged;
mod list;
mod readers;
mod sectors;
mod stock;
mod writers;

pub use list::{ALL, find};
