//! `livesave store init`: makes an empty store on a device that holds nothing and that nobody uses.

use crate::exit::{Exit, Failure, Outcome};
use crate::host::device::{self, Access, Device};
use crate::host::files;
use crate::host::probe;
use crate::host::tree::{self, Tree};
use crate::seen::{self, Sight};
use crate::{catalog, show};
use serde_json::json;
use snapshot::ports::BlockDevice;
use snapshot::store::{self, FormatOptions, Probe};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Makes a store.
pub fn run(path: &Path, label: &str, destroy: Option<&Path>, as_json: bool) -> Outcome {
    if destroy.is_some_and(|named| named != path) {
        let what = "--destroy-contents-of names another device than the one to be used";
        return Err(Exit::Usage.fail(what).hint("give the same path twice"));
    }
    unused(path)?;
    let mut device = Device::open(path, Access::Exclusive)?;
    if let Some(found) = contents(&mut device, path)?
        && destroy.is_none()
    {
        let what = format!("{} holds {found}", path.display());
        let hint = format!("if it may be destroyed: --destroy-contents-of {}", path.display());
        return Err(Exit::DeviceInUse.fail(what).hint(hint));
    }
    let now_unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let options = FormatOptions { label, store_id: files::random()?, key: files::random()?, now_unix };
    store::format(&mut device, &options).map_err(|error| catalog::trouble(path.display(), error))?;
    let (id, bytes) = (store::StoreId(options.store_id), device.blocks().saturating_mul(4096));
    // A new store is what is expected there from now on.
    let sight = Sight { id: id.to_string(), generation: 0, device: Some(device::lasting_name(path)) };
    if let Err(failure) = seen::accept(&sight) {
        // The store is made all the same.
        show::warn(&failure);
    }
    if as_json {
        return show::print_json(&json!({ "store_id": id.to_string(), "bytes": bytes, "label": label }));
    }
    show::print(&format!("store {id} of {} on {}", show::size(bytes), path.display()))
}

fn unreadable(path: &Path, error: impl std::fmt::Display) -> Failure {
    Exit::BadStore.fail(format_args!("{} cannot be read: {error}", path.display()))
}

/// What is on the device; a store of ours is named as such.
fn contents(device: &mut Device, path: &Path) -> Outcome<Option<String>> {
    let found = match store::probe(device).map_err(|error| unreadable(path, error))? {
        Probe::LiveSave { id, generation } => format!("the store {id} (generation {generation})"),
        Probe::DamagedLiveSave => "a damaged store".to_owned(),
        Probe::NewerLiveSave => "a store of a newer version".to_owned(),
        Probe::Blank | Probe::Foreign => {
            return probe::contents(device).map_err(|error| unreadable(path, error));
        }
    };
    Ok(Some(found))
}

/// Nobody may use the device: neither dom0 (mount, swap; the kernel refuses its own users at open) nor a domain.
fn unused(path: &Path) -> Outcome {
    let metadata = std::fs::metadata(path).map_err(|error| {
        Exit::NoStore
            .fail(format_args!("{} cannot be opened: {error}", path.display()))
            .hint("`lsblk` shows what there is")
    })?;
    if !metadata.file_type().is_block_device() {
        return Ok(());
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if let Some(place) = mounted(&mounts, metadata.rdev()) {
        let what = format!("{} is mounted on {place}", path.display());
        return Err(Exit::DeviceInUse.fail(what).hint("unmount it, if it may be destroyed"));
    }
    // Without xenstored no domain can be attached to anything.
    let Ok(mut store) = tree::connect() else { return Ok(()) };
    match attached(&mut store, path, metadata.rdev())? {
        Some(domid) => {
            let what = format!("{} is attached to domain {domid}", path.display());
            Err(Exit::DeviceInUse.fail(what).hint("shut the domain down, or detach the disk"))
        }
        None => Ok(()),
    }
}

/// Where the device is mounted (proc(5), mountinfo: the third field is major:minor, the fifth the place).
fn mounted(mounts: &str, device: u64) -> Option<String> {
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let mut lines = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let line = lines.find(|fields| fields.get(2) == Some(&number.as_str()))?;
    line.get(4).map(|place| (*place).to_owned())
}

/// The domain whose disk this device is, by path or by number (blkback's `physical-device`: hexadecimal major:minor).
fn attached(tree: &mut impl Tree, path: &Path, device: u64) -> Outcome<Option<String>> {
    let number = format!("{:x}:{:x}", rustix::fs::major(device), rustix::fs::minor(device));
    let base = "/local/domain/0/backend/vbd";
    for domid in tree.list(base)? {
        for disk in tree.list(&format!("{base}/{domid}"))? {
            let node = format!("{base}/{domid}/{disk}");
            let same_number = tree.get(&format!("{node}/physical-device"))?.as_deref() == Some(number.as_str());
            let same_path = tree.get(&format!("{node}/params"))?.is_some_and(|params| Path::new(&params) == path);
            if same_number || same_path {
                return Ok(Some(domid));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::tests::tree;
    use crate::host::device::tests::scratch;
    use std::path::PathBuf;

    fn init(path: &Path, destroy: Option<PathBuf>) -> Outcome {
        run(path, "", destroy.as_deref(), true)
    }

    #[test]
    fn an_empty_device_is_taken_once() {
        let path = scratch("init", 64 << 20);
        init(&path, None).unwrap();
        let failure = init(&path, None).unwrap_err();
        assert_eq!(failure.exit, Exit::DeviceInUse);
        assert!(failure.what.contains("the store"), "{}", failure.what);
        assert_eq!(init(&path, Some(PathBuf::from("/dev/other"))).unwrap_err().exit, Exit::Usage);
        init(&path, Some(path.clone())).unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_filesystem_is_not_overwritten() {
        let path = scratch("init-ext4", 64 << 20);
        let mut bytes = vec![0; 64 << 20];
        bytes[1080..1082].copy_from_slice(b"\x53\xef");
        std::fs::write(&path, &bytes).unwrap();
        let failure = init(&path, None).unwrap_err();
        assert!(failure.what.contains("ext2/3/4"), "{}", failure.what);
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_device_too_small_says_so() {
        let path = scratch("init-small", 1 << 20);
        assert_eq!(init(&path, None).unwrap_err().exit, Exit::NoSpace);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn mounts_and_attachments_are_found_by_number() {
        let device = rustix::fs::makedev(253, 7);
        let mounts = "36 35 98:0 /mnt1 /mnt2 rw - ext3 /dev/root rw\n40 1 253:7 / /srv/data rw - ext4 /dev/dm-7 rw\n";
        assert_eq!(mounted(mounts, device).as_deref(), Some("/srv/data"));
        assert_eq!(mounted(mounts, rustix::fs::makedev(253, 8)), None);
        let mut host = tree(&[("/local/domain/0/backend/vbd/4/51712/physical-device", "fd:7")]);
        assert_eq!(attached(&mut host, Path::new("/dev/x"), device).unwrap().as_deref(), Some("4"));
        assert_eq!(attached(&mut host, Path::new("/dev/x"), rustix::fs::makedev(253, 8)).unwrap(), None);
        let mut host = tree(&[("/local/domain/0/backend/vbd/9/51712/params", "/dev/vg/x")]);
        assert_eq!(attached(&mut host, Path::new("/dev/vg/x"), 0).unwrap().as_deref(), Some("9"));
    }
}
