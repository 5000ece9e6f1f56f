//! The counter on the console and in xenstore, from a thread of its own: a console that nobody drains or a xenstored
//! that is away must not stop the counting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::bus::Bus;
use crate::settings::Settings;
use crate::{Published, counter};

/// Starts the two publishers.
pub fn start(settings: &Settings, shared: &Arc<Published>) {
    let period = Duration::from_millis((settings.publish * settings.tick_ms).max(1));
    let console = Arc::clone(shared);
    thread::spawn(move || each(&console, period, |line| println!("COUNTER {line}")));
    let store = Arc::clone(shared);
    thread::spawn(move || match Bus::open() {
        Ok(mut bus) => each(&store, period, |line| {
            if let Err(error) = bus.write("data/counter", line) {
                println!("GUEST xenstore: {error}");
            }
        }),
        Err(error) => println!("GUEST has no xenbus: {error}"),
    });
}

/// Calls `publish` once a period, if the counter moved.
fn each(shared: &Published, period: Duration, mut publish: impl FnMut(&str)) {
    let mut last = 0;
    loop {
        let counter = counter::ticks();
        if counter != last {
            last = counter;
            let errors = shared.errors.load(Ordering::Relaxed);
            let passes = shared.passes.load(Ordering::Relaxed);
            let gfn = counter::gfn().map_or_else(|| "none".to_owned(), |gfn| format!("{gfn:x}"));
            publish(&format!("{counter} errors={errors} pass={passes} gfn={gfn}{}", more(shared)));
        }
        thread::sleep(period);
    }
}

/// What only some guests have something to say about: ` beats=N,N,...`, ` blocks=N`, ` warnings=N`.
fn more(shared: &Published) -> String {
    let beats: Vec<String> = shared.beats.iter().map(|beats| beats.load(Ordering::Relaxed).to_string()).collect();
    let number = |of: &AtomicU64| of.load(Ordering::Relaxed);
    format!(" beats={} blocks={} warnings={}", beats.join(","), number(&shared.blocks), number(&shared.warnings))
}
