//! Where things are: the checkout, its target directory, and the cache that outlives checkouts.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The root of the checkout.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Cargo's target directory; everything that a verb makes for this checkout lies below it.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A directory below `target/`, made if it does not exist.
pub fn target_dir(name: &str) -> Result<PathBuf> {
    make(target().join(name))
}

/// What is expensive and does not depend on the checkout: `$LIVESAVE_CACHE`, or `~/.cache/livesave`.
pub fn cache_dir(name: &str) -> Result<PathBuf> {
    let cache = match env::var_os("LIVESAVE_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(env::var_os("HOME").context("neither LIVESAVE_CACHE nor HOME is set")?)
            .join(".cache")
            .join("livesave"),
    };
    make(cache.join(name))
}

fn make(path: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    Ok(path)
}
