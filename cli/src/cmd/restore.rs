//! `livesave restore`: brings a guest back through `xl restore`, unless that could destroy something.
//!
//! A guest with memory from noon and disks from three o'clock destroys its filesystem, so every writable disk needs a
//! word of the operator; and never two guests of one name or uuid.

use super::rm::parse_name;
use crate::args::{Place, Restore};
use crate::config::{Config, Disk, Identity};
use crate::exit::{Exit, Failure, Outcome};
use crate::host::files;
use crate::host::tree::{self, Tree, XenStore};
use crate::host::xl;
use crate::image::{self, Broken};
use crate::{catalog, domain, show, waits};
use serde_json::json;
use snapshot::names::Name;
use snapshot::ports::BlockDevice;
use snapshot::store::SnapshotReader;
use std::collections::BTreeMap;
use std::io::stderr;
use std::path::Path;
use std::process::{Child, Stdio};
use xen_drivers::xenstore::Nodes;
use xen_hypercall::types::DomId;

/// Restores.
pub fn run(args: &Restore, place: &Place) -> Outcome {
    let name = parse_name(&args.name)?.to_string();
    let mut store = catalog::open(place)?;
    let mut reader = store.snapshot(&name).map_err(|error| catalog::trouble(&name, error))?;
    let (mut config, _) = image::config_of(&mut reader)?;
    let given = mapping(&args.disks)?;
    // Whoever says that the disks are right as they are does not want those of then.
    let kept = if args.disks_as_they_are { BTreeMap::new() } else { kept(&image::kept_disks(&mut reader)?, &given)? };
    let mapping: BTreeMap<String, String> = kept.into_iter().chain(given).collect();
    refuse_unmapped(&config.disks()?, &mapping, args.disks_as_they_are)?;
    config.map_disks(&mapping)?;
    if let Some(clone) = &args.clone {
        let clone: Name = clone.parse().map_err(|error| Exit::Usage.fail(format_args!("'{clone}': {error}")))?;
        let macs = if args.keep_macs { None } else { Some(files::random()?) };
        config.become_another(&Identity { name: clone.as_str(), uuid: files::random()?, macs })?;
    }
    let mut xenstore = tree::connect()?;
    refuse_living(&mut xenstore, &config)?;
    through_xl(&mut reader, &config, args.paused)?;
    let guest = config.name().unwrap_or_default();
    let domid = domain::resolve(&mut xenstore, guest)?.domid;
    announce_suspend(&mut xenstore, domid)?;
    if place.json {
        let paused = args.paused;
        return show::print_json(&json!({ "restored": name, "guest": guest, "domid": domid.raw(), "paused": paused }));
    }
    let paused = if args.paused { ", paused" } else { "" };
    show::print(&format!("restored {name} as '{guest}' (domain {domid}{paused})"))
}

/// `VDEV=PATH`, each disk once, each path there.
fn mapping(words: &[String]) -> Outcome<BTreeMap<String, String>> {
    let mut mapping = BTreeMap::new();
    for word in words {
        let (vdev, path) = word
            .split_once('=')
            .filter(|(vdev, path)| !vdev.is_empty() && !path.is_empty())
            .ok_or_else(|| Exit::Usage.fail(format_args!("--disk {word}: not VDEV=PATH")))?;
        if path.starts_with('/') && !Path::new(path).exists() {
            return Err(Exit::Usage.fail(format_args!("--disk {word}: {path} does not exist")));
        }
        if mapping.insert(vdev.to_owned(), path.to_owned()).is_some() {
            return Err(Exit::Usage.fail(format_args!("--disk {word}: {vdev} is mapped twice")));
        }
    }
    Ok(mapping)
}

/// The disks that a hook kept at the pause, but those for which another is given.
fn kept(text: &str, given: &BTreeMap<String, String>) -> Outcome<BTreeMap<String, String>> {
    let disks = text.split(';').filter_map(|disk| disk.split_once('=')).filter(|(vdev, _)| !given.contains_key(*vdev));
    let disks: BTreeMap<String, String> = disks.map(|(vdev, path)| (vdev.to_owned(), path.to_owned())).collect();
    match disks.iter().find(|(_, path)| !Path::new(path).exists()) {
        None => Ok(disks),
        Some((vdev, path)) => {
            let what = format!("the disk {vdev} was kept as {path}, which is not there");
            Err(Exit::DisksUnmapped.fail(what).hint(format!("activate it, or name another with --disk {vdev}=PATH")))
        }
    }
}

fn refuse_unmapped(disks: &[Disk], mapping: &BTreeMap<String, String>, as_they_are: bool) -> Outcome {
    let left = disks.iter().filter(|disk| disk.writable && !mapping.contains_key(&disk.vdev));
    let left: Vec<String> = left.map(|disk| format!("{} ({})", disk.vdev, disk.path)).collect();
    if left.is_empty() || as_they_are {
        return Ok(());
    }
    let what = format!("writable disks may have moved on since the snapshot: {}", left.join(", "));
    Err(Exit::DisksUnmapped.fail(what).hint(
        "map each to its state of then with --disk VDEV=PATH; --disks-as-they-are if nothing wrote to them since",
    ))
}

/// No domain may have the name or the uuid.
fn refuse_living(tree: &mut impl Tree, config: &Config) -> Outcome {
    let (name, uuid) = (config.name().unwrap_or_default(), config.uuid().unwrap_or_default());
    for found in domain::all(tree)? {
        let vm = tree.get(&format!("/local/domain/{}/vm", found.domid))?.unwrap_or_default();
        let same_uuid = !uuid.is_empty() && vm.strip_prefix("/vm/") == Some(uuid);
        if found.name == name || same_uuid {
            let what = format!("domain {} ('{}') has the same name or uuid", found.domid, found.name);
            return Err(Exit::GuestLives.fail(what).hint("shut it down or destroy it first, or use --clone NAME"));
        }
    }
    Ok(())
}

/// A guest writes `control/feature-suspend` when it boots, and a restored one has booted before. It could suspend
/// when it was taken, so it still can: without this the next take of it would be refused.
fn announce_suspend(store: &mut XenStore, domid: DomId) -> Outcome {
    let path = format!("/local/domain/{domid}/control/feature-suspend");
    let written = store.transaction(|t| match t.find_text(&path)?.as_deref() {
        Some("") => t.write(&path, "1"),
        // Gone again, or it has said so itself.
        _ => Ok(()),
    });
    written.map_err(|error| tree::trouble(&path, error))
}

fn xl_failed(why: impl std::fmt::Display) -> Failure {
    Exit::XlFailed
        .fail(format_args!("xl restore: {why}"))
        .hint("its own words stand above; nothing in the store changed")
}

fn through_xl<D: BlockDevice>(reader: &mut SnapshotReader<'_, D>, config: &Config, paused: bool) -> Outcome {
    let mut xl = xl::xl();
    xl.arg("restore");
    if paused {
        xl.arg("-p");
    }
    // xl has no word for standard input, but opens this path (/dev/stdin is a link that not every dom0 has). What it
    // says belongs to our errors, not to our result.
    xl.arg("/proc/self/fd/0").stdin(Stdio::piped()).stdout(stderr());
    let mut child = xl.spawn().map_err(xl_failed)?;
    let fed = feed(&mut child, reader, config);
    if matches!(fed, Err(Broken::Snapshot(_))) {
        // The image ends here, so xl fails and destroys what it had begun.
        let _ = xl::wait(&mut child, waits::XL_RESTORE);
    }
    match fed {
        Err(Broken::Snapshot(failure)) => return Err(failure),
        // xl stopped reading: its exit status says more than the broken pipe.
        Err(Broken::Reader(_)) | Ok(()) => {}
    }
    match xl::wait(&mut child, waits::XL_RESTORE) {
        Some(status) if status.success() && fed.is_ok() => Ok(()),
        Some(status) if status.success() => Err(xl_failed("it did not read the whole image")),
        Some(status) => Err(xl_failed(status)),
        None => Err(xl_failed("no end in time")),
    }
}

/// Writes the image into xl's standard input, and closes it.
fn feed<D: BlockDevice>(child: &mut Child, reader: &mut SnapshotReader<'_, D>, config: &Config) -> Result<(), Broken> {
    let Some(pipe) = child.stdin.take() else { return Ok(()) };
    image::write(reader, Some(&config.to_json()), pipe).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::tests::tree;

    fn disk(vdev: &str, writable: bool) -> Disk {
        Disk { vdev: vdev.to_owned(), path: "/dev/vg/x".to_owned(), writable }
    }

    fn config() -> Config {
        Config::from_json(include_bytes!("../../tests/data/config.json")).unwrap()
    }

    #[test]
    fn every_writable_disk_needs_a_word() {
        let disks = [disk("xvda", true), disk("xvdb", false)];
        let failure = refuse_unmapped(&disks, &BTreeMap::new(), false).unwrap_err();
        assert_eq!(failure.exit, Exit::DisksUnmapped);
        assert!(failure.what.contains("xvda") && !failure.what.contains("xvdb"), "{}", failure.what);
        assert!(refuse_unmapped(&disks, &BTreeMap::new(), true).is_ok());
        let mapping = BTreeMap::from([("xvda".to_owned(), "/dev/vg/y".to_owned())]);
        assert!(refuse_unmapped(&disks, &mapping, false).is_ok());
        assert!(refuse_unmapped(&disks[1..], &BTreeMap::new(), false).is_ok());
    }

    #[test]
    fn kept_disks_are_used_unless_another_is_given() {
        let given = BTreeMap::from([("xvdb".to_owned(), "/dev/vg/y".to_owned())]);
        let disks = kept("xvda=/dev/null;xvdb=/nonexistent", &given).unwrap();
        assert_eq!(disks, BTreeMap::from([("xvda".to_owned(), "/dev/null".to_owned())]));
        assert_eq!(kept("", &given), Ok(BTreeMap::new()));
        assert_eq!(kept("xvda=/nonexistent", &given).unwrap_err().exit, Exit::DisksUnmapped);
    }

    #[test]
    fn mappings_are_checked() {
        let words = |words: &[&str]| mapping(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(words(&["xvda=/dev/null"]).unwrap()["xvda"], "/dev/null");
        for bad in [&["xvda"][..], &["=x"], &["xvda="], &["xvda=/nonexistent"], &["xvda=/dev/null", "xvda=/dev/zero"]] {
            assert_eq!(words(bad).unwrap_err().exit, Exit::Usage, "{bad:?}");
        }
    }

    #[test]
    fn a_living_name_or_uuid_is_refused_and_a_clone_is_not() {
        let uuid = "4dcbc4f8-22d5-4e1b-9a5e-2a1d0b2c3d4e";
        let vm = format!("/vm/{uuid}");
        let mut same_name = tree(&[("/local/domain/3/name", "web01"), ("/local/domain/3/vm", "/vm/x")]);
        let mut same_uuid = tree(&[("/local/domain/3/name", "renamed"), ("/local/domain/3/vm", &vm)]);
        let mut other = tree(&[("/local/domain/3/name", "db"), ("/local/domain/3/vm", "/vm/y")]);
        assert_eq!(refuse_living(&mut same_name, &config()).unwrap_err().exit, Exit::GuestLives);
        assert_eq!(refuse_living(&mut same_uuid, &config()).unwrap_err().exit, Exit::GuestLives);
        assert!(refuse_living(&mut other, &config()).is_ok());
        let mut clone = config();
        clone.become_another(&Identity { name: "copy", uuid: [1; 16], macs: None }).unwrap();
        assert!(refuse_living(&mut same_name, &clone).is_ok());
        assert!(refuse_living(&mut same_uuid, &clone).is_ok());
    }
}
