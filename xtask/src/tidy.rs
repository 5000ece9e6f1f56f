//! `cargo xtask tidy`.

/// Runs the verb.
pub fn run() -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
