//! The scenarios, one file each, in the order in which they run.
//!
//! A scenario gets a host that is up and leaves it as it found it: the runner destroys guests that stay behind. Those
//! that share a boot must not change what the others rely on (boolean, policy, xenstored); they ask for a fresh one.

mod after;
mod aftermath;
mod armed_cost;
mod bad_input;
mod bad_middle;
mod bad_pv;
mod bad_shapes;
mod boot;
mod catalog;
mod devices;
mod diff;
mod endings;
mod export_speed;
mod flask;
mod guest;
mod hook;
mod incremental;
mod incremental_pv;
mod instant;
mod kills;
mod lvm;
mod many;
mod no_shadow;
mod oracle;
mod others;
mod oxenstored;
mod power;
mod pv;
mod pv_hostile;
mod pv_tables;
mod receive;
mod registers;
mod restores;
mod rounds;
mod shapes;
mod staged;
mod stock;
mod stores;
mod take_restore;
mod tracked;
mod two;
mod ward;
mod words;

pub use catalog::{Boot, Scenario, all};
pub use take_restore::{goes_on, stands_at_the_instant};
