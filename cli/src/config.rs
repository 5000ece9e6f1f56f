//! The guest's configuration: what `xl list -l` says of it, and what `restore` changes in it.
//!
//! The JSON is libxl's `libxl_domain_config`; it is kept as it is, and only the few members that `restore` must
//! change are touched. What does not have the expected shape is refused, never repaired.

use crate::exit::{Exit, Failure, Outcome};
use serde_json::Value;
use std::collections::BTreeMap;

/// A guest's configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config(Value);

/// What a clone gets anew. Random bytes come from the caller.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// Its name.
    pub name: &'a str,
    /// Random bytes for its uuid.
    pub uuid: [u8; 16],
    /// Random bytes for its MACs; `None` keeps them.
    pub macs: Option<[u8; 16]>,
}

/// A disk of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The guest's name of it.
    pub vdev: String,
    /// What it is in dom0.
    pub path: String,
    /// The guest may write to it.
    pub writable: bool,
}

/// LIBXL_MAXMEM_CONSTANT (libxl_internal.h).
const MAXMEM_EXTRA_KIB: u64 = 1024;

fn bad(what: &str) -> Failure {
    Exit::BadConfig.fail(format_args!("the guest's configuration is not understood: {what}"))
}

impl Config {
    /// From the output of `xl list -l DOMID`: one object, or an array of one, `{domid, config}`.
    pub fn from_xl_list(output: &[u8], domid: u16) -> Outcome<Self> {
        let value: Value = serde_json::from_slice(output).map_err(|error| bad(&format!("xl list -l: {error}")))?;
        let entries = match value {
            Value::Array(entries) => entries,
            single => vec![single],
        };
        let wanted = entries.into_iter().find(|entry| entry["domid"].as_u64() == Some(domid.into()));
        let mut entry = wanted.ok_or_else(|| bad("xl list -l does not show the domain"))?;
        Self::checked(entry["config"].take())
    }

    /// From the text kept beside a snapshot.
    pub fn from_json(text: &[u8]) -> Outcome<Self> {
        let text = text.strip_suffix(b"\0").unwrap_or(text);
        Self::checked(serde_json::from_slice(text).map_err(|error| bad(&error.to_string()))?)
    }

    fn checked(value: Value) -> Outcome<Self> {
        if !value["c_info"].is_object() {
            return Err(bad("it has no c_info"));
        }
        Ok(Self(value))
    }

    /// The text to keep, or to put into an image.
    pub fn to_json(&self) -> String {
        self.0.to_string()
    }

    /// The guest's name.
    pub fn name(&self) -> Option<&str> {
        self.0["c_info"]["name"].as_str()
    }

    /// The guest's uuid.
    pub fn uuid(&self) -> Option<&str> {
        self.0["c_info"]["uuid"].as_str()
    }

    /// The most memory that it may have, in KiB, if it says.
    pub fn max_memory_kib(&self) -> Option<u64> {
        self.0["b_info"]["max_memkb"].as_u64()
    }

    /// Its kind: `pv`, `pvh`, `hvm`.
    pub fn kind(&self) -> Option<&str> {
        self.0["c_info"]["type"].as_str()
    }

    /// How many PCI devices are passed through to it.
    pub fn passed_through(&self) -> usize {
        self.0["pcidevs"].as_array().map_or(0, Vec::len)
    }

    /// Its disks.
    pub fn disks(&self) -> Outcome<Vec<Disk>> {
        let Some(disks) = self.0["disks"].as_array() else { return Ok(Vec::new()) };
        disks.iter().map(disk).collect()
    }

    /// Points the disks named in `paths` elsewhere. Every name must exist.
    pub fn map_disks(&mut self, paths: &BTreeMap<String, String>) -> Outcome {
        let mut left: BTreeMap<&str, &str> = paths.iter().map(|(vdev, path)| (vdev.as_str(), path.as_str())).collect();
        for disk in self.0["disks"].as_array_mut().into_iter().flatten() {
            let mapped = disk["vdev"].as_str().and_then(|vdev| left.remove(vdev));
            if let Some(path) = mapped {
                disk["pdev_path"] = Value::from(path);
            }
        }
        match left.keys().next() {
            Some(vdev) => Err(Exit::Usage.fail(format_args!("the guest has no disk {vdev}"))),
            None => Ok(()),
        }
    }

    /// Makes room for that many pages, if there is not: the guest may have been given more memory between the moment
    /// at which its configuration was read and the snapshot. libxl limits a domain that it restores to the target, and
    /// 1 MiB (libxl_dom.c, libxl__build_pre). Says whether it had to.
    pub fn make_room_for(&mut self, pages: u64) -> bool {
        let needed_kib = pages.saturating_mul(4);
        let memory = |config: &Value, member: &str| config["b_info"][member].as_u64();
        let target_kib = memory(&self.0, "target_memkb");
        if target_kib.is_none_or(|target_kib| needed_kib <= target_kib + MAXMEM_EXTRA_KIB) {
            return false;
        }
        self.0["b_info"]["target_memkb"] = Value::from(needed_kib);
        if memory(&self.0, "max_memkb").is_none_or(|max_kib| max_kib < needed_kib) {
            self.0["b_info"]["max_memkb"] = Value::from(needed_kib);
        }
        true
    }

    /// Makes another guest of it.
    pub fn become_another(&mut self, new: &Identity<'_>) -> Outcome {
        self.0["c_info"]["name"] = Value::from(new.name);
        self.0["c_info"]["uuid"] = Value::from(uuid(new.uuid));
        let Some(random) = new.macs else { return Ok(()) };
        for (n, nic) in self.0["nics"].as_array_mut().into_iter().flatten().enumerate() {
            let low = [random[0] & 0x7f, random[1], random[2].wrapping_add(u8::try_from(n).unwrap_or(u8::MAX))];
            nic["mac"] = Value::from(format!("00:16:3e:{:02x}:{:02x}:{:02x}", low[0], low[1], low[2]));
        }
        Ok(())
    }
}

fn disk(disk: &Value) -> Outcome<Disk> {
    let text = |member: &str| disk[member].as_str().map(str::to_owned);
    Ok(Disk {
        vdev: text("vdev").ok_or_else(|| bad("a disk without vdev"))?,
        path: text("pdev_path").unwrap_or_default(),
        // libxl leaves members out that have their default, and 0 is the default of readwrite.
        writable: match &disk["readwrite"] {
            Value::Null => false,
            Value::Bool(yes) => *yes,
            Value::Number(number) => number.as_i64() != Some(0),
            _ => return Err(bad("readwrite of a disk")),
        },
    })
}

/// A random (version 4) uuid as text.
pub fn uuid(mut random: [u8; 16]) -> String {
    random[6] = (random[6] & 0x0f) | 0x40;
    random[8] = (random[8] & 0x3f) | 0x80;
    xen_hypercall::types::DomHandle::new(random).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = include_str!("../tests/data/xl-list-l.json");
    const CLONE: &str = include_str!("../tests/data/clone.json");

    fn config() -> Config {
        Config::from_xl_list(LIST.as_bytes(), 5).unwrap()
    }

    #[test]
    fn a_guest_that_grew_after_its_configuration_was_read_fits_into_it() {
        let kib =
            |config: &Config| (config.0["b_info"]["target_memkb"].clone(), config.0["b_info"]["max_memkb"].clone());
        let mut config = Config::from_json(include_bytes!("../tests/data/config.json")).unwrap();
        let before = config.clone();
        assert!(!config.make_room_for(131_072 / 4 + 256) && config == before, "1 MiB more is room enough");
        assert!(config.make_room_for(131_072 / 4 + 257));
        assert_eq!(kib(&config), (Value::from(132_100), Value::from(132_100)));
        config.0["b_info"]["max_memkb"] = Value::from(200_000);
        assert!(config.make_room_for(40_000));
        assert_eq!(kib(&config), (Value::from(160_000), Value::from(200_000)));
    }

    #[test]
    fn the_listing_gives_name_uuid_and_disks() {
        let config = config();
        assert_eq!((config.name(), config.kind()), (Some("web01"), Some("pvh")));
        assert_eq!(config.uuid(), Some("4dcbc4f8-22d5-4e1b-9a5e-2a1d0b2c3d4e"));
        let disks = config.disks().unwrap();
        assert_eq!(disks.len(), 2);
        assert_eq!((disks[0].vdev.as_str(), disks[0].writable), ("xvda", true));
        assert_eq!((disks[1].vdev.as_str(), disks[1].writable), ("xvdb", false));
    }

    #[test]
    fn another_domid_or_rubbish_is_refused() {
        assert_eq!(Config::from_xl_list(LIST.as_bytes(), 6).unwrap_err().exit, Exit::BadConfig);
        assert_eq!(Config::from_xl_list(b"[]", 5).unwrap_err().exit, Exit::BadConfig);
        assert_eq!(Config::from_xl_list(b"not json", 5).unwrap_err().exit, Exit::BadConfig);
        assert_eq!(Config::from_json(b"{}").unwrap_err().exit, Exit::BadConfig);
    }

    #[test]
    fn a_clone_differs_in_name_uuid_macs_and_mapped_disks_only() {
        let mut clone = config();
        let identity = Identity {
            name: "web01-copy",
            uuid: [0x11; 16],
            macs: Some([0xff, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        };
        clone.become_another(&identity).unwrap();
        clone.map_disks(&BTreeMap::from([("xvda".to_owned(), "/dev/vg/copy".to_owned())])).unwrap();
        let golden: Value = serde_json::from_str(CLONE).unwrap();
        assert_eq!(clone.0, golden);
    }

    #[test]
    fn kept_text_round_trips_with_the_nul_of_an_image() {
        let text = format!("{}\0", config().to_json());
        assert_eq!(Config::from_json(text.as_bytes()).unwrap(), config());
    }

    #[test]
    fn a_mapping_of_no_disk_is_an_error() {
        let mapping = BTreeMap::from([("xvdz".to_owned(), "/dev/null".to_owned())]);
        assert_eq!(config().map_disks(&mapping).unwrap_err().exit, Exit::Usage);
    }

    #[test]
    fn kept_macs_stay() {
        let mut clone = config();
        clone.become_another(&Identity { name: "x", uuid: [0; 16], macs: None }).unwrap();
        assert_eq!(clone.0["nics"][0]["mac"], "00:16:3e:01:02:03");
    }
}
