//! Progress of a take: a line that moves on a terminal, one line a round or state when piped. Standard error only.

use crate::show;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use snapshot::status::{Counters, State, Status};
use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

/// How often the moving line is drawn.
const TICK: Duration = Duration::from_millis(120);

/// The display.
pub struct Progress {
    bar: Option<ProgressBar>,
    state: Option<State>,
    round: u64,
    before: Counters,
    dirty_rate: u64,
}

impl Progress {
    /// For standard error as it is.
    pub fn new() -> Self {
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            // The template is ours; a mistake in it would only cost the looks.
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { bar, state: None, round: 0, before: Counters::default(), dirty_rate: 0 }
    }

    /// Shows a status.
    pub fn show(&mut self, status: &Status) {
        let now = status.counters;
        let turned = self.round != now.round || self.state != Some(status.state);
        if self.round != now.round {
            let us = now.elapsed_us.saturating_sub(self.before.elapsed_us);
            self.dirty_rate = show::per_second(now.dirty, us);
            self.before = now;
        }
        (self.state, self.round) = (Some(status.state), now.round);
        let text = line(status, self.dirty_rate);
        match &self.bar {
            Some(bar) => bar.set_message(text),
            None if turned => self.say(&text),
            None => {}
        }
    }

    /// A line that stays.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    /// Ends the moving line.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn say(text: &str) {
    // Progress that nobody reads is no reason to fail.
    let _ = writeln!(stderr(), "{text}");
}

/// One status as a line.
fn line(status: &Status, dirty_rate: u64) -> String {
    let c = status.counters;
    let rate = show::size(show::per_second(c.bytes, c.elapsed_us));
    match status.state {
        State::Copying => format!(
            "round {}/{}: {} pages sent ({} zero), {rate}/s, {} dirty ({dirty_rate} pages/s)",
            c.round, c.rounds, c.pages, c.zero, c.dirty
        ),
        State::WantSuspend => format!("suspending: {} pages left to copy in the pause", c.dirty),
        State::Captured | State::Flushing => format!("{}: {} pages sent, {rate}/s", status.state, c.pages),
        state => state.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snapshot::names::Token;

    #[test]
    fn a_round_shows_pages_rate_and_dirt() {
        let mut status = Status::new(Token([0; 16]), State::Copying);
        status.counters = Counters {
            round: 2,
            rounds: 30,
            pages: 1000,
            zero: 10,
            dirty: 77,
            bytes: 4 << 20,
            elapsed_us: 2_000_000,
            ..Counters::default()
        };
        assert_eq!(line(&status, 38), "round 2/30: 1000 pages sent (10 zero), 2.0 MiB/s, 77 dirty (38 pages/s)");
    }
}
