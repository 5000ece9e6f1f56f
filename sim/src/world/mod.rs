//! The whole world from one seed: a guest, the stub with the production engine and store, a keeper with the production
//! machine, xenstored, who calls them, and the deaths of each at any step.
//!
//! One thread. The engine is a loop over ports; every call of a port, and every deed of the keeper, is a *step*: there
//! the plan strikes, and whatever else is due happens. So a run is a function of its plan.

mod breakage;
mod command;
mod errands;
mod guest;
mod hands;
mod host;
mod judge;
mod keeper;
mod plan;
mod rescue;
mod run;
mod stub;
mod tally;
mod tree;

pub use breakage::{Slip, found};
pub use command::{Options, run as command};
