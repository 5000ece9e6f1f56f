//! Tests of the store from outside, on a disk that keeps no promise (see `disk`).

mod basic;
mod disk;
mod document;
mod world;
