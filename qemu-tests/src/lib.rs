//! Guests, probes and scenarios that run under nested Xen in QEMU.
//!
//! `lab` boots the nested host and drives its dom0; `scenarios` are the tests, one file each; `runner` gives the
//! verdicts. `wire` and `pattern` are shared with the programs in `bin/`, which run inside the nested machines.

pub mod lab;
pub mod pattern;
pub mod runner;
pub mod scenarios;
pub mod verdict;
pub mod wire;
