//! How things look: tables for people, JSON for programs, sizes, times and rates.
//!
//! Results go to standard output, everything else to standard error, so that a pipe carries results only.

use crate::exit::{Exit, Failure, Outcome};
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};
use std::io::{self, Write};

/// Shows an error: two lines, or JSON.
pub fn failure(failure: &Failure, as_json: bool) {
    if as_json {
        let (word, status) = (failure.exit.word(), failure.exit.code());
        let value = json!({ "error": word, "status": status, "message": failure.what, "hint": failure.way_out() });
        // Standard error may be closed; the exit status still tells.
        let _ = writeln!(io::stderr(), "{value}");
    } else {
        let _ = writeln!(io::stderr(), "{failure}");
    }
}

/// Shows what went wrong beside a command that goes on.
pub fn warn(failure: &Failure) {
    // Standard error may be closed.
    let _ = writeln!(io::stderr(), "{}", failure.to_string().replacen("livesave: ", "livesave: warning: ", 1));
}

/// Prints one result.
pub fn print(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    written.map_err(|error| Exit::CannotWrite.fail(format_args!("standard output: {error}")))
}

/// Prints JSON.
pub fn print_json(value: &Value) -> Outcome {
    print(&format!("{value:#}"))
}

/// A table without lines, its columns aligned right where the heading starts with `>`.
pub fn table(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(headings.iter().map(|heading| heading.trim_start_matches('>')));
    for row in rows {
        table.add_row(row);
    }
    for (column, heading) in table.column_iter_mut().zip(headings) {
        column.set_padding((0, 2));
        if heading.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A size: `512 B`, `1.5 KiB`, `128.0 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let unit = (bytes.ilog2() / 10).min(5);
    let whole = bytes >> (10 * unit);
    let tenth = ((bytes >> (10 * (unit - 1))) & 1023) * 10 / 1024;
    format!("{whole}.{tenth} {}", UNITS[unit as usize - 1])
}

/// A time: `999 us`, `12.3 ms`, `4.56 s`, `1:02:03`.
pub fn time(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        1_000_000..60_000_000 => format!("{}.{:02} s", us / 1_000_000, us % 1_000_000 / 10_000),
        _ => {
            let seconds = us / 1_000_000;
            format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
        }
    }
}

/// A number for each second.
pub fn per_second(number: u64, us: u64) -> u64 {
    let rate = u128::from(number) * 1_000_000 / u128::from(us.max(1));
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// Seconds since 1970 as `20261122T150000Z`, the default name of a snapshot.
pub fn stamp(unix: u64) -> String {
    let (year, month, day) = date(unix / 86_400);
    let second = unix % 86_400;
    format!("{year:04}{month:02}{day:02}T{:02}{:02}{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// As [`stamp`], for people.
pub fn moment(unix: u64) -> String {
    let (year, month, day) = date(unix / 86_400);
    let second = unix % 86_400;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// The Gregorian date of a day since 1970, counted in eras of 400 years that start on 1 March.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + carry, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_decimal() {
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024), "1.0 KiB");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size((128 << 20) - 1), "127.9 MiB");
        assert_eq!(size(u64::MAX), "16383.9 PiB");
    }

    #[test]
    fn times_choose_their_unit() {
        assert_eq!(time(999), "999 us");
        assert_eq!(time(12_345), "12.3 ms");
        assert_eq!(time(4_560_000), "4.56 s");
        assert_eq!(time(3_723_000_000), "1:02:03");
    }

    #[test]
    fn stamps_are_utc() {
        assert_eq!(stamp(0), "19700101T000000Z");
        assert_eq!(stamp(951_782_400), "20000229T000000Z");
        assert_eq!(stamp(1_795_359_600), "20261122T150000Z");
        assert_eq!(moment(4_107_542_399), "2100-02-28 23:59:59");
    }

    #[test]
    fn a_table_aligns_and_has_no_trailing_blanks() {
        let text =
            table(&["NAME", ">SIZE"], [vec!["a".to_owned(), "10".to_owned()], vec!["bcd".to_owned(), "9".to_owned()]]);
        assert_eq!(text, "NAME  SIZE\na       10\nbcd      9");
    }
}
