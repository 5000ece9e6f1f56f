//! The identifiers of the hypercall interface that drivers deal in.

pub use xen_hypercall::types::{DomId, EvtchnPort, GrantRef};
