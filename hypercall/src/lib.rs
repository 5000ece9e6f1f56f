#![no_std]
#![deny(missing_docs)]
//! placeholder
