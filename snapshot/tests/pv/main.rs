//! PV guests on a model that is stricter than Xen. The oracle: a sealed snapshot holds every page of the suspended
//! guest with its type, page tables with pfns; a guest that lies or does not hold still costs nobody but itself, in
//! bounded time.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod chain;
mod deeds;
mod ends;
mod guest;
mod host;
mod hostile;
mod takes;
