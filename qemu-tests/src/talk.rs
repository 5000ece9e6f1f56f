//! Where dom0 and a guest with a network card find each other.

use std::net::Ipv4Addr;

/// dom0's address on the bridge.
pub const DOM0: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
/// The guest's.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
/// Length of their common prefix.
pub const PREFIX: u8 = 24;
/// Where the guest sends back what comes.
pub const PORT: u16 = 7;
