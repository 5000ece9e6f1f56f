//! Debian packages: those that must be installed here, and those that are only downloaded and taken apart.
//!
//! Nothing of the machine's own apt configuration is changed. Source packages come from private lists that are derived
//! from the machine's binary ones at run time, so whatever mirror the machine uses is used here too.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::sh::{cmd, long, read};

/// What building and running the lab needs on this machine, beyond Rust.
const NEEDED: &[&str] = &[
    "binutils",
    "qemu-system-x86",
    "gcc",
    "libc6-dev",
    "make",
    "flex",
    "bison",
    "python3",
    "checkpolicy",
    "m4",
    "bc",
    "cpio",
    "dpkg-dev",
    "xz-utils",
    "e2fsprogs",
    "libxen-dev",
    "patch",
];

/// All of that.
pub fn ensure_installed() -> Result<()> {
    ensure(NEEDED)
}

/// Installs what is missing as root; otherwise says what to type.
pub fn ensure(names: &[&str]) -> Result<()> {
    let missing: Vec<&str> = names.iter().copied().filter(|name| !is_installed(name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let words = missing.join(" ");
    ensure!(
        is_root()?,
        "these Debian packages are missing; install them and try again:\n  sudo apt-get update && sudo apt-get \
         install -y --no-install-recommends {words}"
    );
    long("apt-get update", &mut cmd("apt-get", &["update"]))?;
    let mut install = cmd("apt-get", &["install", "-y", "--no-install-recommends"]);
    install.args(&missing).env("DEBIAN_FRONTEND", "noninteractive");
    long("apt-get install", &mut install)
}

fn is_installed(name: &str) -> bool {
    read(&mut cmd("dpkg-query", &["-W", "-f", "${db:Status-Status}", name])).is_ok_and(|status| status == "installed")
}

fn is_root() -> Result<bool> {
    Ok(read(&mut cmd("id", &["-u"]))?.trim() == "0")
}

/// Downloads packages into `dir` and unpacks them into `dir/root`, once for this set of names.
pub fn unpacked(names: &[&str], dir: &Path) -> Result<PathBuf> {
    let root = dir.join("root");
    let done = dir.join("done");
    let wanted = names.join(" ");
    if fs::read_to_string(&done).is_ok_and(|have| have == wanted) {
        return Ok(root);
    }
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(&root).with_context(|| root.display().to_string())?;
    ensure_lists(names.first().copied().unwrap_or_default())?;
    let mut download = cmd("apt-get", &["-o", "APT::Sandbox::User=root", "download"]);
    long("download of packages", download.args(names).current_dir(dir))?;
    for entry in fs::read_dir(dir).context("packages")? {
        let path = entry.context("packages")?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            read(cmd("dpkg-deb", &["-x"]).arg(&path).arg(&root))?;
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
    }
    fs::write(done, wanted).context("done")?;
    Ok(root)
}

/// The package that `name` (a metapackage) depends on and that starts with `prefix`.
pub fn dependency(name: &str, prefix: &str) -> Result<String> {
    ensure_lists(name)?;
    let text = read(&mut cmd("apt-cache", &["depends", "--no-recommends", "--no-suggests", name]))?;
    let found = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).find(|p| p.starts_with(prefix));
    Ok(found.with_context(|| format!("{name} depends on no {prefix}*"))?.to_owned())
}

/// A machine that never ran `apt-get update` knows no packages.
fn ensure_lists(name: &str) -> Result<()> {
    if read(&mut cmd("apt-cache", &["show", name])).is_ok_and(|text| !text.is_empty()) {
        return Ok(());
    }
    ensure!(is_root()?, "apt does not know the package {name}; run: sudo apt-get update");
    long("apt-get update", &mut cmd("apt-get", &["update"]))
}

/// Unpacks the source of `package` into `dir/NAME`, newest version that the mirror really has; gives that directory.
///
/// A mirror may list a version whose files it does not hold, so the versions are tried in turn.
pub fn source(package: &str, dir: &Path) -> Result<PathBuf> {
    let options = private_lists(dir)?;
    let with = |program: &str, words: &[&str]| {
        let mut command = cmd(program, &[]);
        command.args(&options).args(words).current_dir(dir);
        command
    };
    long("apt-get update for sources", &mut with("apt-get", &["update"]))?;
    let listed = read(&mut with("apt-cache", &["showsrc", "--only-source", package]))?;
    let versions: BTreeSet<&str> = listed.lines().filter_map(|line| line.strip_prefix("Version: ")).collect();
    for version in versions.iter().rev() {
        let wanted = format!("{package}={version}");
        if long("apt-get source", &mut with("apt-get", &["source", "--download-only", &wanted])).is_ok() {
            return unpack_source(package, dir);
        }
        println!("  the mirror lacks {wanted}; trying the next");
    }
    bail!("no version of the source package {package} can be downloaded")
}

fn unpack_source(package: &str, dir: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(dir).context("sources")?.filter_map(Result::ok).map(|entry| entry.path());
    let description = entries.find(|path| path.extension().is_some_and(|extension| extension == "dsc"));
    let description = description.with_context(|| format!("no .dsc of {package}"))?;
    let tree = dir.join(package);
    let mut unpack = cmd("dpkg-source", &["--no-check", "-x"]);
    long("dpkg-source", unpack.arg(&description).arg(&tree).current_dir(dir))?;
    Ok(tree)
}

/// apt options that make it see only our deb-src lists, kept in `dir`.
fn private_lists(dir: &Path) -> Result<Vec<String>> {
    let (parts, lists) = (dir.join("sources.list.d"), dir.join("lists"));
    for path in [&parts, &lists.join("partial")] {
        fs::create_dir_all(path).with_context(|| path.display().to_string())?;
    }
    fs::write(parts.join("source.sources"), deb_src()?).context("source.sources")?;
    Ok([
        "Dir::Etc::sourcelist=/dev/null".to_owned(),
        format!("Dir::Etc::sourceparts={}", parts.display()),
        format!("Dir::State::Lists={}", lists.display()),
        "Dir::Cache::pkgcache=".to_owned(),
        "Dir::Cache::srcpkgcache=".to_owned(),
        "APT::Sandbox::User=root".to_owned(),
    ]
    .into_iter()
    .flat_map(|option| ["-o".to_owned(), option])
    .collect())
}

/// A deb-src stanza for each Debian archive that the machine's own binary lists name.
fn deb_src() -> Result<String> {
    let format = "$(ORIGIN) $(COMPONENT) $(REPO_URI) $(RELEASE)";
    let text = read(&mut cmd("apt-get", &["indextargets", "--format", format, "Created-By: Packages"]))?;
    let stanzas: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("Debian main "))
        .filter_map(|line| line.split_once(' '))
        .map(|(uri, suite)| {
            let key = "/usr/share/keyrings/debian-archive-keyring.gpg";
            format!("Types: deb-src\nURIs: {uri}\nSuites: {suite}\nComponents: main\nSigned-By: {key}\n")
        })
        .collect();
    ensure!(!stanzas.is_empty(), "apt's lists name no Debian archive; run: apt-get update");
    Ok(stanzas.into_iter().collect::<Vec<_>>().join("\n"))
}
