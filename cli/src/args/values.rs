//! Values of the command line: times, sizes, factors.

use snapshot::request::H_MILLI_MAX;
use std::time::Duration;

/// A limit, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(pub Option<Duration>);

/// A time, or `none`.
pub fn limit(text: &str) -> Result<Limit, String> {
    if text == "none" { Ok(Limit(None)) } else { time(text).map(|time| Limit(Some(time))) }
}

/// `500ms`, `2s`, `1m`: whole numbers with a unit, above zero and at most an hour.
pub fn time(text: &str) -> Result<Duration, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u64 = text[..text.len() - unit.len()].parse().map_err(|_| "a number and ms, s or m".to_owned())?;
    let time = match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        _ => return Err("a unit is missing: ms, s or m".to_owned()),
    };
    if time.is_zero() || time > Duration::from_secs(3600) {
        return Err("more than nothing and at most an hour".to_owned());
    }
    Ok(time)
}

/// `64M`, `1G`: whole MiB or GiB, as KiB.
pub fn kib(text: &str) -> Result<u32, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: u32 = text[..text.len() - unit.len()].parse().map_err(|_| "a number and K, M or G".to_owned())?;
    let factor = match unit {
        "K" => 1,
        "M" => 1 << 10,
        "G" => 1 << 20,
        _ => return Err("a unit is missing: K, M or G".to_owned()),
    };
    let kib = number.checked_mul(factor).filter(|kib| *kib >= 4);
    kib.ok_or_else(|| "at least a page, at most 4095G".to_owned())
}

/// A factor above zero with at most three decimals, as thousandths; `literal` is 0.
pub fn high(text: &str) -> Result<u32, String> {
    if text == "literal" {
        return Ok(0);
    }
    let factor: f64 = text.parse().map_err(|_| "a number, or `literal`".to_owned())?;
    let milli = (factor * 1000.0).round();
    if milli >= 1.0 && milli <= f64::from(H_MILLI_MAX) {
        Ok(milli as u32)
    } else {
        Err("from 0.001 to 1000".to_owned())
    }
}
