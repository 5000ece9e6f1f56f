//! Whole takes: the engine of a take, in the world of its own tests, on the store under test.

mod armed;
mod bounded;
mod work;

#[path = "../../../snapshot/tests/take/fakes.rs"]
#[allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    reason = "shared with the engine's own tests, which use all of it and may panic"
)]
pub mod fakes;
#[path = "../../../snapshot/tests/take/setup.rs"]
#[allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    reason = "shared with the engine's own tests, which use all of it and may panic"
)]
pub mod setup;
#[path = "../../../snapshot/tests/take/world.rs"]
#[allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    reason = "shared with the engine's own tests, which use all of it and may panic"
)]
pub mod world;

pub use armed::chain;
pub use bounded::table;
pub use work::{GFNS, MEMORY, MEMORY_BYTES, NAME, WORKING_SET, engine, pages_of};
