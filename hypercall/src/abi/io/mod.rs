//! io/*.h: what frontends and backends share. Each side distrusts what the other wrote.

pub mod blkif;
pub mod console;
pub mod ring;
pub mod xenbus;
pub mod xs_wire;
