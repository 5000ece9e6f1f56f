//! The document of the format and the code agree: every table, every constant, every kind.

use std::collections::BTreeMap;

use snapshot::store::layout::{
    self, BLOCK, Field, Kind, LEAF_BLOCKS, LEAF_ENTRIES, NODE_CHILDREN, RUNS_MAX, STRUCTURES, TABLE_LEAF_ENTRIES,
};

const DOCUMENT: &str = include_str!("../../../docs/format/store-v1.md");

/// Offset, size, name.
type Row = (usize, usize, String);

/// Size and rows of each table that is marked.
fn tables() -> BTreeMap<String, (usize, Vec<Row>)> {
    let mut found = BTreeMap::new();
    let mut lines = DOCUMENT.lines();
    while let Some(line) = lines.next() {
        let Some(mark) = line.strip_prefix("<!-- table: ").and_then(|rest| rest.strip_suffix(" -->")) else { continue };
        let (name, size) = mark.split_once(' ').unwrap();
        let rows = lines.by_ref().skip(2).take_while(|line| line.starts_with('|')).map(row).collect();
        assert!(found.insert(name.to_string(), (size.parse().unwrap(), rows)).is_none(), "{name} twice");
    }
    found
}

fn row(line: &str) -> Row {
    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
    assert!(cells.len() >= 6 && !cells[4].is_empty(), "no meaning: {line}");
    (cells[1].parse().unwrap(), cells[2].parse().unwrap(), cells[3].to_string())
}

#[test]
fn every_structure_of_the_code_is_in_the_document_and_the_other_way_round() {
    let document = tables();
    let in_code = |(name, size, fields): &(&str, usize, &[Field])| {
        let rows = fields.iter().map(|field| (field.offset, field.size, field.name.to_string())).collect();
        (name.to_string(), (*size, rows))
    };
    let code: BTreeMap<_, _> = STRUCTURES.iter().map(in_code).collect();
    assert_eq!(document.keys().collect::<Vec<_>>(), code.keys().collect::<Vec<_>>());
    for (name, table) in &document {
        assert_eq!(table, &code[name], "{name}");
    }
}

#[test]
fn the_constants_are_in_the_document() {
    let text = DOCUMENT.split_whitespace().collect::<Vec<_>>().join(" ");
    let says = |words: String| assert!(text.contains(&words), "the document does not say: {words}");
    says(format!("A **block** is {BLOCK} bytes"));
    says(format!("{TABLE_LEAF_ENTRIES} addresses of 4 bytes"));
    says(format!("at most {LEAF_BLOCKS} blocks ({LEAF_ENTRIES} entries), a node 1 block ({NODE_CHILDREN} children)"));
    says(format!("names at most {RUNS_MAX} immutable *runs*"));
    says(format!("{} blocks are the least", layout::DEVICE_BLOCKS_MIN));
    says("of a newer version: *newer version*, refused by all".to_string());
    says(format!("| attachment_count | 0 to {} |", layout::PARTS_MAX));
    says(format!("| metadata_bytes | at most {} |", layout::METADATA_MAX));
    says(format!("larger than {} KiB is cut", layout::PART_BYTES >> 10));
    says(format!("0 a leaf, at most {}", layout::LEVEL_MAX));
    says(format!("(blocks {} to {})", layout::KEY_AREA_FIRST, layout::META_FIRST - 1));
    says(format!("(blocks {} to {})", layout::LEASE_FIRST, layout::LEASE_FIRST + u64::from(layout::LEASES) - 1));
    says(format!("`min(S0, {})`", layout::SNAPSHOTS_MAX));
    says(format!("2^{} ranges", snapshot::pv::RANGES_MAX.ilog2()));
    for magic in [layout::SUPERBLOCK_MAGIC, layout::HEARTBEAT_MAGIC, layout::LEASE_MAGIC, layout::ROOT_MAGIC] {
        says(format!("`{}`", core::str::from_utf8(&magic).unwrap()));
    }
    let kinds = [Kind::CATALOG, Kind::DIRECTORY, Kind::TABLE_LEAF, Kind::ROOT, Kind::RUN_NODE];
    for kind in kinds.iter().chain(&[Kind::RUN_LEAF, Kind::SEGMENT_SET, Kind::ATTACHMENT]) {
        says(format!("`{}`", core::str::from_utf8(&kind.0).unwrap()));
    }
}
