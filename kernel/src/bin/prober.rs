#![cfg_attr(feature = "image", no_std, no_main)]
//! placeholder
#[cfg(not(feature = "image"))]
fn main() {}
#[cfg(feature = "image")]
use livesave_stubdom as _;
#[cfg(feature = "image")]
#[unsafe(no_mangle)]
extern "C" fn livesave_main(_: *const u8, _: u64) -> ! { loop {} }
