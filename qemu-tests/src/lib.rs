//! Guests, probes and scenarios that run under nested Xen in QEMU.
//!
//! `lab` boots the nested host and drives its dom0; `scenarios` are the tests, one file each; `runner` gives the
//! verdicts, `say` keeps the words of machines that run side by side apart. `wire`, `pattern`, `counter`, `digest`,
//! `context`, `standing` and `talk` are shared with the programs in `bin/`, which run inside the nested machines;
//! `image` reads what a save image holds.

pub mod context;
pub mod counter;
pub mod digest;
pub mod image;
pub mod lab;
pub mod pattern;
pub mod runner;
pub mod say;
pub mod scenarios;
pub mod standing;
pub mod talk;
pub mod verdict;
pub mod wire;
