//! The raw data's file: what is known of the machines as comments, then a line for each run, those that failed too.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::sample::Sample;

/// Where it was measured: what, and its value.
pub type Versions = Vec<(String, String)>;

/// Before what is known of the machines.
const COMMENT: &str = "# ";
/// Between what and its value.
const EQUALS: &str = " = ";

/// The whole file.
pub fn text(versions: &[(String, String)], samples: &[Sample]) -> String {
    let facts = versions.iter().map(|(what, value)| format!("{COMMENT}{what}{EQUALS}{}", value.replace('\n', " ")));
    let lines = facts.chain(std::iter::once(Sample::head())).chain(samples.iter().map(Sample::line));
    lines.map(|line| line + "\n").collect()
}

/// Writes it to `bench.csv`: `versions` and what the machines told.
pub fn write(out: &Path, versions: &Versions, found: &(Versions, Vec<Sample>)) -> Result<()> {
    let all = [versions.as_slice(), found.0.as_slice()].concat();
    fs::write(out.join("bench.csv"), text(&all, &found.1)).context("bench.csv")
}

/// Reads it.
pub fn parse(text: &str) -> Result<(Versions, Vec<Sample>)> {
    let fact = |line: &str| line.strip_prefix(COMMENT)?.split_once(EQUALS).map(|(a, b)| (a.to_owned(), b.to_owned()));
    let (facts, lines): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with(COMMENT));
    let (head, lines) = lines.split_first().context("no line names the columns")?;
    let samples = lines.iter().map(|line| Sample::parse(head, line).with_context(|| format!("no run: {line}")));
    Ok((facts.into_iter().filter_map(fact).collect(), samples.collect::<Result<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::super::sample::Numbers;
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let sample = |outcome| Sample { kind: "pv", cap: 40, mechanism: "live", run: 2, outcome };
        let numbers = Numbers { pause_us: Some(5), boot: Some(1), ..Numbers::default() };
        let samples = [sample(Ok(numbers.clone())), sample(Err("it broke".to_owned()))];
        let facts = vec![("pv: Xen".to_owned(), "4.17: so".to_owned())];
        let text = text(&facts, &samples);
        let (read, lines) = parse(&text).unwrap();
        assert_eq!(read, facts);
        assert_eq!((lines[0].outcome.clone(), lines[1].outcome.clone()), (Ok(numbers), Err("it broke".to_owned())));
        assert!(parse("").is_err() && parse(&(text + "rubbish\n")).is_err());
    }
}
