//! The bytes of xenstore messages (public/io/xs_wire.h, docs/misc/xenstore.txt), apart from who carries them.
//!
//! [`Header`] and [`Request`] hold only legal values: what they emit xenstored will parse, and what they parse is
//! within the protocol's bounds. No function here panics, whatever the bytes.

use crate::types::DomId;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use xen_hypercall::abi::io::xs_wire as abi;

/// Bytes of a message header (`struct xsd_sockmsg`).
pub const HEADER_LEN: usize = 16;
/// Bytes of the longest payload.
pub const PAYLOAD_MAX: usize = abi::PAYLOAD_MAX;
/// Bytes of the longest token that we register: a name, no more.
pub const TOKEN_MAX: usize = 64;

/// Why a request cannot be sent; the caller's mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Longer than 3072 bytes (absolute) or 2048 (relative).
    PathTooLong,
    /// Empty, or with a byte that xenstore does not allow in a path, or an empty component.
    BadPath,
    /// A token that is empty, too long or holds a NUL.
    BadToken,
    /// More than 4096 bytes in all.
    PayloadTooLong,
}

/// The bytes are no legal message; the peer's mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// `struct xsd_sockmsg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// `XS_*`, unchecked: the receiver compares it with what it expects.
    pub kind: u32,
    /// The client's name of the request; 0 in watch events.
    pub req_id: u32,
    /// The transaction, or 0.
    pub tx_id: u32,
    /// Bytes that follow, at most [`PAYLOAD_MAX`].
    pub len: u32,
}

impl Header {
    /// The bytes.
    pub fn emit(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        let words = [self.kind, self.req_id, self.tx_id, self.len];
        for (to, word) in out.as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *to = word.to_le_bytes();
        }
        out
    }

    /// The header in these bytes.
    pub fn parse(bytes: &[u8; HEADER_LEN]) -> Result<Self, Malformed> {
        let word = |i: usize| u32::from_le_bytes(bytes.as_chunks::<4>().0[i]);
        let header = Self { kind: word(0), req_id: word(1), tx_id: word(2), len: word(3) };
        if header.len as usize <= PAYLOAD_MAX { Ok(header) } else { Err(Malformed) }
    }
}

/// What a domain may do with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// `n`
    None,
    /// `r`
    Read,
    /// `w`
    Write,
    /// `b`
    Both,
}

/// One entry of a node's permissions. The first names the owner (who may do everything) and the rights of all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Perm {
    /// Whose rights.
    pub domid: DomId,
    /// What they are.
    pub rights: Rights,
}

impl Perm {
    /// An entry.
    pub const fn new(rights: Rights, domid: DomId) -> Self {
        Self { domid, rights }
    }

    fn emit(self, out: &mut String) {
        let letter = match self.rights {
            Rights::None => 'n',
            Rights::Read => 'r',
            Rights::Write => 'w',
            Rights::Both => 'b',
        };
        // Writing to a String cannot fail.
        let _ = write!(out, "{letter}{}\0", self.domid.raw());
    }

    /// The entry in a text such as `b7`.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let mut chars = text.chars();
        let rights = match chars.next() {
            Some('n') => Rights::None,
            Some('r') => Rights::Read,
            Some('w') => Rights::Write,
            Some('b') => Rights::Both,
            _ => return Err(Malformed),
        };
        Ok(Self { rights, domid: DomId::new(parse_decimal(chars.as_str())?) })
    }
}

/// A decimal number without sign, as xenstore writes domids and transaction ids.
pub fn parse_decimal<T: core::str::FromStr>(text: &str) -> Result<T, Malformed> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed);
    }
    text.parse().map_err(|_| Malformed)
}

/// A request, by what xenstored shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Names of the children.
    Directory(&'a str),
    /// A part of the names, from this byte offset, preceded by the node's generation.
    DirectoryPart(&'a str, u32),
    /// The value.
    Read(&'a str),
    /// The permissions.
    GetPerms(&'a str),
    /// Path and token of a new watch.
    Watch(&'a str, &'a str),
    /// Path and token of a watch to remove.
    Unwatch(&'a str, &'a str),
    /// A new transaction; only outside one.
    TransactionStart,
    /// The end of the transaction: commit, or forget.
    TransactionEnd(bool),
    /// The directory of a domain.
    GetDomainPath(DomId),
    /// Path and value.
    Write(&'a str, &'a [u8]),
    /// A node with an empty value, if there is none.
    Mkdir(&'a str),
    /// The node and all below it.
    Rm(&'a str),
    /// New permissions.
    SetPerms(&'a str, &'a [Perm]),
    /// xenstored shall take the domain for running again (dom0 only).
    Resume(DomId),
}

impl Request<'_> {
    /// `XS_*`.
    pub fn kind(&self) -> u32 {
        match self {
            Self::Directory(_) => abi::XS_DIRECTORY,
            Self::DirectoryPart(..) => abi::XS_DIRECTORY_PART,
            Self::Read(_) => abi::XS_READ,
            Self::GetPerms(_) => abi::XS_GET_PERMS,
            Self::Watch(..) => abi::XS_WATCH,
            Self::Unwatch(..) => abi::XS_UNWATCH,
            Self::TransactionStart => abi::XS_TRANSACTION_START,
            Self::TransactionEnd(_) => abi::XS_TRANSACTION_END,
            Self::GetDomainPath(_) => abi::XS_GET_DOMAIN_PATH,
            Self::Write(..) => abi::XS_WRITE,
            Self::Mkdir(_) => abi::XS_MKDIR,
            Self::Rm(_) => abi::XS_RM,
            Self::SetPerms(..) => abi::XS_SET_PERMS,
            Self::Resume(_) => abi::XS_RESUME,
        }
    }

    /// Replaces `out` by the whole message.
    pub fn emit(&self, req_id: u32, tx_id: u32, out: &mut Vec<u8>) -> Result<(), Refused> {
        out.clear();
        out.extend_from_slice(&[0; HEADER_LEN]);
        self.emit_payload(out)?;
        let len = out.len() - HEADER_LEN;
        if len > PAYLOAD_MAX {
            return Err(Refused::PayloadTooLong);
        }
        let header = Header { kind: self.kind(), req_id, tx_id, len: len as u32 };
        out[..HEADER_LEN].copy_from_slice(&header.emit());
        Ok(())
    }

    fn emit_payload(&self, out: &mut Vec<u8>) -> Result<(), Refused> {
        match *self {
            Self::Directory(path) | Self::Read(path) | Self::GetPerms(path) | Self::Mkdir(path) | Self::Rm(path) => {
                put_path(out, path)
            }
            Self::DirectoryPart(path, offset) => {
                put_path(out, path)?;
                put_number(out, offset)
            }
            Self::Watch(path, token) | Self::Unwatch(path, token) => {
                put_path(out, path)?;
                put_token(out, token)
            }
            Self::TransactionStart => put_text(out, ""),
            Self::TransactionEnd(commit) => put_text(out, if commit { "T" } else { "F" }),
            Self::GetDomainPath(domid) | Self::Resume(domid) => put_number(out, u32::from(domid.raw())),
            Self::Write(path, value) => {
                put_path(out, path)?;
                out.extend_from_slice(value);
                Ok(())
            }
            Self::SetPerms(path, perms) => {
                put_path(out, path)?;
                let mut text = String::new();
                perms.iter().for_each(|perm| perm.emit(&mut text));
                out.extend_from_slice(text.as_bytes());
                Ok(())
            }
        }
    }
}

/// Text and its NUL.
fn put_text(out: &mut Vec<u8>, text: &str) -> Result<(), Refused> {
    out.extend_from_slice(text.as_bytes());
    out.push(0);
    Ok(())
}

fn put_number(out: &mut Vec<u8>, number: u32) -> Result<(), Refused> {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(text, "{number}");
    put_text(out, &text)
}

fn put_token(out: &mut Vec<u8>, token: &str) -> Result<(), Refused> {
    if token.is_empty() || token.len() > TOKEN_MAX || token.contains('\0') {
        return Err(Refused::BadToken);
    }
    put_text(out, token)
}

fn put_path(out: &mut Vec<u8>, path: &str) -> Result<(), Refused> {
    check_path(path)?;
    put_text(out, path)
}

/// Whether xenstored would take this path (docs/misc/xenstore.txt, "Paths").
pub fn check_path(path: &str) -> Result<(), Refused> {
    let max = if path.starts_with('/') { abi::ABS_PATH_MAX } else { abi::REL_PATH_MAX };
    // The bound of the ABI counts the NUL.
    if path.len() >= max {
        return Err(Refused::PathTooLong);
    }
    let plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-/_@".contains(&byte));
    let root = path == "/";
    if path.is_empty() || !plain || path.contains("//") || (path.ends_with('/') && !root) {
        return Err(Refused::BadPath);
    }
    Ok(())
}

/// The payload's NUL-terminated texts. Each must end in a NUL, and be UTF-8.
pub fn texts(payload: &[u8]) -> Result<Vec<&str>, Malformed> {
    let Some((last, body)) = payload.split_last() else { return Ok(Vec::new()) };
    if *last != 0 {
        return Err(Malformed);
    }
    body.split(|byte| *byte == 0).map(|text| core::str::from_utf8(text).map_err(|_| Malformed)).collect()
}

/// The payload as exactly one NUL-terminated text.
pub fn text(payload: &[u8]) -> Result<&str, Malformed> {
    match texts(payload)?[..] {
        [one] => Ok(one),
        _ => Err(Malformed),
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
