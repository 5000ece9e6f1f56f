//! Pages and holes in two passes, packed and not, against a map; the room, and what is told of it.

use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;

/// What a page of the tests holds: one byte all over, which packs well, or noise, which does not.
fn content(gfn: u64, byte: u8) -> Page {
    let mut page = [byte; PAGE_SIZE];
    if byte.is_multiple_of(2) {
        let mut state = (gfn << 8 | u64::from(byte)) | 1;
        for place in &mut page {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            *place = (state >> 56) as u8;
        }
    }
    page[PAGE_SIZE - 1] = byte;
    page
}

/// Pages of one batch, ascending. How many were admitted.
fn put_all(staging: &mut Staging, pages: &[(u64, u8)], packs: bool) -> usize {
    staging.begin_batch(packs);
    let admitted = pages.iter().take_while(|(gfn, _)| staging.admit(Gfn::new(*gfn))).count();
    for (index, (gfn, byte)) in pages[..admitted].iter().enumerate() {
        let mut fill = |page: &mut Page| {
            *page = content(*gfn, *byte);
            Ok(())
        };
        staging.land(index, &mut fill).unwrap();
    }
    assert!(staging.is_landed());
    admitted
}

fn put(staging: &mut Staging, gfn: u64, byte: u8) -> bool {
    put_all(staging, &[(gfn, byte)], false) == 1
}

fn contents(staging: &mut Staging) -> Vec<(u64, Option<u8>)> {
    let mut seen = Vec::new();
    let each = |gfn: Gfn, page: Option<&Page>| {
        let byte = page.map(|page| page[PAGE_SIZE - 1]);
        assert!(byte.is_none_or(|byte| *page.unwrap() == content(gfn.raw(), byte)), "{gfn}");
        seen.push((gfn.raw(), byte));
        Ok::<(), Spoilt>(())
    };
    staging.each(each).unwrap();
    seen
}

#[test]
fn a_second_copy_takes_the_place_of_the_first() {
    let mut staging = Staging::try_new(3, Compression::None);
    assert!(put(&mut staging, 5, 1) && put(&mut staging, 9, 2));
    staging.end_first_pass();
    assert!(put(&mut staging, 2, 3) && put(&mut staging, 9, 4));
    assert!(!put(&mut staging, 10, 5), "three pages are all");
    assert!(put(&mut staging, 5, 6), "a known one still has its place");
    assert_eq!(contents(&mut staging), [(2, Some(3)), (5, Some(6)), (9, Some(4))]);
    assert_eq!((staging.used(), staging.free()), (3, 0));
}

#[test]
fn a_hole_between_the_pages_of_its_batch_leaves_between_them() {
    for packs in [false, true] {
        let mut staging = Staging::try_new(8, Compression::Lz4);
        for pass in 0..2 {
            staging.begin_batch(packs && pass == 1);
            let gfns = [5, 9, 20 + pass];
            assert!(gfns.iter().all(|&gfn| staging.admit(Gfn::new(gfn))));
            assert!([2, 7, 30].iter().all(|&gfn| staging.hole(Gfn::new(gfn))));
            for (index, gfn) in gfns.into_iter().enumerate() {
                let mut fill = |page: &mut Page| {
                    *page = content(gfn, 1);
                    Ok(())
                };
                staging.land(index, &mut fill).unwrap();
            }
            let seen = contents(&mut staging);
            assert!(seen.is_sorted_by(|a, b| a.0 < b.0), "{seen:?}");
            staging.end_first_pass();
        }
        let holes = contents(&mut staging).into_iter().filter(|(_, byte)| byte.is_none());
        assert_eq!(holes.map(|(gfn, _)| gfn).collect::<Vec<_>>(), [2, 7, 30]);
    }
}

#[test]
fn without_memory_there_is_no_room_but_no_error_either() {
    let mut staging = Staging::try_new(0, Compression::Lz4);
    assert!(!put(&mut staging, 1, 1) && !staging.hole(Gfn::new(1)) && staging.is_empty());
    assert_eq!(put_all(&mut staging, &[(1, 1)], true), 0);
}

#[test]
fn chunks_make_one_memory() {
    let pages = 2 * BATCH_MAX as u64 + 3;
    let mut staging = Staging::try_new(pages, Compression::None);
    assert_eq!(staging.capacity(), pages);
    for gfn in 0..pages {
        assert!(put(&mut staging, gfn, (gfn % 251) as u8));
    }
    assert!(contents(&mut staging).iter().all(|(gfn, content)| *content == Some((gfn % 251) as u8)));
    staging.clear();
    assert!(staging.is_empty() && put(&mut staging, 7, 7));
}

#[test]
fn packed_pages_fill_the_memory_and_no_more() {
    let pages = BATCH_MAX + 7;
    let mut staging = Staging::try_new(pages as u64, Compression::Lz4);
    let (mut next, mut rounds) = (0, 0);
    loop {
        // Two of three pack to next to nothing.
        let batch: Vec<(u64, u8)> =
            (next..next + 500).map(|gfn| (gfn, if gfn % 3 == 0 { 2 } else { (gfn % 200) as u8 | 1 })).collect();
        let admitted = put_all(&mut staging, &batch, true);
        if admitted == 0 {
            break;
        }
        (next, rounds) = (next + admitted as u64, rounds + 1);
    }
    assert_eq!((staging.free(), staging.used(), staging.len() as u64), (0, next, next));
    assert!(next as usize > pages * 14 / 5 && rounds < 40, "{next} pages in the memory of {pages}, {rounds} batches");
    assert_eq!(contents(&mut staging).len() as u64, next);
}

#[test]
fn a_page_that_cannot_be_read_is_told_with_its_index() {
    let mut staging = Staging::try_new(4, Compression::Lz4);
    staging.begin_batch(true);
    assert!(staging.admit(Gfn::new(1)) && staging.admit(Gfn::new(2)));
    staging.land(0, &mut |_| Err(PageError { errno: 14 })).unwrap();
    staging.land(1, &mut |_| Ok(())).unwrap();
    assert_eq!(staging.failures(), [(0, PageError { errno: 14 })]);
    assert!(staging.each(|_, _| Ok::<(), Spoilt>(())).is_err(), "what never came is no hole");
    assert!(staging.land(2, &mut |_| Ok(())).is_err());
}

#[test]
fn a_sample_says_how_small_pages_get_and_leaves_them_alone() {
    let mut staging = Staging::try_new(9, Compression::Lz4);
    let pages = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6)];
    assert_eq!(put_all(&mut staging, &pages, false), 6);
    let (all, two) = (staging.sample(100), staging.sample(2));
    assert_eq!((all.0, two.0, staging.with_content()), (6, 2, 6));
    assert!(all.1 > 3 * 4096 && all.1 < 3 * 4200, "three are noise: {all:?}");
    assert!(two.1 > 4096 && two.1 < 4200, "the first and the fourth: {two:?}");
    assert_eq!(contents(&mut staging), pages.map(|(gfn, byte)| (gfn, Some(byte))));
    let mut raw = Staging::try_new(9, Compression::None);
    put_all(&mut raw, &pages, true);
    assert_eq!(raw.sample(6), (6, 6 * 4096), "where nothing is packed");
    let mut raw = Staging::try_new(1, Compression::None);
    raw.begin_batch(false);
    assert!(raw.admit(Gfn::new(1)));
    raw.land(0, &mut |_| Ok(())).unwrap();
    assert_eq!((raw.sample(6), raw.with_content()), ((0, 0), 0), "a page of zeros");
}

proptest! {
    /// Two ascending passes over pages and holes against a map; the second packed or not.
    #[test]
    fn behaves_as_a_map(
        first in prop::collection::btree_map(0u64..60, prop::option::of(any::<u8>()), 0..40),
        second in prop::collection::btree_map(0u64..60, prop::option::of(any::<u8>()), 0..40),
        packs: bool,
    ) {
        let mut staging = Staging::try_new(200, Compression::Lz4);
        let mut model = BTreeMap::new();
        for (number, pass) in [first, second].into_iter().enumerate() {
            if number == 1 {
                staging.end_first_pass();
            }
            for (gfn, byte) in pass {
                let done = match byte {
                    Some(byte) => put_all(&mut staging, &[(gfn, byte)], packs && number == 1) == 1,
                    None => staging.hole(Gfn::new(gfn)),
                };
                prop_assert!(done);
                model.insert(gfn, byte);
            }
        }
        prop_assert_eq!(contents(&mut staging), model.into_iter().collect::<Vec<_>>());
    }
}
