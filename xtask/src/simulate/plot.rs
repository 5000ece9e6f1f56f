//! Line plots as SVG, with error bars: enough for the paper's figures, readable beside text.

use std::fmt::Write;

use super::study::Mean;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 48.0;

/// Distinct on white and for the colour-blind (Okabe and Ito).
const BLACK: &str = "#000000";
const ORANGE: &str = "#e69f00";
const SKY: &str = "#56b4e9";
const GREEN: &str = "#009e73";
const RED: &str = "#d55e00";
const BLUE: &str = "#0072b2";
const PINK: &str = "#cc79a7";

/// Colour, and whether it is dashed: a mechanism looks the same in every plot, measured or simulated. What is read in
/// another way, or has other settings, is dashed.
fn look(name: &str) -> (&'static str, bool) {
    match name {
        "xl-save" | "save" => (BLACK, false),
        "xl-migrate" | "migration" => (ORANGE, false),
        "vnsnap" => (SKY, false),
        "live" => (GREEN, false),
        "live-skip" => (GREEN, true),
        "improved" => (RED, false),
        "improved-skip" => (RED, true),
        "improved-literal-h" => (ORANGE, true),
        "xen" => (BLUE, false),
        "staged" | "staged-128M" => (PINK, false),
        "staged-32M" => (PINK, true),
        "staged-half" => (SKY, true),
        "staged-32M-throttle" => (BLUE, true),
        _ => (BLACK, true),
    }
}

/// Has each line of a plot a look of its own?
#[cfg(test)]
pub fn are_told_apart(names: &[&str]) -> bool {
    let looks: std::collections::BTreeSet<_> = names.iter().map(|name| look(name)).collect();
    looks.len() == names.len() && !looks.contains(&look(""))
}

/// A value with the ends of its bar.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Where the line goes through.
    pub value: f64,
    /// The bar's lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

impl From<Mean> for Point {
    fn from(mean: Mean) -> Self {
        Self { value: mean.value, low: mean.value - mean.half, high: mean.value + mean.half }
    }
}

/// One line of a plot.
pub struct Line {
    /// In the legend.
    pub name: String,
    /// Ascending caps.
    pub points: Vec<(u32, Point)>,
}

/// A plot over the caps.
pub struct Plot {
    /// Above it.
    pub title: String,
    /// At the vertical axis.
    pub unit: &'static str,
    /// Powers of ten.
    pub log: bool,
    /// The lines.
    pub lines: Vec<Line>,
}

/// The vertical axis.
struct Axis {
    low: f64,
    high: f64,
    log: bool,
    ticks: Vec<f64>,
}

impl Axis {
    fn of(plot: &Plot) -> Self {
        let values =
            || plot.lines.iter().flat_map(|line| line.points.iter().flat_map(|(_, at)| [at.low, at.value, at.high]));
        let high = values().fold(0.0, f64::max).max(1e-9);
        if plot.log {
            let least = values().filter(|value| *value > 0.0).fold(high, f64::min);
            let (from, to) = (least.log10().floor() as i32, high.log10().ceil() as i32);
            let ticks = (from..=to).map(|power| 10f64.powi(power)).collect();
            return Self { low: 10f64.powi(from), high: 10f64.powi(to), log: true, ticks };
        }
        let step = nice(high / 5.0);
        let count = (high / step).ceil() as u32;
        Self {
            low: 0.0,
            high: step * f64::from(count),
            log: false,
            ticks: (0..=count).map(|n| step * f64::from(n)).collect(),
        }
    }

    fn y(&self, value: f64) -> f64 {
        let share = if self.log {
            (value.max(self.low) / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        TOP + (1.0 - share.clamp(0.0, 1.0)) * (HEIGHT - TOP - BOTTOM)
    }
}

/// 1, 2 or 5 times a power of ten, not below `step`.
fn nice(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|factor| factor * power).find(|nice| *nice >= step).unwrap_or(10.0 * power)
}

fn x(cap: u32) -> f64 {
    LEFT + f64::from(cap) / 100.0 * (WIDTH - LEFT - RIGHT)
}

/// 12000 as 12k, 0.005 as 0.005.
fn label(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{}M", v / 1e6),
        v if v >= 1e4 => format!("{}k", v / 1e3),
        v => format!("{}", (v * 1e6).round() / 1e6),
    }
}

impl Plot {
    /// The whole document.
    pub fn svg(&self) -> String {
        let axis = Axis::of(self);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\"\n\
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
        );
        let text = |x: f64, y: f64, anchor: &str, words: &str| {
            let words = words.replace('&', "&amp;").replace('<', "&lt;");
            format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>\n")
        };
        out += &text(LEFT, 20.0, "start", &self.title);
        out += &text((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 10.0, "middle", "CPU cap, % (0: idle, 100: uncapped)");
        for tick in &axis.ticks {
            let y = axis.y(*tick);
            let right = WIDTH - RIGHT;
            let _ = writeln!(out, "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#ddd\"/>");
            out += &text(LEFT - 6.0, y + 4.0, "end", &label(*tick));
        }
        out += &text(6.0, 34.0, "start", self.unit);
        for cap in (0..=100).step_by(10) {
            let (x, bottom) = (x(cap), HEIGHT - BOTTOM);
            let _ = writeln!(out, "<path d=\"M{x:.1} {bottom}v4\" stroke=\"#333\"/>");
            out += &text(x, bottom + 17.0, "middle", &cap.to_string());
        }
        for (index, line) in self.lines.iter().enumerate() {
            out += &self.line(index, line, &axis);
            out += &text(WIDTH - RIGHT + 40.0, TOP + 14.0 + 18.0 * index as f64, "start", &line.name);
        }
        out + "</svg>\n"
    }

    fn line(&self, index: usize, line: &Line, axis: &Axis) -> String {
        let (colour, is_dashed) = look(&line.name);
        let dash = if is_dashed { " stroke-dasharray=\"5 3\"" } else { "" };
        let style = format!("fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"{dash}");
        let points = line.points.iter().map(|(cap, point)| format!("{:.1},{:.1}", x(*cap), axis.y(point.value)));
        let mut out = format!("<polyline {style} points=\"\n{}\"/>\n", points.collect::<Vec<_>>().join("\n"));
        for (cap, point) in line.points.iter().filter(|(_, point)| point.high > point.low) {
            let (top, bottom) = (axis.y(point.high), axis.y(point.low));
            let _ = writeln!(out, "<path d=\"M{:.1} {top:.1}V{bottom:.1}\" stroke=\"{colour}\"/>", x(*cap));
        }
        let (from, y) = (WIDTH - RIGHT + 12.0, TOP + 10.0 + 18.0 * index as f64);
        out + &format!("<path d=\"M{from:.1} {y:.1}h22\" {style}/>\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_holds_every_line_and_stays_within_its_frame() {
        let at = |value| Point::from(Mean { value, half: 0.1 });
        let lines = vec![Line { name: "a<b".to_owned(), points: vec![(0, at(0.001)), (50, at(3.0)), (100, at(17.0))] }];
        for log in [false, true] {
            let svg = Plot { title: "t".to_owned(), unit: "s", log, lines: vec![] }.svg();
            assert!(svg.ends_with("</svg>\n"));
        }
        let plot = Plot { title: "t".to_owned(), unit: "s", log: false, lines };
        let svg = plot.svg();
        assert!(svg.contains("a&lt;b") && svg.contains("<polyline"));
        let axis = Axis::of(&plot);
        assert_eq!((axis.high, axis.y(axis.high), axis.y(0.0)), (20.0, TOP, HEIGHT - BOTTOM));
        // A bar need not be as long below its value as above.
        let points = vec![(50, Point { value: 5.0, low: 5.0, high: 10.0 })];
        let lines = vec![Line { name: "a".to_owned(), points }];
        let plot = Plot { title: "t".to_owned(), unit: "s", log: false, lines };
        let (axis, svg) = (Axis::of(&plot), plot.svg());
        assert!(svg.contains(&format!("M322.0 {:.1}V{:.1}", axis.y(10.0), axis.y(5.0))), "{svg}");
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!((nice(0.3), nice(1.0), nice(2.1), nice(7.0)), (0.5, 1.0, 5.0, 10.0));
        assert_eq!(
            (label(120_000.0), label(0.005), label(2e6)),
            ("120k".to_owned(), "0.005".to_owned(), "2M".to_owned())
        );
    }
}
