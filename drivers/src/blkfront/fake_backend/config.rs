//! What the fake backend can be told to be and to do.

/// What the backend publishes; a text of `None` = no such node.
#[derive(Clone, Debug)]
pub struct Config {
    /// Units of 512 bytes, and the size of the image.
    pub sectors: u64,
    /// Published in place of `sectors`.
    pub sectors_text: Option<&'static str>,
    /// `sector-size`
    pub sector_size: &'static str,
    /// `physical-sector-size`
    pub physical_sector_size: Option<&'static str>,
    /// `info`
    pub info: &'static str,
    /// `feature-flush-cache`
    pub flush: Option<&'static str>,
    /// `feature-max-indirect-segments`
    pub indirect: Option<&'static str>,
    /// `max-ring-page-order`
    pub ring_order: Option<&'static str>,
    /// The state at the first look.
    pub first_state: &'static str,
    /// The state announced in place of Connected.
    pub connected_state: &'static str,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sectors: 8 * 1024,
            sectors_text: None,
            sector_size: "512",
            physical_sector_size: Some("4096"),
            info: "0",
            flush: Some("1"),
            indirect: Some("256"),
            ring_order: Some("4"),
            first_state: "2",
            connected_state: "4",
        }
    }
}

/// What goes wrong with the next response, or in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mischief {
    /// The id is XORed with this.
    Id(u64),
    /// The response comes twice.
    Twice,
    /// The operation is this.
    Operation(u8),
    /// The status is this; the request is not carried out.
    Status(i16),
    /// No response, ever.
    Silence,
    /// The producer index moves by this on top, without responses.
    Jump(u32),
    /// The backend closes: state Closing, everything let go, nothing answered.
    Close,
    /// As `Close`, and its nodes are removed.
    Vanish,
    /// The state node takes this text.
    State(&'static str),
    /// No response, but an event in every step.
    Storm,
    /// The ring's pages fill with bytes of this seed.
    Scribble(u64),
}

/// Which request completes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The oldest.
    Fifo,
    /// The newest.
    Lifo,
    /// Any, by this seed.
    Random(u64),
}

/// What was asked of the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// `BLKIF_OP_READ`, `_WRITE` or `_FLUSH_DISKCACHE`.
    pub operation: u8,
    /// First sector.
    pub sector: u64,
    /// Pages.
    pub segments: usize,
    /// Whether the segments came in a page of their own.
    pub indirect: bool,
}
