//! xenstore: the wire protocol, a client over any byte transport, and the transports of the stub and of dom0.

mod client;
mod events;
#[cfg(feature = "std")]
pub mod file;
mod inbox;
mod nodes;
pub mod ring;
mod transport;
pub mod wire;

#[cfg(any(test, feature = "fake"))]
pub mod fake;
#[cfg(test)]
mod tests;

pub use client::{Client, Fault, REQUEST_TIMEOUT_NS, Stats, XsError};
pub use events::{EVENTS_MAX, Event};
pub use nodes::{Nodes, TRANSACTION_TRIES, Transaction};
pub use transport::{Wire, WireError};
pub use wire::{Perm, Rights};
