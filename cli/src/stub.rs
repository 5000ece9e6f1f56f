//! The stub domain: where it is, what it says of itself, where its store is, and requests to it.

use crate::args::Place;
use crate::catalog;
use crate::domain::{self, Found};
use crate::exit::{Exit, Failure, Outcome};
use crate::host::device::lasting_name;
use crate::host::tree::Tree;
use crate::seen::{self, Sight};
use snapshot::status::{StubNode, StubState};
use std::path::PathBuf;

/// A stub that speaks our protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stub {
    /// Its domain.
    pub domain: Found,
    /// What it says of itself.
    pub node: StubNode,
}

/// The base of all nodes of the protocol.
pub fn base(found: &Found) -> String {
    format!("/local/domain/{}/data/livesave", found.domid)
}

/// Finds the stub's domain.
pub fn find(tree: &mut impl Tree, place: &Place) -> Outcome<Found> {
    domain::resolve(tree, &place.stub).map_err(|failure| match failure.exit {
        Exit::NoDomain => Exit::NoStub
            .fail(format_args!("no stub domain '{}' runs", place.stub))
            .hint("`xl create /etc/xen/livesave.cfg`, or name another with --stub"),
        _ => failure,
    })
}

/// Reads what the stub says of itself, ready or not.
pub fn read(tree: &mut impl Tree, place: &Place) -> Outcome<Stub> {
    let domain = find(tree, place)?;
    let text = tree.get(&format!("{}/stub", base(&domain)))?.ok_or_else(|| {
        let what = format!("domain '{}' ({}) is no stub, or still boots", domain.name, domain.domid);
        Exit::StubNotReady.fail(what).hint("`xl console` shows its log")
    })?;
    let node = StubNode::parse(text.as_bytes()).map_err(|error| {
        Exit::StubNotReady
            .fail(format_args!("the stub's node is not understood: {error}"))
            .hint("stub and livesave must be of the same version")
    })?;
    Ok(Stub { domain, node })
}

/// The stub, ready for a request.
pub fn ready(tree: &mut impl Tree, place: &Place) -> Outcome<Stub> {
    let stub = read(tree, place)?;
    match stub.node.state {
        StubState::Idle => Ok(stub),
        StubState::Busy => Err(Exit::Busy.fail("the stub is in a session").hint("wait, or `livesave cancel`")),
        StubState::Starting => Err(Exit::StubNotReady.fail("the stub still boots").hint("try again in a few seconds")),
        StubState::Failed => Err(failed(&stub)),
    }
}

fn failed(stub: &Stub) -> Failure {
    let what = format!("the stub cannot serve: {}", stub.node.reason);
    Exit::StubNotReady.fail(what).hint("`livesave doctor` says what to do; `xl console` shows the stub's log")
}

/// The device of the store: what `--store` says, or the backend of the stub's disk.
pub fn store_path(tree: &mut impl Tree, place: &Place) -> Outcome<PathBuf> {
    if let Some(path) = &place.store {
        return Ok(path.clone());
    }
    let domain = find(tree, place).map_err(|failure| match failure.exit {
        Exit::NoStub => failure.hint("name the store's device with --store, or start the stub"),
        _ => failure,
    })?;
    disk_of(tree, &domain)?.ok_or_else(|| {
        let what = format!("domain '{}' has no disk whose path dom0 knows", domain.name);
        Exit::NoStore.fail(what).hint("name the store's device with --store")
    })
}

/// What the stub says of its store, to be compared with what was seen of it; None while it has none.
pub fn sight(tree: &mut impl Tree, stub: &Stub) -> Outcome<Option<Sight>> {
    let Some(id) = stub.node.store_id else { return Ok(None) };
    let device = disk_of(tree, &stub.domain)?.map(|path| lasting_name(&path));
    Ok(Some(Sight { id: id.to_string(), generation: stub.node.generation, device }))
}

/// As [`ready`], unless something speaks against the stub's store: then nothing more is to be written to it.
pub fn trusted(tree: &mut impl Tree, place: &Place) -> Outcome<Stub> {
    let stub = ready(tree, place)?;
    match sight(tree, &stub)?.and_then(|sight| seen::check(&sight)) {
        Some(doubt) => Err(doubt),
        None => Ok(stub),
    }
}

/// After the stub has changed the store: its new generation is remembered, if dom0 can read it. The next command that
/// reads the store does it otherwise.
pub fn remember(tree: &mut impl Tree, domain: &Found) {
    let Ok(Some(path)) = disk_of(tree, domain) else { return };
    if let Ok(store) = catalog::open_at(&path) {
        let _ = seen::look(&Sight::of(&store.info(), lasting_name(&path)));
    }
}

/// dom0's path of the domain's disk that holds the store: the one the stub names, or its only one.
fn disk_of(tree: &mut impl Tree, domain: &Found) -> Outcome<Option<PathBuf>> {
    let front = format!("/local/domain/{}/device/vbd", domain.domid);
    let mut disks = tree.list(&front)?;
    disks.sort_by_key(|name| name.parse::<u64>().unwrap_or(u64::MAX));
    let node = tree.get(&format!("{}/stub", base(domain)))?;
    let node = node.and_then(|text| StubNode::parse(text.as_bytes()).ok());
    let named = node.and_then(|node| disks.iter().find(|disk| disk.as_str() == node.device.as_str()).cloned());
    let Some(disk) = named.or_else(|| disks.into_iter().next()) else { return Ok(None) };
    let Some(backend) = tree.get(&format!("{front}/{disk}/backend"))? else { return Ok(None) };
    for node in ["physical-device-path", "params"] {
        // The backend's node is dom0's own; a driver domain's path would mean nothing here.
        let path = tree.get(&format!("{backend}/{node}"))?.unwrap_or_default();
        if path.starts_with('/') && backend.starts_with("/local/domain/0/") {
            return Ok(Some(PathBuf::from(path)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::tests::tree;
    use std::collections::BTreeMap;

    const NODE: &str = "protocol=1\nversion=0.1.0\nstate=idle\ndevice=51728\nblocks=4096\n";

    fn place() -> Place {
        Place { stub: "livesave".to_owned(), store: None, json: false }
    }

    fn host() -> BTreeMap<String, String> {
        tree(&[
            ("/local/domain/0/name", "Domain-0"),
            ("/local/domain/2/name", "livesave"),
            ("/local/domain/2/data/livesave/stub", NODE),
            ("/local/domain/2/device/vbd/51712/backend", "/local/domain/0/backend/vbd/2/51712"),
            ("/local/domain/2/device/vbd/51728/backend", "/local/domain/0/backend/vbd/2/51728"),
            ("/local/domain/0/backend/vbd/2/51712/params", "/dev/vg/other"),
            ("/local/domain/0/backend/vbd/2/51728/params", "/srv/store.img"),
            ("/local/domain/0/backend/vbd/2/51728/physical-device-path", "/dev/loop3"),
        ])
    }

    #[test]
    fn the_stub_and_its_store_are_found() {
        let stub = ready(&mut host(), &place()).unwrap();
        assert_eq!((stub.domain.domid.raw(), stub.node.blocks), (2, 4096));
        assert_eq!(store_path(&mut host(), &place()).unwrap(), PathBuf::from("/dev/loop3"));
    }

    #[test]
    fn a_disk_of_a_driver_domain_is_not_a_path_of_ours() {
        let mut host = host();
        host.insert(
            "/local/domain/2/device/vbd/51728/backend".to_owned(),
            "/local/domain/6/backend/vbd/2/51728".to_owned(),
        );
        host.insert("/local/domain/6/backend/vbd/2/51728/params".to_owned(), "/etc/passwd".to_owned());
        assert_eq!(store_path(&mut host, &place()).unwrap_err().exit, Exit::NoStore);
    }

    #[test]
    fn each_unready_stub_has_its_cause() {
        let mut none = tree(&[("/local/domain/0/name", "Domain-0")]);
        assert_eq!(ready(&mut none, &place()).unwrap_err().exit, Exit::NoStub);
        for (text, exit) in [
            ("protocol=1\nversion=1\nstate=busy\ndevice=\n", Exit::Busy),
            ("protocol=1\nversion=1\nstate=starting\ndevice=\n", Exit::StubNotReady),
            ("protocol=1\nversion=1\nstate=failed\nreason=no disk\ndevice=\n", Exit::StubNotReady),
            ("protocol=2\nversion=1\nstate=idle\ndevice=\n", Exit::StubNotReady),
            ("rubbish", Exit::StubNotReady),
        ] {
            let mut host = host();
            host.insert("/local/domain/2/data/livesave/stub".to_owned(), text.to_owned());
            assert_eq!(ready(&mut host, &place()).unwrap_err().exit, exit, "{text}");
        }
    }
}
