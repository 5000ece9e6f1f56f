//! The image that `xl restore` reads: an xl header around a libxl stream around a libxc stream. Bytes in, bytes out;
//! what goes into it is decided by `export`.

mod libxc;
mod libxl;
mod page_data;
mod xl;

pub use libxc::{DomainType, check_records, domain_header, end, image_header, split_first, static_data_end};
pub use libxl::{context_record, end_record, stream_header};
pub use page_data::PageData;
pub use xl::file_header;

/// Where a stream goes: bytes in order, never a seek.
pub trait Sink {
    /// Why it cannot.
    type Error;
    /// Takes all of `bytes`.
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;
}
