//! Tests of the store from outside, on a disk that keeps no promise (see `disk`).
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]

mod attached;
mod basic;
mod below;
mod bitrot;
mod check;
mod cleaner;
mod counted;
mod crash;
mod disk;
mod document;
mod edges;
mod golden;
mod history;
mod hostile;
mod listed;
mod model;
mod order;
mod reserved;
mod shared;
mod slots;
mod small;
mod space;
mod world;
