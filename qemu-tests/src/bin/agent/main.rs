//! The program that makes dom0 of the lab useful: `agent boot` brings the tools up once, `agent serve` then takes
//! commands from the host over virtio-serial ports for as long as the machine lives.
//!
//! It never decides anything: what runs is the host's business. busybox's init starts it (see `/etc/inittab` in the
//! image), reaps orphans and starts `serve` again should it die.

mod boot;
mod command;
mod serve;

fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("boot") => boot::run(),
        Some("serve") => serve::run(),
        other => anyhow::bail!("usage: agent boot|serve, not {other:?}"),
    }
}
