//! One module a verb. A verb parses its own arguments and calls the libraries beside it.

pub mod build;
pub mod ci;
pub mod demo;
pub mod dist;
pub mod lab;
pub mod sim;
pub mod test;
