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
    let value = |mechanism: &str, cap: u32, name: &str| cells.median(kind, cap, mechanism, name);
    let ratio = |(a, b): (f64, f64)| if b > 0.0 { a / b } else { f64::INFINITY };
    let at_most = |found: Option<f64>, limit: f64| found.map(|found| (format!("{found:.4}"), found <= limit));
    let against = |cap: u32, mechanism: &str, ours: &str, theirs: &str, limit: f64| {
        at_most(value("staged", cap, ours).zip(value(mechanism, cap, theirs)).map(ratio), limit)
    };
    let staged = |name: &str| value("staged", HALF, name);
    let goal = |what, limit, found| Goal { what, limit, found };
    let to_disk = staged("pause_pages").zip(staged("staged_pages")).map(|(all, staged)| (all - staged).max(0.0));
    let calls = staged("pause_calls").zip(staged("pause_pages")).map(|(calls, pages)| (calls, 8.0 + pages / 512.0));
    let time = staged("total_us").zip(staged("blkif_kib")).zip(dd_kib_per_s);
    let time = time.map(|((us, kib), rate)| us / 1e6 / (kib / rate).max(1e-9));
    let requests = staged("blkif_requests").zip(staged("blkif_kib")).map(|(requests, kib)| requests / (kib / 1024.0));
    vec![
        goal("pages that went to disk in the pause, writing", "0", at_most(to_disk, 0.0)),
        goal("our share by `xl save -c`'s pause, idle", "1/200", against(0, "xl-save", "stub_us", "pause_us", 0.005)),
        goal("the same, writing to half of the memory", "1/10", against(HALF, "xl-save", "stub_us", "pause_us", 0.1)),
        goal("whole pause by `xl save -c`'s, idle", "1/10", against(0, "xl-save", "pause_us", "pause_us", 0.1)),
        goal("the same, writing", "1/10", against(HALF, "xl-save", "pause_us", "pause_us", 0.1)),
        goal("whole pause by `live`'s, writing", "1/10", against(HALF, "live", "pause_us", "pause_us", 0.1)),
        goal("whole pause by `improved`'s, writing", "1/10", against(HALF, "improved", "pause_us", "pause_us", 0.1)),
        goal("our share of the pause by `live`'s, writing", "-", against(HALF, "live", "stub_us", "stub_us", 0.1)),
        goal("pages sent by pages of memory, writing", "1.15", {
            at_most(staged("pages_sent").zip(staged("memory_pages")).map(ratio), 1.15)
        }),
        goal("rounds, writing", "5", at_most(staged("rounds"), 5.0)),
        goal("CLEANs, writing", "4", at_most(staged("cleans"), 4.0)),
        goal("hypercalls in the pause, PVH", "8 + dirty/512", {
            calls.map(|(calls, limit)| (format!("{calls:.0} of {limit:.0}"), calls <= limit))
        }),
        goal(
            "longest stall outside the pause, us (reported)",
            "-",
            staged("stall_max_us").map(|us| (us.to_string(), true)),
        ),
        goal("sum of stalls, us (reported)", "-", staged("stalls_us").map(|us| (us.to_string(), true))),
        goal("time by (bytes written / dd)", "1.10", at_most(time, 1.10)),
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
