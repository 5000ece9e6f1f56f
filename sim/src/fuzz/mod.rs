//! Hostile bytes for every parser of what a disk or a peer says. By file: `driver` makes inputs, `text` has what comes
//! through xenstore, `disk` the store's structures, `image` what goes out to `xl restore`, `peer` the rings.

mod disk;
mod driver;
mod image;
mod peer;
mod text;

pub use driver::run;
