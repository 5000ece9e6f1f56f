//! The model of the paper's experiment: a guest that writes at random into half of its memory, and a sink that takes
//! pages at a fixed rate. Closed forms for the expected counts of a round, a seeded deviation around them.
//!
//! One round: pages of the set are visited in order; a page that was written again since the round began is left out,
//! so the share u(x) not dirty again at the point x obeys du/dt = -(w/W) u, and time passes only for pages sent.

/// Pages of 1 GiB.
pub const GIB: f64 = 262_144.0;

/// Pages that become dirty in the suspend itself, whatever the guest does.
pub const HOT: f64 = 40.0;

/// What a pause costs without pages, in seconds: the seed's own idle downtime less the hot pages.
pub const EMPTY_PAUSE_S: f64 = 0.003;

/// Standard deviation of the sink's rate between runs, as a share: from the paper's half-width at cap 28 over 20 runs.
const RATE_CV: f64 = 0.06;

/// The sink of live migration: 106 MB/s in pages a second. Writes of the guest are told relative to it.
pub const MIGRATION_RATE: f64 = 26_000.0;

/// A guest of the experiment.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Guest {
    /// Pages of memory.
    pub memory: f64,
    /// Pages that it writes to, at random.
    pub written: f64,
    /// Writes a second.
    pub writes: f64,
}

impl Guest {
    /// A guest of `gib` GiB that writes to half of it under a CPU cap; 0 is idle, 100 uncapped.
    pub fn new(gib: f64, cap: f64) -> Self {
        Self { memory: gib * GIB, written: gib * GIB / 2.0, writes: writes_at(cap) }
    }
}

/// Writes a second at a cap: below 3.8 the guest's own overhead takes all. Fitted to the paper's table 4.
pub fn writes_at(cap: f64) -> f64 {
    0.54 * (cap - 3.8).max(0.0) * MIGRATION_RATE
}

/// What came of one round.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Round {
    /// Pages sent.
    pub sent: f64,
    /// Seconds.
    pub seconds: f64,
    /// Share of the written set that is dirty at its end.
    pub dirty: f64,
}

/// A guest against a sink.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Race {
    /// The guest.
    pub guest: Guest,
    /// Pages that the sink takes in a second.
    pub rate: f64,
}

impl Race {
    /// Writes while one page is sent.
    fn rho(&self) -> f64 {
        self.guest.writes / self.rate
    }

    /// Share of the written set that is dirty after `seconds`, starting clean.
    fn dirtied(&self, seconds: f64) -> f64 {
        -(-self.guest.writes * seconds / self.guest.written).exp_m1()
    }

    /// Round 1, with or without leaving out what is dirty again.
    pub fn first(&self, skip: bool) -> Round {
        let Guest { memory, written, .. } = self.guest;
        if !skip || self.rho() == 0.0 {
            let seconds = memory / self.rate;
            return Round { sent: memory, seconds, dirty: self.dirtied(seconds) };
        }
        // The cold pages lie between the others and give the guest time to write.
        let cold = memory - written;
        let a = self.rho() * cold / written;
        let seen = -(-a).exp_m1();
        let sent = written / self.rho() * (self.rho() * seen / a).ln_1p() + cold;
        let clean = a * (-a).exp() / (a + self.rho() * seen);
        Round { sent, seconds: sent / self.rate, dirty: 1.0 - clean }
    }

    /// A later round, given the share `dirty` of the written set.
    pub fn next(&self, dirty: f64, skip: bool) -> Round {
        let (written, rho) = (self.guest.written, self.rho());
        if !skip || rho == 0.0 {
            let sent = written * dirty;
            return Round { sent, seconds: sent / self.rate, dirty: self.dirtied(sent / self.rate) };
        }
        let sent = written / rho * (rho * dirty).ln_1p();
        Round { sent, seconds: sent / self.rate, dirty: rho * dirty / (1.0 + rho * dirty) }
    }
}

/// splitmix64 and Box-Muller: seeded, the same on every machine.
pub struct Noise {
    state: u64,
    /// 0: the expected values themselves.
    scale: f64,
}

impl Noise {
    /// Of one run; without a seed there is none.
    pub fn new(seed: Option<u64>) -> Self {
        Self { state: seed.unwrap_or(0), scale: if seed.is_some() { 1.0 } else { 0.0 } }
    }

    fn uniform(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((bits ^ (bits >> 31)) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Standard normal.
    fn normal(&mut self) -> f64 {
        self.scale * (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// The sink's rate in this run. `wide`: one of which only a range is known, evenly within a quarter of it.
    pub fn rate(&mut self, mean: f64, wide: bool) -> f64 {
        let base = if wide { mean * (1.0 + self.scale * 0.5 * (self.uniform() - 0.5)) } else { mean };
        base * (1.0 + RATE_CV * self.normal().clamp(-3.0, 3.0))
    }

    /// A count of `pages` of which each is dirty with the chance `share`.
    pub fn count(&mut self, pages: f64, share: f64) -> f64 {
        let deviation = (pages * share * (1.0 - share)).max(0.0).sqrt();
        (pages * share + deviation * self.normal()).round().clamp(0.0, pages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The closed forms against a guest that is really written, page by page, at a thousandth of the scale.
    #[test]
    fn the_closed_forms_are_those_of_a_guest_that_is_written() {
        let (pages, rho) = (20_000_usize, 4.0);
        let mut noise = Noise::new(Some(7));
        let (mut dirty, mut sent) = (vec![false; pages], 0);
        for page in 0..pages {
            if dirty[page] {
                continue;
            }
            sent += 1;
            for _ in 0..rho as usize {
                let at = (noise.uniform() * pages as f64) as usize;
                dirty[at] = true;
            }
        }
        let guest = Guest { memory: pages as f64, written: pages as f64, writes: rho };
        let round = Race { guest, rate: 1.0 }.next(1.0, true);
        let counted = dirty.iter().filter(|dirty| **dirty).count() as f64 / pages as f64;
        assert!((round.sent / f64::from(sent) - 1.0).abs() < 0.03, "{} {sent}", round.sent);
        assert!((round.dirty / counted - 1.0).abs() < 0.02, "{} {counted}", round.dirty);
    }

    #[test]
    fn an_idle_guest_is_sent_once() {
        let race = Race { guest: Guest::new(1.0, 0.0), rate: 21_500.0 };
        assert_eq!(race.first(true), race.first(false));
        assert_eq!((race.first(true).sent, race.first(true).dirty, race.next(0.0, true).sent), (GIB, 0.0, 0.0));
    }

    /// du/dt at the fixed point: d* = 1 - 1/rho, S* = W ln(rho) / rho.
    #[test]
    fn a_busy_guest_reaches_the_fixed_point() {
        let race = Race { guest: Guest::new(1.0, 25.0), rate: 21_500.0 };
        let rho = race.rho();
        let round = (0..50).fold(race.first(true), |round, _| race.next(round.dirty, true));
        assert!((round.dirty - (1.0 - 1.0 / rho)).abs() < 1e-9);
        assert!((round.sent - GIB / 2.0 * rho.ln() / rho).abs() < 1e-3);
    }
}
