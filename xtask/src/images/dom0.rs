//! dom0's initramfs and the guests': Debian's packages taken apart, our static programs, a few lines of configuration.
//!
//! Nothing of it is installed on this machine. The image is packed again only if something in it changed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::images::{kernel, programs};
use crate::packages;
use crate::paths;
use crate::sh::{cmd, read};

/// Tools and the libraries that they link; the kernel is added to these.
const PACKAGES: &[&str] = &[
    "busybox-static",
    "bash",
    "xen-utils-4.17",
    "xen-utils-common",
    "xenstore-utils",
    "libxenmisc4.17",
    "libxencall1",
    "libxenevtchn1",
    "libxenforeignmemory1",
    "libxengnttab1",
    "libxenstore4",
    "libxentoollog1",
    "libxendevicemodel1",
    "libxenhypfs1",
    "libxentoolcore1",
    "libyajl2",
    "liblzma5",
    "libuuid1",
    "libzstd1",
    "zlib1g",
    "libc6",
    "libgcc-s1",
    "libtinfo6",
    "libncurses6",
];
/// Modules of dom0; those they depend on come along.
const MODULES: &[&str] = &[
    "xenfs",
    "xen-privcmd",
    "xen-evtchn",
    "xen-gntdev",
    "xen-gntalloc",
    "xen-blkback",
    "loop",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "crc32c_generic",
    "crc32c-intel",
    "ext4",
    "dm-mod",
    "dm-snapshot",
];
/// Programs of ours: who takes commands, and who looks at frames and state from dom0.
const PROGRAMS: &[&str] = &["agent", "probe"];
/// Those that only guests with a network card need: in the image, not loaded at boot.
const NET_MODULES: &[&str] = &["bridge", "xen-netback"];
/// Of the guests' kernel: hypercalls of a process, disk, network card. None depends on another.
const GUEST_MODULES: &[&str] = &[
    "kernel/drivers/xen/xen-privcmd.ko",
    "kernel/drivers/block/xen-blkfront.ko",
    "kernel/drivers/net/xen-netfront.ko",
];
/// What makes a disk fail on demand, and the libraries that it links.
const DMSETUP: &[&str] = &["dmsetup", "libdevmapper1.02.1", "libselinux1", "libpcre2-8-0", "libudev1"];
/// LVM, for the hook that makes snapshots with it: on the scratch disk, below `lvm`. No udev runs beside it.
const LVM: &[&str] = &[
    "lvm2",
    "libaio1",
    "libblkid1",
    "libbsd0",
    "libcap2",
    "libdevmapper1.02.1",
    "libdevmapper-event1.02.1",
    "libedit2",
    "libgcrypt20",
    "libgpg-error0",
    "liblz4-1",
    "libmd0",
    "libsystemd0",
];
/// Its commands that the hook and the test use.
const LVM_COMMANDS: &[&str] = &["pvcreate", "vgcreate", "vgremove", "lvcreate", "lvremove", "lvs"];
const LVM_CONF: &str = "devices { use_devicesfile=0 obtain_device_list_from_udev=0 scan=[\"/dev\"] \
    filter=[\"a|^/dev/loop|\",\"r|.*|\"] }\n\
    activation { udev_sync=0 udev_rules=0 monitoring=0 }\nbackup { backup=0 archive=0 }\n\
    global { locking_dir=\"/run/lvm-lock\" use_lvmpolld=0 }\n";
const TOOLS: &str = "usr/lib/xen-4.17/bin";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const DIRECTORIES: &[&str] = &[
    "bin",
    "sbin",
    "dev",
    "proc",
    "sys",
    "run",
    "tmp",
    "etc/xen",
    "boot",
    "usr/sbin",
    "usr/lib/livesave",
    "var/log/xen/console",
    "var/lib/xen/dump",
    "var/lib/xenstored",
    "root",
    "scratch",
];
/// Orphans are reaped and the agent is kept alive by busybox's init.
const INITTAB: &str = "::sysinit:/bin/agent boot\n::respawn:/bin/agent serve\nhvc0::respawn:-/bin/sh\n";
const PROFILE: &str = "export PATH=/usr/lib/xen-4.17/bin:/usr/sbin:/usr/bin:/sbin:/bin\n";

/// The files that a machine boots from, besides the hypervisor and its policy.
pub struct Dom0 {
    /// Debian's kernel, for dom0 and the guests.
    pub kernel: PathBuf,
    /// The initramfs.
    pub image: PathBuf,
    /// The scratch disk's content.
    pub scratch: PathBuf,
    /// Debian's directory of Xen's tools.
    pub tools: PathBuf,
}

/// Builds both images.
pub fn build() -> Result<Dom0> {
    let debian = debian()?;
    let release = kernel_release(&debian)?;
    let programs = programs::build("qemu-tests")?;
    let images = paths::target_dir("images")?;
    let kernel = kernel::unpacked(&debian.join("boot").join(format!("vmlinuz-{release}")))?;
    let image = images.join("dom0.img");
    let mut inputs = vec![debian.join("../done"), paths::root().join(file!())];
    inputs.extend(PROGRAMS.iter().map(|program| programs.join(program)));
    if !is_newer(&image, &inputs) {
        let stage = stage(&debian, &release, &programs)?;
        pack(&stage, &image)?;
    }
    let modules = debian.join("lib/modules").join(&release);
    Ok(Dom0 { scratch: scratch(&programs, &kernel, &modules)?, kernel, image, tools: debian.join(TOOLS).join("..") })
}

/// What guests boot from lies on the scratch disk: in the initramfs it would be copied about at each boot.
fn scratch(programs: &Path, kernel: &Path, modules: &Path) -> Result<PathBuf> {
    let stage = paths::target_dir("stage")?.join("scratch");
    fs::create_dir_all(stage.join("boot")).context("scratch")?;
    pack_guest(&programs.join("guest"), modules, &stage.join("boot/guest.img"))?;
    lvm(&stage.join("lvm"))?;
    let copied = stage.join("boot/vmlinux");
    if !is_newer(&copied, &[kernel.to_owned(), paths::root().join("xtask/src/images/kernel.rs")]) {
        kernel::for_guests(kernel, &copied)?;
    }
    Ok(stage)
}

/// Each command is a script that finds the program and its libraries there.
fn lvm(dir: &Path) -> Result<()> {
    let root = packages::unpacked(LVM, &paths::cache_dir("debian/lvm")?)?;
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir).context("lvm")?;
    copy(&root.join("sbin/lvm"), &dir.join("lvm"))?;
    for tree in ["lib/x86_64-linux-gnu", LIBRARIES] {
        copy_tree(&root.join(tree), &dir.join("lib"))?;
    }
    write(&dir.join("lvm.conf"), LVM_CONF)?;
    for command in LVM_COMMANDS {
        let script = format!(
            "#!/bin/sh\nexport LD_LIBRARY_PATH=/scratch/lvm/lib LVM_SYSTEM_DIR=/scratch/lvm\n\
             exec /scratch/lvm/lvm {command} \"$@\"\n"
        );
        write(&dir.join(command), &script)?;
        fs::set_permissions(dir.join(command), fs::Permissions::from_mode(0o755)).context("lvm")?;
    }
    Ok(())
}

fn debian() -> Result<PathBuf> {
    let cache = paths::cache_dir("debian")?;
    let dir = cache.join("packages");
    // The set of names is the key; a newer kernel of Debian's is taken when the cache is emptied.
    let kernel = match fs::read_to_string(dir.join("kernel")) {
        Ok(kernel) => kernel,
        Err(_) => packages::dependency("linux-image-amd64", "linux-image-")?,
    };
    let mut names = PACKAGES.to_vec();
    names.push(&kernel);
    let root = packages::unpacked(&names, &dir)?;
    fs::write(dir.join("kernel"), &kernel).context("kernel")?;
    Ok(root)
}

fn kernel_release(debian: &Path) -> Result<String> {
    let modules = debian.join("lib/modules");
    let mut entries = fs::read_dir(&modules).with_context(|| modules.display().to_string())?;
    let entry = entries.next().context("no kernel was unpacked")?.context("lib/modules")?;
    entry.file_name().into_string().ok().context("name of the kernel")
}

fn is_newer(file: &Path, inputs: &[PathBuf]) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let Some(made) = time(file) else { return false };
    inputs.iter().all(|input| time(input).is_none_or(|changed| changed < made))
}

/// The guest's initramfs: one program, under the names that its kernel starts, and the modules that it may load.
fn pack_guest(program: &Path, modules: &Path, image: &Path) -> Result<()> {
    if is_newer(image, &[program.to_owned(), modules.to_owned(), paths::root().join(file!())]) {
        return Ok(());
    }
    let stage = fresh_stage("guest", &["dev", "proc", "sys", "sbin", "modules"])?;
    copy(program, &stage.join("init"))?;
    for module in GUEST_MODULES {
        let name = Path::new(module).file_name().context("module")?;
        copy(&modules.join(module), &stage.join("modules").join(name))?;
    }
    for name in ["sbin/poweroff", "sbin/reboot"] {
        symlink("/init", stage.join(name)).with_context(|| name.to_owned())?;
    }
    pack(&stage, image)
}

fn stage(debian: &Path, release: &str, programs: &Path) -> Result<PathBuf> {
    let stage = fresh_stage("dom0", DIRECTORIES)?;
    for tree in ["etc/xen", TOOLS, LIBRARIES, "lib/x86_64-linux-gnu", "lib64", "usr/bin"] {
        copy_tree(&debian.join(tree), &stage.join(tree))?;
    }
    remove_bulk(&stage);
    copy(&debian.join("bin/busybox"), &stage.join("bin/busybox"))?;
    copy(&debian.join("bin/bash"), &stage.join("bin/bash"))?;
    for program in PROGRAMS {
        copy(&programs.join(program), &stage.join("bin").join(program))?;
    }
    // Xen's block script takes a lock, and Debian's busybox has no flock.
    let util_linux = packages::unpacked(&["util-linux"], &paths::cache_dir("debian/util-linux")?)?;
    copy(&util_linux.join("usr/bin/flock"), &stage.join("usr/bin/flock"))?;
    let dmsetup = packages::unpacked(DMSETUP, &paths::cache_dir("debian/dmsetup")?)?;
    copy(&dmsetup.join("sbin/dmsetup"), &stage.join("usr/sbin/dmsetup"))?;
    for tree in ["lib/x86_64-linux-gnu", LIBRARIES] {
        copy_tree(&dmsetup.join(tree), &stage.join("lib/x86_64-linux-gnu"))?;
    }
    link_tools(&stage)?;
    applets(&stage)?;
    add_modules(&debian.join("lib/modules").join(release), &stage)?;
    write(&stage.join("etc/inittab"), INITTAB)?;
    write(&stage.join("etc/profile"), PROFILE)?;
    write(&stage.join("etc/passwd"), "root::0:0:root:/root:/bin/sh\n")?;
    write(&stage.join("etc/group"), "root:x:0:\n")?;
    let links = [
        ("init", "/bin/busybox"),
        ("var/run", "/run"),
        ("var/lock", "/run/lock"),
        ("boot/vmlinuz", "/scratch/boot/vmlinux"),
        ("boot/guest.img", "/scratch/boot/guest.img"),
    ];
    for (name, to) in links {
        symlink(to, stage.join(name)).with_context(|| name.to_owned())?;
    }
    Ok(stage)
}

/// What no test needs and what would only be carried through QEMU's memory.
fn remove_bulk(stage: &Path) {
    let _ = fs::remove_dir_all(stage.join(LIBRARIES).join("gconv"));
    let _ = fs::remove_file(stage.join("usr/bin/xenalyze"));
}

/// busybox's names, except where a real tool is.
fn applets(stage: &Path) -> Result<()> {
    for name in read(Command::new(stage.join("bin/busybox")).arg("--list"))?.lines() {
        let taken = ["bin", "sbin", "usr/bin", "usr/sbin"].iter().any(|dir| stage.join(dir).join(name).exists());
        if !taken {
            symlink("busybox", stage.join("bin").join(name)).with_context(|| name.to_owned())?;
        }
    }
    Ok(())
}

/// In the packages these names are a wrapper that picks the tools of the running hypervisor; here is only one.
fn link_tools(stage: &Path) -> Result<()> {
    for entry in fs::read_dir(stage.join(TOOLS)).context(TOOLS)? {
        let name = entry.context(TOOLS)?.file_name();
        let link = stage.join("usr/sbin").join(&name);
        symlink(Path::new("/").join(TOOLS).join(&name), link).with_context(|| format!("{}", name.display()))?;
    }
    Ok(())
}

/// Copies the modules and writes the order in which to load them: Debian runs depmod only at installation.
fn add_modules(kernel: &Path, stage: &Path) -> Result<()> {
    let listing = fs::read_to_string(kernel.join("modules.order")).context("modules.order")?;
    let mut order = Vec::new();
    for name in MODULES {
        visit(name, kernel, &listing, &mut order)?;
    }
    let at_boot = order.len();
    for name in NET_MODULES {
        visit(name, kernel, &listing, &mut order)?;
    }
    fs::create_dir_all(stage.join("lib/modules")).context("lib/modules")?;
    let mut lists = [String::new(), String::new()];
    for (index, path) in order.iter().enumerate() {
        let name = path.file_name().context("module")?.to_string_lossy();
        copy(path, &stage.join("lib/modules").join(name.as_ref()))?;
        lists[usize::from(index >= at_boot)].push_str(&format!("/lib/modules/{name}\n"));
    }
    write(&stage.join("etc/modules.list"), &lists[0])?;
    write(&stage.join("etc/modules-net.list"), &lists[1])
}

/// Depth first: what a module depends on is loaded before it. A name that is built in has no file and no need.
fn visit(name: &str, kernel: &Path, listing: &str, order: &mut Vec<PathBuf>) -> Result<()> {
    let file = format!("{}.ko", name.replace('-', "_"));
    let same = |line: &&str| line.rsplit('/').next().is_some_and(|last| last.replace('-', "_") == file);
    let Some(found) = listing.lines().find(same) else { return Ok(()) };
    let path = kernel.join(found);
    if order.contains(&path) {
        return Ok(());
    }
    let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
    for dependency in dependencies(&bytes) {
        visit(&dependency, kernel, listing, order)?;
    }
    order.push(path);
    Ok(())
}

/// The `depends=` entry of a module's `.modinfo`.
fn dependencies(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|window| window == key) else { return Vec::new() };
    let value = module.get(at + key.len()..).unwrap_or_default();
    let value = value.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value).split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Packs a directory as a cpio whose files belong to root. Not compressed: QEMU loads it faster than dom0 unpacks.
fn pack(stage: &Path, image: &Path) -> Result<()> {
    let script = "find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 --reproducible > \"$1\"";
    let partial = image.with_extension("partial");
    read(cmd("sh", &["-c", script, "sh"]).arg(&partial).current_dir(stage))?;
    fs::rename(&partial, image).with_context(|| image.display().to_string())?;
    let size = fs::metadata(image).with_context(|| image.display().to_string())?.len();
    println!("{}: {} KiB", image.display(), size >> 10);
    Ok(())
}

fn fresh_stage(name: &str, directories: &[&str]) -> Result<PathBuf> {
    let stage = paths::target_dir("stage")?.join(name);
    let _ = fs::remove_dir_all(&stage);
    for directory in directories {
        fs::create_dir_all(stage.join(directory)).with_context(|| (*directory).to_owned())?;
    }
    Ok(stage)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("{} -> {}", from.display(), to.display()))?;
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    read(cmd("cp", &["-a"]).arg(from.join(".")).arg(to)).map(|_| ())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_what_it_depends_on() {
        assert_eq!(dependencies(b"license=GPL\0depends=jbd2,crc16\0name=ext4\0"), ["jbd2", "crc16"]);
        assert!(dependencies(b"license=GPL\0depends=\0name=x\0").is_empty());
    }
}
