//! Structures that are wrong under digests that are right: what a writer with a fault would have left.

use snapshot::store::layout::root;
use snapshot::store::{Catalog, StoreError};

use super::stock::{fill_up, is_whole, said, sparse};
use crate::content::{Pages, flatten, run};
use crate::disk::Disk;
use crate::forge::Map;
use crate::history::{History, ROOMY, TIGHT};
use crate::image::{Block, Image};
use crate::judge::{Verdict, honest_one};

/// The segment of the second snapshot that holds nothing but pages.
const PAGES_ONLY: u32 = 1;

/// A snapshot in segment 0, and one whose root is in segment 2; the segment of pages between them is put elsewhere.
fn moved_pages(address: impl FnOnce(&Map, &Image) -> u32) -> History {
    let history = History::with(TIGHT, &[("old@1", vec![run(0, 5, 1)]), ("old@2", vec![run(0, 400, 2)])]);
    let mut image = history.disk.image();
    let map = Map::of(&image, TIGHT, 1);
    let address = address(&map, &image);
    map.set_address(&mut image, PAGES_ONLY, address);
    map.sign(&mut image);
    History::new(Disk::with(TIGHT, image), history.possible)
}

/// Two ids at one address: whoever removes the one would give away what the other reaches.
pub fn shared_address() -> Verdict {
    let mut history = moved_pages(|map, image| map.address(image, 0));
    let pages: Pages = flatten(&[run(0, 5, 1)]);
    let mut store = match history.open() {
        Err(StoreError::Corrupt { what: "segment that two ids share", .. }) => return Ok(()),
        Err(error) => return Err(format!("refused with another word: {error}")),
        Ok(store) => store,
    };
    let removed = store.remove("old@2");
    fill_up(&mut history, &mut store);
    let mut catalog = Catalog::open(history.disk.clone()).map_err(|failed| said(failed.error))?;
    let given = honest_one(&mut catalog, "old@1", &pages)?;
    match given.refused {
        0 => Err(format!("a writer opens a table with two ids at one address, and removes: {removed:?}")),
        _ => Err("removing one of two at one address cost the sound one its pages".to_owned()),
    }
}

/// An id without an address: its snapshot is damaged and can be removed, the others stay in use.
pub fn unmapped() -> Verdict {
    let mut history = moved_pages(|_, _| 0);
    let mut store = history.open().map_err(|error| format!("one segment without an address closes all: {error}"))?;
    match history.take(&mut store, "new@1", &[run(0, 5, 3)]) {
        Err(StoreError::DamagedSnapshot { .. }) => {}
        other => return Err(format!("a take beside it: {other:?}")),
    }
    history.remove(&mut store, "old@2").map_err(said)?;
    history.take(&mut store, "new@1", &[run(0, 5, 3)]).map_err(said)?;
    is_whole(&history)
}

/// A root whose digest of the content is not that of its pages: cleaning must not make it look right.
pub fn false_content() -> Verdict {
    let history = sparse();
    let mut image = history.disk.image();
    let freed = history.open().and_then(|mut store| history.clean(&mut store)).map_err(said)?;
    if freed == 0 {
        return Err("the cleaner found nothing to do".to_owned());
    }
    let map = Map::of(&image, ROOMY, 1);
    let mut page = image.bytes(map.root);
    page[root::CONTENT.offset] ^= 1;
    image.put(map.root, Block::new(page));
    map.sign(&mut image);
    let history = History::new(Disk::with(ROOMY, image), history.possible);
    is_refused(&history, "before it was cleaned")?;
    history.open().and_then(|mut store| history.clean(&mut store)).map_err(said)?;
    is_refused(&history, "once it was cleaned")
}

fn is_refused(history: &History, when: &str) -> Verdict {
    let mut catalog = Catalog::open(history.disk.clone()).map_err(|failed| said(failed.error))?;
    match catalog.snapshot("new@1").and_then(|mut one| one.verify(&mut |_, _| {})) {
        Err(StoreError::Corrupt { what: "content of a snapshot", .. }) => Ok(()),
        Err(error) => Err(format!("a false snapshot, {when}: {error}")),
        Ok(_) => Err(format!("a false snapshot is verified {when}")),
    }
}
