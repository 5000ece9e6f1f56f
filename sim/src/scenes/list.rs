//! All scenes, by name.

use super::{cleaner, devices, excess, forged, readers, sectors, writers};
use crate::judge::Verdict;

/// A scene.
pub type Scene = fn() -> Verdict;

/// Name and scene.
pub const ALL: [(&str, Scene); 18] = [
    ("reader", readers::removed),
    ("reader-twice", readers::removed_twice),
    ("reader-clean", readers::cleaned),
    ("reader-first", readers::was_there_first),
    ("devices", devices::left_alone),
    ("shared-address", forged::shared_address),
    ("unmapped", forged::unmapped),
    ("false-content", forged::false_content),
    ("bad-page", sectors::page_of_a_batch),
    ("bad-part", sectors::part_of_an_attachment),
    ("bad-root", sectors::root_of_another),
    ("cleaner-take", cleaner::a_take_comes),
    ("cleaner-remove", cleaner::a_removal_comes),
    ("names", excess::names),
    ("gfns", excess::gfns),
    ("parts", excess::parts),
    ("two-writers", writers::two),
    ("two-at-once", writers::at_once),
];

/// The scene of this name.
pub fn find(name: &str) -> Option<Scene> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, scene)| *scene)
}
