//! The goals, each beside what was measured. A goal for which the runs say nothing is said to be open, not met.

use super::report::Cells;

/// A goal: what, the limit in words, the measured value, and whether it is met.
pub struct Goal {
    what: &'static str,
    limit: &'static str,
    found: Option<(String, bool)>,
}

impl Goal {
    /// A row of the table.
    pub fn row(&self) -> String {
        let (value, verdict) = match &self.found {
            Some((value, true)) => (value.as_str(), "met"),
            Some((value, false)) => (value.as_str(), "**not met**"),
            None => ("not measured", "open"),
        };
        format!("| {} | {} | {value} | {verdict} |", self.what, self.limit)
    }
}

/// All goals for which this benchmark has an observer. Without a cap the guest writes to half of its memory.
pub fn goals(cells: &Cells, kind: &str, dd_kib_per_s: Option<f64>) -> Vec<Goal> {
    const HALF: u32 = 100;
    const MEDIUM: u32 = 40;
    let value = |mechanism: &str, cap: u32, name: &str| cells.median(kind, cap, mechanism, name);
    let ratio = |(a, b): (f64, f64)| if b > 0.0 { a / b } else { f64::INFINITY };
    let at_most = |found: Option<f64>, limit: f64| found.map(|found| (format!("{found:.4}"), found <= limit));
    let against = |cap: u32, mechanism: &str, ours: &str, theirs: &str, limit: f64| {
        at_most(value("staged", cap, ours).zip(value(mechanism, cap, theirs)).map(ratio), limit)
    };
    let staged = |name: &str| value("staged", HALF, name);
    let goal = |what, limit, found| Goal { what, limit, found };
    let to_disk = staged("pause_pages").zip(staged("staged_pages")).map(|(all, staged)| (all - staged).max(0.0));
    // One vCPU.
    let (fixed, limit_words) =
        if kind == "pv" { (12.0, "8 + 4 + dirty/512 + dirty/1024") } else { (8.0, "8 + dirty/512") };
    let tables = if kind == "pv" { 1.0 / 1024.0 } else { 0.0 };
    let of_calls = |cap: u32| {
        let (calls, pages) = value("staged", cap, "pause_calls").zip(value("staged", cap, "pause_pages"))?;
        let limit = fixed + pages / 512.0 + pages * tables;
        Some((format!("{calls:.0} of {limit:.1}"), calls <= limit))
    };
    let told = |cap: u32| {
        let (was, said) = value("staged", cap, "stub_us").zip(value("staged", cap, "renewed_us"))?;
        let is_near = (was - said).abs() <= (said / 10.0).max(5_000.0);
        Some((format!("{:.2} ({:.1} of {:.1} ms)", was / said.max(1.0), was / 1e3, said / 1e3), is_near))
    };
    let saved = value("staged", 0, "memory_pages").zip(value("staged", 0, "total_us")).zip(dd_kib_per_s);
    let saved = saved.map(|((pages, us), rate)| pages * 4.0 / (us / 1e6) / rate);
    let time = staged("total_us").zip(staged("blkif_kib")).zip(dd_kib_per_s);
    let time = time.map(|((us, kib), rate)| us / 1e6 / (kib / rate).max(1e-9));
    let requests = staged("blkif_requests").zip(staged("blkif_kib")).map(|(requests, kib)| requests / (kib / 1024.0));
    vec![
        goal("pages that went to disk in the pause, writing", "0", at_most(to_disk, 0.0)),
        goal("our share by `xl save -c`'s pause, idle", "1/200", against(0, "xl-save", "stub_us", "pause_us", 0.005)),
        goal("the same, writing to half of the memory", "1/10", against(HALF, "xl-save", "stub_us", "pause_us", 0.1)),
        goal("the same, at a cap of 40 %", "1/20", against(MEDIUM, "xl-save", "stub_us", "pause_us", 0.05)),
        goal("whole pause by `xl save -c`'s, idle", "1/10", against(0, "xl-save", "pause_us", "pause_us", 0.1)),
        goal("the same, at a cap of 40 %", "1/10", against(MEDIUM, "xl-save", "pause_us", "pause_us", 0.1)),
        goal("the same, writing", "1/10", against(HALF, "xl-save", "pause_us", "pause_us", 0.1)),
        goal("whole pause by `live`'s, writing", "1/10", against(HALF, "live", "pause_us", "pause_us", 0.1)),
        goal("whole pause by `improved`'s, writing", "1/10", against(HALF, "improved", "pause_us", "pause_us", 0.1)),
        goal("our share of the pause by `live`'s, writing", "1/10", against(HALF, "live", "stub_us", "stub_us", 0.1)),
        goal("pages sent by pages of memory, writing", "1.15", {
            at_most(staged("pages_sent").zip(staged("memory_pages")).map(ratio), 1.15)
        }),
        goal("rounds, writing", "5", at_most(staged("rounds"), 5.0)),
        goal("CLEANs, writing", "4", at_most(staged("cleans"), 4.0)),
        goal("CLEANs, idle", "4", at_most(value("staged", 0, "cleans"), 4.0)),
        goal("hypercalls in the pause, writing", limit_words, of_calls(HALF)),
        goal("hypercalls in the pause, idle", limit_words, of_calls(0)),
        goal("captured by what was told when the guest stood, writing", "0.9 to 1.1, or 5 ms", told(HALF)),
        goal("captured by what was told when the guest stood, idle", "0.9 to 1.1, or 5 ms", told(0)),
        goal(
            "longest stall outside the pause, us (reported)",
            "-",
            staged("stall_max_us").map(|us| (us.to_string(), true)),
        ),
        goal("sum of stalls, us (reported)", "-", staged("stalls_us").map(|us| (us.to_string(), true))),
        goal("time by (bytes written / dd)", "1.10", at_most(time, 1.10)),
        goal("guest memory saved by `dd`'s rate, idle", "at least 1.5", {
            saved.map(|saved| (format!("{saved:.2}"), saved >= 1.5))
        }),
        goal("blkif requests per MiB", "2", at_most(requests, 2.0)),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Numbers, Sample};
    use super::*;

    fn sample(mechanism: &'static str, numbers: Numbers) -> Sample {
        Sample { kind: "pvh", cap: 100, mechanism, run: 1, outcome: Ok(numbers) }
    }

    #[test]
    fn a_goal_is_met_missed_or_open() {
        let save = Numbers { pause_us: Some(1_000_000), ..Numbers::default() };
        let ours = Numbers { pause_us: Some(200_000), stub_us: Some(50_000), rounds: Some(2), ..Numbers::default() };
        let samples = [sample("xl-save", save), sample("staged", ours)];
        let rows: Vec<String> = goals(&Cells::of(&samples), "pvh", None).iter().map(Goal::row).collect();
        let row = |what: &str| rows.iter().find(|row| row.contains(what)).cloned().unwrap_or_default();
        assert!(row("the same, writing to half").ends_with("| 0.0500 | met |"), "{rows:?}");
        assert!(row("the same, writing |").ends_with("| 0.2000 | **not met** |"), "{rows:?}");
        assert!(row("by `live`'s").ends_with("| not measured | open |"), "{rows:?}");
        assert!(row("time by").ends_with("| open |") && row("rounds").ends_with("| 2.0000 | met |"));
    }
}
