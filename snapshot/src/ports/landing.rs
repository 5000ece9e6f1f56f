//! Where the pages of a batch go: handed out one by one, or straight to where they shall stay.
//!
//! Each page is copied out of the guest's memory once, and what is looked at is the copy.

use super::{Page, PageError, Stop};

/// When domid and handle are compared, after frames were mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen {
    /// Before the first page is handed out.
    Now,
    /// By the caller, before it makes use of what it got.
    Later,
}

/// Takes the pages of a batch: index in the batch, and the private copy or why there is none.
pub type PageSink<'a> = dyn FnMut(usize, Result<&Page, PageError>) -> Result<(), Stop> + 'a;

/// Copies a page to its place. After an error the place holds nothing of use.
pub type Fill<'a> = dyn FnMut(&mut Page) -> Result<(), PageError> + 'a;

/// Where the pages of a batch land: the caller's own memory, so that a page is copied once.
pub trait Landing {
    /// Gives `fill` the place for the page with this index, once; its answer is the page's. `Stop` ends the call early
    /// with `Ok`.
    fn land(&mut self, index: usize, fill: &mut Fill<'_>) -> Result<(), Stop>;
}

/// A landing of one page, from where each copy is handed out.
pub struct OneByOne<'a, 'o> {
    /// Where every page lands.
    pub page: &'a mut Page,
    /// Takes it from there.
    pub out: &'a mut PageSink<'o>,
}

impl Landing for OneByOne<'_, '_> {
    fn land(&mut self, index: usize, fill: &mut Fill<'_>) -> Result<(), Stop> {
        let filled = fill(self.page);
        (self.out)(index, filled.map(|()| &*self.page))
    }
}
