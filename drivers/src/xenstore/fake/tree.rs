//! The fake xenstored's tree: nodes with permissions, and what a request does to them.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a fake fails the test that misuses it")]

use crate::types::DomId;
use crate::xenstore::wire::{Perm, Rights, texts};
use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use xen_hypercall::abi::io::xs_wire as abi;

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub value: Vec<u8>,
    pub perms: Vec<Perm>,
}

pub(super) type Tree = BTreeMap<String, Node>;

fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(at) => &path[..at],
    }
}

pub(super) fn rights(node: &Node, domid: DomId) -> Rights {
    if domid == DomId::new(0) || node.perms[0].domid == domid {
        return Rights::Both;
    }
    node.perms[1..].iter().find(|perm| perm.domid == domid).unwrap_or(&node.perms[0]).rights
}

fn may_write(node: &Node, domid: DomId) -> bool {
    matches!(rights(node, domid), Rights::Write | Rights::Both)
}

pub(super) fn write_node(tree: &mut Tree, domid: DomId, path: &str, value: &[u8]) -> Result<(), &'static str> {
    if let Some(node) = tree.get_mut(path) {
        if !may_write(node, domid) {
            return Err("EACCES");
        }
        node.value = value.to_vec();
        return Ok(());
    }
    if !tree.contains_key(parent(path)) {
        write_node(tree, domid, parent(path), b"")?;
    }
    let above = &tree[parent(path)];
    if !may_write(above, domid) {
        return Err("EACCES");
    }
    let mut perms = above.perms.clone();
    if domid != DomId::new(0) {
        perms[0].domid = domid;
    }
    tree.insert(path.to_owned(), Node { value: value.to_vec(), perms });
    Ok(())
}

pub(super) fn remove_node(tree: &mut Tree, path: &str) {
    let below = format!("{path}/");
    tree.retain(|name, _| name != path && !name.starts_with(&below));
}

pub(super) fn change_node(
    tree: &mut Tree,
    domid: DomId,
    kind: u32,
    path: &str,
    rest: &[u8],
) -> Result<(), &'static str> {
    match kind {
        abi::XS_WRITE => write_node(tree, domid, path, rest),
        abi::XS_MKDIR if tree.contains_key(path) => Ok(()),
        abi::XS_MKDIR => write_node(tree, domid, path, b""),
        abi::XS_SET_PERMS => {
            let node = tree.get_mut(path).ok_or("ENOENT")?;
            if domid != DomId::new(0) && node.perms[0].domid != domid {
                return Err("EACCES");
            }
            node.perms = texts(rest).unwrap().into_iter().map(|text| Perm::parse(text).unwrap()).collect();
            Ok(())
        }
        _ => {
            let above = tree.get(parent(path)).ok_or("ENOENT")?;
            let Some(node) = tree.get(path) else { return Ok(()) };
            if !may_write(above, domid) || !may_write(node, domid) {
                return Err("EACCES");
            }
            remove_node(tree, path);
            Ok(())
        }
    }
}

pub(super) fn read_node(
    tree: &Tree,
    domid: DomId,
    kind: u32,
    path: &str,
    rest: &[u8],
) -> Result<Vec<u8>, &'static str> {
    let node = tree.get(path).ok_or("ENOENT")?;
    if !matches!(rights(node, domid), Rights::Read | Rights::Both) {
        return Err("EACCES");
    }
    match kind {
        abi::XS_READ => Ok(node.value.clone()),
        abi::XS_GET_PERMS => {
            let letter = |perm: &Perm| match perm.rights {
                Rights::None => 'n',
                Rights::Read => 'r',
                Rights::Write => 'w',
                Rights::Both => 'b',
            };
            Ok(node.perms.iter().flat_map(|p| format!("{}{}\0", letter(p), p.domid.raw()).into_bytes()).collect())
        }
        abi::XS_DIRECTORY | abi::XS_DIRECTORY_PART => list(tree, kind, path, rest),
        _ => Err("ENOSYS"),
    }
}

fn list(tree: &Tree, kind: u32, path: &str, rest: &[u8]) -> Result<Vec<u8>, &'static str> {
    let names: Vec<&str> = tree
        .keys()
        .filter(|name| *name != "/" && parent(name) == path)
        .map(|name| &name[name.rfind('/').unwrap() + 1..])
        .collect();
    let all: String = names.iter().map(|name| (*name).to_string() + "\0").collect();
    if kind == abi::XS_DIRECTORY {
        return if all.len() > abi::PAYLOAD_MAX { Err("E2BIG") } else { Ok(all.into_bytes()) };
    }
    let offset: usize = texts(rest).unwrap()[0].parse().unwrap();
    let mut part = "7\0".to_owned();
    for name in all.get(offset..).ok_or("EINVAL")?.split_inclusive('\0') {
        if part.len() + name.len() > 2000 {
            return Ok(part.into_bytes());
        }
        part += name;
    }
    part.push('\0');
    Ok(part.into_bytes())
}
