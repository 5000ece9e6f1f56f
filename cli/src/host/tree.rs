//! Reading xenstore, behind a trait small enough for tests to stand in.

use crate::exit::{Exit, Failure, Outcome};
use crate::waits;
use std::collections::BTreeMap;
use xen_drivers::xenstore::file::XenbusFile;
use xen_drivers::xenstore::{Client, Nodes, XsError};

/// dom0's client.
pub type XenStore = Client<XenbusFile>;

/// What resolving names and checking guests reads.
pub trait Tree {
    /// The value, if the node exists.
    fn get(&mut self, path: &str) -> Outcome<Option<String>>;
    /// The names of the children; none if the node does not exist.
    fn list(&mut self, path: &str) -> Outcome<Vec<String>>;
}

/// Connects to xenstored.
pub fn connect() -> Outcome<XenStore> {
    let wire = XenbusFile::open().map_err(|error| {
        Exit::NoXen
            .fail(format_args!("/dev/xen/xenbus cannot be opened: {error:?}"))
            .hint("run livesave in dom0, as root, with the module xenfs loaded")
    })?;
    let mut client = Client::new(wire);
    client.set_timeout_ns(u64::try_from(waits::XENSTORE.as_nanos()).unwrap_or(u64::MAX));
    Ok(client)
}

/// What an error of xenstore means to a command.
pub fn trouble(what: &str, error: XsError) -> Failure {
    match error {
        XsError::Timeout => Exit::Internal.fail(format_args!("{what}: {error}")).hint("is xenstored running?"),
        _ => Exit::Internal.fail(format_args!("{what}: {error}")),
    }
}

impl Tree for XenStore {
    fn get(&mut self, path: &str) -> Outcome<Option<String>> {
        match self.find_text(path) {
            // A node that a guest filled with rubbish is no reason to fail for all.
            Err(XsError::BadContent) => Ok(None),
            other => other.map_err(|error| trouble(path, error)),
        }
    }

    fn list(&mut self, path: &str) -> Outcome<Vec<String>> {
        match self.directory(path) {
            Ok(names) => Ok(names.into_iter().filter(|name| !name.is_empty()).collect()),
            Err(error) if error.is_missing() => Ok(Vec::new()),
            Err(error) => Err(trouble(path, error)),
        }
    }
}

/// A tree in memory, for tests.
impl Tree for BTreeMap<String, String> {
    fn get(&mut self, path: &str) -> Outcome<Option<String>> {
        Ok(BTreeMap::get(self, path).cloned())
    }

    fn list(&mut self, path: &str) -> Outcome<Vec<String>> {
        let prefix = format!("{path}/");
        let mut names: Vec<String> =
            self.keys().filter_map(|key| key.strip_prefix(&prefix)?.split('/').next().map(str::to_owned)).collect();
        names.dedup();
        Ok(names)
    }
}
