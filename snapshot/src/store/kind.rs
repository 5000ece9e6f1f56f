//! The kinds of metadata (docs/format/store-v1.md, section 8).
//!
//! Invariant: the kind is part of what a digest is over, so metadata of one kind never passes for another.

/// What a pointer points at: four ASCII letters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind(pub [u8; 4]);

impl Kind {
    /// The catalog.
    pub const CATALOG: Self = Self(*b"LSCT");
    /// The directory of the segment table.
    pub const DIRECTORY: Self = Self(*b"LSTD");
    /// A leaf of the segment table.
    pub const TABLE_LEAF: Self = Self(*b"LSTL");
    /// The root of a snapshot.
    pub const ROOT: Self = Self(*b"LSRO");
    /// A node of a run.
    pub const RUN_NODE: Self = Self(*b"LSRN");
    /// A leaf of a run.
    pub const RUN_LEAF: Self = Self(*b"LSRL");
    /// A set of segments.
    pub const SEGMENT_SET: Self = Self(*b"LSSS");
    /// An attachment.
    pub const ATTACHMENT: Self = Self(*b"LSAT");

    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::CATALOG => "catalog",
            Self::DIRECTORY => "segment table directory",
            Self::TABLE_LEAF => "segment table",
            Self::ROOT => "snapshot root",
            Self::RUN_NODE => "run node",
            Self::RUN_LEAF => "run leaf",
            Self::SEGMENT_SET => "set of segments",
            Self::ATTACHMENT => "attachment",
            _ => "unknown structure",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_kind_has_a_name_of_its_own() {
        let kinds = [
            Kind::CATALOG,
            Kind::DIRECTORY,
            Kind::TABLE_LEAF,
            Kind::ROOT,
            Kind::RUN_NODE,
            Kind::RUN_LEAF,
            Kind::SEGMENT_SET,
            Kind::ATTACHMENT,
            Kind(*b"none"),
        ];
        let names: BTreeSet<_> = kinds.iter().map(|kind| kind.name()).collect();
        assert!(names.len() == kinds.len() && names.contains("catalog"), "{names:?}");
    }
}
