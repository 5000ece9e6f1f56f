//! What the stub does for dom0: waits for requests, does them one after the other, and says how it is.
//!
//! ```text
//! service.rs  the loop, the stub's own node
//! line.rs     the nodes that dom0 writes and reads
//! session.rs  one request
//! disk.rs     the store's block device
//! beat.rs     the heartbeat that keeps a second writer out
//! reopen.rs   when to open a store again that was lost
//! ```

mod beat;
mod disk;
mod line;
mod reopen;
mod service;
mod session;
mod vigil;

pub use disk::DiskError;
pub use line::{Line, Stop, Store};
pub use service::{Service, end, live};
