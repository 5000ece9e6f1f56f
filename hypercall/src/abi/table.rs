//! Everything that this crate claims about Xen's headers, as C expressions with the values that they must have.

use super::{domctl, event, flask, grant, hvm, io, linux, memory, mmu, sched, start_info, vcpu, version, xen};
use crate::XenErrno;

/// One claim: the C expression, compiled against Xen's headers, has this value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// A constant expression in C, such as `sizeof(struct xen_domctl)`.
    pub expression: &'static str,
    /// Its value, widened with its sign.
    pub value: i64,
}

const TABLES: &[&[Row]] = &[
    xen::CONSTANTS,
    xen::LAYOUTS,
    start_info::CONSTANTS,
    start_info::LAYOUTS,
    domctl::CONSTANTS,
    domctl::LAYOUTS,
    vcpu::CONSTANTS,
    vcpu::LAYOUTS,
    memory::CONSTANTS,
    memory::LAYOUTS,
    mmu::CONSTANTS,
    mmu::LAYOUTS,
    grant::CONSTANTS,
    grant::LAYOUTS,
    event::CONSTANTS,
    event::LAYOUTS,
    flask::CONSTANTS,
    flask::LAYOUTS,
    sched::CONSTANTS,
    sched::LAYOUTS,
    version::CONSTANTS,
    version::LAYOUTS,
    hvm::CONSTANTS,
    hvm::LAYOUTS,
    io::blkif::CONSTANTS,
    io::blkif::LAYOUTS,
    io::console::LAYOUTS,
    io::xs_wire::CONSTANTS,
    io::xs_wire::LAYOUTS,
    io::xenbus::CONSTANTS,
    linux::CONSTANTS,
    linux::LAYOUTS,
];

/// All claims but those on errno, whose names are built: see [`errnos`].
pub fn rows() -> impl Iterator<Item = Row> {
    TABLES.iter().flat_map(|table| table.iter().copied())
}

/// Xen's error numbers: the name without the prefix `XEN_` and the value.
pub fn errnos() -> impl Iterator<Item = (&'static str, i32)> {
    XenErrno::NAMES.iter().map(|(value, name)| (*name, *value))
}
