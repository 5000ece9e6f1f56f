//! Tests of the store from outside, on a disk that keeps no promise (see `disk`).

mod basic;
mod bitrot;
mod crash;
mod disk;
mod document;
mod golden;
mod history;
mod model;
mod world;
