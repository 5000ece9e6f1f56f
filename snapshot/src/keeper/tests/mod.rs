//! Tests of the keeper's machine, in a world that goes wrong on demand.

mod cases;
mod checks;
mod faults;
mod world;
