//! Whoever has the store's key: changes structures on a disk, and makes every digest above them right again.
//!
//! That is what a faulty writer would leave, and what no digest notices. Where things lie is found from the bytes and
//! the format's document, not by the store's code.

use snapshot::ports::Page;
use snapshot::store::layout::{
    Kind, catalog, catalog_entry, directory, directory_entry, meta_pointer, pointer, root, run_record, superblock,
    table_leaf,
};

use crate::image::{Block, Image};

/// The key of a history's stores: `id ^ 0x5a` of id 1.
const KEY: [u8; 32] = [0x5b; 32];

/// Where the structures of a small store lie, and those of one of its snapshots.
pub struct Map {
    /// The blocks of the device.
    blocks: u64,
    /// The number of the snapshot.
    number: usize,
    pub slot: u64,
    pub catalog: u64,
    pub directory: u64,
    pub table: u64,
    pub root: u64,
    pub leaf: u64,
    pub set: u64,
}

impl Map {
    /// Of the snapshot with this number in the catalog.
    pub fn of(image: &Image, blocks: u64, number: usize) -> Self {
        let head = image.bytes(0);
        let catalog_at = meta_pointer::BLOCK.u64(superblock::CATALOG.of(&head));
        let directory_at = meta_pointer::BLOCK.u64(superblock::DIRECTORY.of(&head));
        let table = directory_entry::BLOCK.u64(&image.bytes(directory_at)[directory::SIZE..]);
        let block = |raw: &[u8]| {
            let address = address(image, table, pointer::SEGMENT.u32(raw));
            u64::from(address) * 256 + u64::from(pointer::SLOT.u16(raw))
        };
        let entry = catalog::SIZE + number * catalog_entry::SIZE;
        let root_at = block(catalog_entry::ROOT.of(&image.bytes(catalog_at)[entry..]));
        let record = image.bytes(root_at);
        let record = &record[root::SIZE..];
        let (leaf, set) = (block(run_record::TREE.of(record)), block(run_record::SEGMENTS.of(record)));
        Self { blocks, number, slot: 0, catalog: catalog_at, directory: directory_at, table, root: root_at, leaf, set }
    }

    /// Makes the root right for an index of one leaf, and for the set.
    pub fn sign_run(&self, image: &mut Image) {
        sign(image, self.root, root::SIZE + run_record::TREE.offset, Kind::RUN_LEAF, self.leaf);
        sign(image, self.root, root::SIZE + run_record::SEGMENTS.offset, Kind::SEGMENT_SET, self.set);
    }

    /// Makes every digest from the root upwards right again.
    pub fn sign(&self, image: &mut Image) {
        let entry = catalog::SIZE + self.number * catalog_entry::SIZE;
        sign(image, self.catalog, entry + catalog_entry::ROOT.offset, Kind::ROOT, self.root);
        let mut page = image.bytes(self.directory);
        let leaf = digest(Kind::TABLE_LEAF, 4096, &image.bytes(self.table));
        directory_entry::DIGEST.put(&mut page[directory::SIZE..], &leaf);
        image.put(self.directory, Block::new(page));
        let mut head = image.bytes(0);
        for (field, kind, at) in [
            (superblock::CATALOG, Kind::CATALOG, self.catalog),
            (superblock::DIRECTORY, Kind::DIRECTORY, self.directory),
        ] {
            let bytes = meta_pointer::BYTES.u32(field.of(&head));
            meta_pointer::DIGEST.put(&mut head[field.offset..], &digest(kind, bytes, &image.bytes(at)));
        }
        let head = sealed(head);
        image.put(0, Block::new(head));
        image.put(self.blocks - 1, Block::new(head));
    }

    /// The address of a segment in the table.
    pub fn address(&self, image: &Image, id: u32) -> u32 {
        address(image, self.table, id)
    }

    /// Puts a segment elsewhere, or nowhere.
    pub fn set_address(&self, image: &mut Image, id: u32, address: u32) {
        let mut page = image.bytes(self.table);
        let entry = table_leaf::SIZE + 4 * id as usize;
        page[entry..entry + 4].copy_from_slice(&address.to_le_bytes());
        image.put(self.table, Block::new(page));
    }
}

fn address(image: &Image, table: u64, id: u32) -> u32 {
    let entry = table_leaf::SIZE + 4 * id as usize;
    u32::from_le_bytes(*image.bytes(table)[entry..].first_chunk().unwrap_or(&[0; 4]))
}

/// A superblock whose checksum is right.
pub fn sealed(mut head: Page) -> Page {
    let sum = blake3::hash(&head[..superblock::CHECKSUM.offset]);
    superblock::CHECKSUM.put(&mut head, &sum.as_bytes()[..16]);
    head
}

/// Makes a pointer at an offset of a block right for what it points at.
fn sign(image: &mut Image, holder: u64, offset: usize, kind: Kind, target: u64) {
    let mut page = image.bytes(holder);
    let bytes = pointer::BYTES.u32(&page[offset..]);
    pointer::DIGEST.put(&mut page[offset..], &digest(kind, bytes, &image.bytes(target)));
    image.put(holder, Block::new(page));
}

fn digest(kind: Kind, bytes: u32, page: &Page) -> [u8; 16] {
    let key = blake3::keyed_hash(&KEY, b"livesave v1 meta");
    let mut hasher = blake3::Hasher::new_keyed(key.as_bytes());
    hasher.update(&kind.0).update(&bytes.to_le_bytes()).update(page);
    *hasher.finalize().as_bytes().first_chunk().unwrap_or(&[0; 16])
}
