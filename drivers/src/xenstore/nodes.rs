//! What can be done with nodes, inside a transaction and outside: one set of calls for both.

use super::client::{Client, XsError};
use super::transport::Wire;
use super::wire::{Perm, Request, parse_decimal, text, texts};
use crate::types::DomId;
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use xen_hypercall::XenErrno;

/// How often a transaction is tried anew after a conflict.
pub const TRANSACTION_TRIES: usize = 8;
/// Parts of a long directory that are fetched: 64 x 4 KiB, more names than any quota allows.
const DIRECTORY_PARTS_MAX: usize = 64;

/// Operations on nodes. Paths are absolute, or relative to the caller's own domain directory.
pub trait Nodes {
    /// Sends a request in this context and returns its reply's payload.
    fn request(&mut self, request: &Request<'_>) -> Result<Vec<u8>, XsError>;

    /// The value, as bytes.
    fn read(&mut self, path: &str) -> Result<Vec<u8>, XsError> {
        self.request(&Request::Read(path))
    }

    /// The value, as text.
    fn read_text(&mut self, path: &str) -> Result<String, XsError> {
        String::from_utf8(self.read(path)?).map_err(|_| XsError::BadContent)
    }

    /// The value as text, or `None` if there is no such node.
    fn find_text(&mut self, path: &str) -> Result<Option<String>, XsError> {
        match self.read_text(path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the value, and makes the node if there is none.
    fn write(&mut self, path: &str, value: impl AsRef<[u8]>) -> Result<(), XsError>
    where
        Self: Sized,
    {
        self.request(&Request::Write(path, value.as_ref())).map(drop)
    }

    /// Makes the node if there is none.
    fn mkdir(&mut self, path: &str) -> Result<(), XsError> {
        self.request(&Request::Mkdir(path)).map(drop)
    }

    /// Removes the node and all below it. xenstored takes a missing node (below an existing one) for success.
    fn rm(&mut self, path: &str) -> Result<(), XsError> {
        self.request(&Request::Rm(path)).map(drop)
    }

    /// The names of the children, however many: long lists come in parts, of which 64 are fetched.
    fn directory(&mut self, path: &str) -> Result<Vec<String>, XsError> {
        match self.request(&Request::Directory(path)) {
            Ok(payload) => Ok(texts(&payload)?.into_iter().map(ToOwned::to_owned).collect()),
            Err(XsError::Denied(XenErrno::E2BIG)) => self.directory_in_parts(path),
            Err(error) => Err(error),
        }
    }

    /// DIRECTORY_PART: each reply is the node's generation, names from the offset on, and an empty name at the end. A
    /// generation that changes on the way means the listing is a mixture, so it is refused as a conflict.
    fn directory_in_parts(&mut self, path: &str) -> Result<Vec<String>, XsError> {
        let (mut names, mut offset, mut generation) = (Vec::new(), 0, None::<String>);
        for _ in 0..DIRECTORY_PARTS_MAX {
            let payload = self.request(&Request::DirectoryPart(path, offset))?;
            let parts = texts(&payload)?;
            let Some((first, rest)) = parts.split_first() else { return Err(XsError::BadContent) };
            if generation.get_or_insert_with(|| (*first).to_owned()) != first {
                return Err(XsError::Conflict);
            }
            for name in rest {
                if name.is_empty() {
                    return Ok(names);
                }
                offset += name.len() as u32 + 1;
                names.push((*name).to_owned());
            }
        }
        Err(XsError::BadContent)
    }

    /// The permissions; the first entry is the owner's.
    fn get_perms(&mut self, path: &str) -> Result<Vec<Perm>, XsError> {
        let payload = self.request(&Request::GetPerms(path))?;
        Ok(texts(&payload)?.into_iter().map(Perm::parse).collect::<Result<_, _>>()?)
    }

    /// Sets the permissions; the first entry is the owner's.
    fn set_perms(&mut self, path: &str, perms: &[Perm]) -> Result<(), XsError> {
        self.request(&Request::SetPerms(path, perms)).map(drop)
    }
}

impl<W: Wire> Nodes for Client<W> {
    fn request(&mut self, request: &Request<'_>) -> Result<Vec<u8>, XsError> {
        self.exchange(0, request)
    }
}

/// An open transaction: the same calls, seen by others all at once or never.
#[derive(Debug)]
pub struct Transaction<'a, W: Wire> {
    client: &'a mut Client<W>,
    id: u32,
}

impl<W: Wire> Nodes for Transaction<'_, W> {
    fn request(&mut self, request: &Request<'_>) -> Result<Vec<u8>, XsError> {
        self.client.exchange(self.id, request)
    }
}

impl<W: Wire> Client<W> {
    /// Runs `body` in a transaction, again after a conflict, at most [`TRANSACTION_TRIES`] times. An error of `body`
    /// aborts the transaction and is returned; so `body` may change nothing but xenstore.
    pub fn transaction<R>(
        &mut self,
        mut body: impl FnMut(&mut Transaction<'_, W>) -> Result<R, XsError>,
    ) -> Result<R, XsError> {
        for _ in 0..TRANSACTION_TRIES {
            let id = self.transaction_start()?;
            let outcome = body(&mut Transaction { client: self, id });
            let end = self.exchange(id, &Request::TransactionEnd(outcome.is_ok()));
            match (outcome, end) {
                (Ok(value), Ok(_)) => return Ok(value),
                (_, Err(XsError::Denied(XenErrno::EAGAIN))) | (Err(XsError::Denied(XenErrno::EAGAIN)), _) => {}
                (Err(error), _) | (Ok(_), Err(error)) => return Err(error),
            }
        }
        Err(XsError::Conflict)
    }

    fn transaction_start(&mut self) -> Result<u32, XsError> {
        let payload = self.exchange(0, &Request::TransactionStart)?;
        match parse_decimal(text(&payload)?)? {
            // 0 would mean "no transaction", and every write in it would be seen at once.
            0 => Err(XsError::BadContent),
            id => Ok(id),
        }
    }

    /// The directory of a domain (`/local/domain/N`), whether or not it exists.
    pub fn get_domain_path(&mut self, domid: DomId) -> Result<String, XsError> {
        let payload = self.exchange(0, &Request::GetDomainPath(domid))?;
        Ok(text(&payload)?.to_owned())
    }

    /// Tells xenstored that a suspended domain runs again (dom0 only), so that its next shutdown is announced.
    pub fn resume(&mut self, domid: DomId) -> Result<(), XsError> {
        self.exchange(0, &Request::Resume(domid)).map(drop)
    }
}
