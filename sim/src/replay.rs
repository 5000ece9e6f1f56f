//! What is running now, so that a failure of any kind ends with the command that replays it.

use std::sync::Mutex;

/// Workload and seed.
static NOW: Mutex<(String, u64)> = Mutex::new((String::new(), 0));

/// This runs from now on.
pub fn note(name: &str, seed: u64) {
    if let Ok(mut now) = NOW.lock() {
        *now = (name.to_owned(), seed);
    }
}

/// What to type.
pub fn command(name: &str, seed: u64) -> String {
    format!("cargo xtask sim --workload {name} --seed {seed} --seeds 1")
}

/// A panic of the store is a failure like any other.
pub fn on_panic() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        before(info);
        if let Ok(now) = NOW.try_lock() {
            eprintln!("WRONG: {}: a panic\nagain: {}", now.0, command(&now.0, now.1));
        }
    }));
}
