//! What is running now, so that a failure of any kind ends with the command that replays it.

use std::sync::Mutex;

/// Workload and seed.
static NOW: Mutex<(String, u64)> = Mutex::new((String::new(), 0));

/// What a parser was given last.
static INPUT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// This runs from now on.
pub fn note(name: &str, seed: u64) {
    if let Ok(mut now) = NOW.lock() {
        *now = (name.to_owned(), seed);
    }
}

/// This input is being looked at.
pub fn input(bytes: &[u8]) {
    if let Ok(mut input) = INPUT.lock() {
        input.clear();
        input.extend_from_slice(bytes);
    }
}

/// What to type.
pub fn command(name: &str, seed: u64) -> String {
    if let Some(target) = name.strip_prefix("fuzz ") {
        return format!("cargo xtask sim fuzz --target {target} --seed {seed}");
    }
    if name == "sabotage" {
        return "cargo xtask sim sabotage --only OneWriter".to_owned();
    }
    if name == "bits" {
        return "cargo xtask sim bits --every".to_owned();
    }
    if name == "world" {
        return format!("cargo xtask sim world --seed {seed} --seeds 1");
    }
    if let Some(death) = name.strip_prefix("world ") {
        return format!("cargo xtask sim world --death {death}:{seed}");
    }
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
        if let Some(input) = INPUT.try_lock().ok().filter(|input| !input.is_empty()) {
            eprintln!("input: {input:02x?}");
        }
    }));
}
