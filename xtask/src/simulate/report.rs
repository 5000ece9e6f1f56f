//! Tables of the study in Markdown: the paper's tables 4 and 5 beside the model, every statement with what was seen.

use super::shapes::Shape;
use super::study::Study;

/// Caps of the paper's tables.
const CAPS: [u32; 10] = [0, 1, 4, 7, 10, 13, 16, 19, 22, 25];

/// Tables 4 and 5 of the paper, which are the same to the last digit: downtime in milliseconds.
const PAPER: [(&str, &str, [f64; 10]); 5] = [
    ("Save", "save", [9151.5; 10]),
    ("Live Migration", "migration", [3.9, 4.8, 5.1, 1715.2, 3922.8, 4290.35, 4413.7, 4520.4, 4631.45, 4698.65]),
    ("Live Migration Save", "vnsnap", [3.85, 51.1, 8.55, 4343.15, 5728.5, 6964.8, 6609.7, 5909.85, 6495.65, 5394.4]),
    ("Live Save", "live-skip", [9.7, 31.55, 192.4, 4495.7, 4641.45, 5279.05, 5443.0, 5730.95, 5781.55, 5855.2]),
    (
        "Improved Live Save",
        "improved-skip",
        [7.5, 6.9, 15.2, 3272.05, 4825.15, 5301.4, 5525.35, 5677.0, 5928.0, 5919.8],
    ),
];

/// Ours, below the paper's.
const OURS: [&str; 7] = ["live", "improved", "xen", "staged-32M", "staged-128M", "staged-half", "staged-32M-throttle"];

/// One statement in a line.
pub fn line(shape: &Shape) -> String {
    let verdict = match (shape.holds, shape.expected) {
        (true, true) => "holds",
        (false, false) => "does not hold, as explained",
        (true, false) => "HOLDS, BUT SHOULD NOT",
        (false, true) => "DOES NOT HOLD",
    };
    format!("{}: {}: {verdict}: {}", shape.source, shape.claim, shape.seen)
}

/// All tables.
pub fn tables(study: &Study, shapes: &[Shape]) -> String {
    let mut text = String::from("# Tables of the simulation\n");
    for gib in [1, 2] {
        text += &format!("\n## Downtime in milliseconds, {gib} GiB\n\n{}", downtime(study, gib));
    }
    text += "\n## Statements\n\n| source | statement | | seen |\n|---|---|---|---|\n";
    for shape in shapes {
        let verdict = if shape.holds { "holds" } else { "does not hold" };
        text += &format!("| {} | {} | {verdict} | {} |\n", shape.source, shape.claim, shape.seen);
    }
    text
}

fn downtime(study: &Study, gib: u32) -> String {
    let caps = CAPS.map(|cap| if cap == 0 { "idle".to_owned() } else { cap.to_string() }).join(" | ");
    let mut text = format!("| | | {caps} |\n|---|---|{}\n", "--:|".repeat(CAPS.len()));
    let mut row = |name: &str, what: &str, cells: Vec<String>| {
        text += &format!("| {name} | {what} | {} |\n", cells.join(" | "));
    };
    let model = |name: &str| -> Vec<String> {
        let series = study.series(name, gib, "downtime_s");
        let means = series.iter().filter(|(cap, _)| CAPS.contains(cap));
        means.map(|(_, mean)| format!("{:.0} +- {:.0}", mean.value * 1e3, mean.half * 1e3)).collect()
    };
    for (name, series, paper) in PAPER {
        row(name, "paper", paper.iter().map(f64::to_string).collect());
        row("", "model", model(series));
    }
    for name in OURS {
        row(name, "model", model(name));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_have_the_papers_numbers_and_a_cell_for_each_cap() {
        let study = Study::run(2);
        let text = tables(&study, &[]);
        assert!(text.contains("| 9.7 | 31.55 | 192.4 | 4495.7 | 4641.45 |"));
        let rows = text.lines().filter(|line| line.starts_with("| "));
        assert!(rows.clone().all(|row| row.matches('|').count() == 13 || row.starts_with("| source")), "{text}");
        assert!(!text.contains("NaN"));
    }
}
