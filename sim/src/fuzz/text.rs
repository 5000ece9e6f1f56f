//! What comes through xenstore, and the trace of a take: whatever is accepted is written and read again exactly.

use std::fmt::{Debug, Display};

use snapshot::names::SnapshotName;
use snapshot::request::Request;
use snapshot::status::{Status, StubNode};
use snapshot::trace::Trace;
use snapshot::verdict::{Cancel, Verdict};

use super::driver::{Answer, Target};

/// Keys and values of all of them.
const WORDS: &str = include_str!("../../corpus/words.txt");

/// A target over text.
const fn target(name: &'static str, seeds: fn() -> Vec<Vec<u8>>, run: fn(&[u8]) -> Answer) -> Target {
    Target { name, seeds, words: WORDS, run, cost: 1 }
}

pub const REQUEST: Target =
    target("request", || seeds(include_str!("../../corpus/request.txt")), |bytes| again(bytes, Request::parse));
pub const STATUS: Target =
    target("status", || seeds(include_str!("../../corpus/status.txt")), |bytes| again(bytes, Status::parse));
pub const STUB: Target =
    target("stub-node", || seeds(include_str!("../../corpus/stub.txt")), |bytes| again(bytes, StubNode::parse));
pub const VERDICT: Target =
    target("verdict", || seeds(include_str!("../../corpus/verdict.txt")), |bytes| again(bytes, Verdict::parse));
pub const CANCEL: Target =
    target("cancel", || seeds(include_str!("../../corpus/cancel.txt")), |bytes| again(bytes, Cancel::parse));
pub const NAME: Target =
    target("name", || seeds(include_str!("../../corpus/name.txt")), |bytes| again(bytes, snapshot_name));
pub const TRACE: Target = target("trace", traces, |bytes| match Trace::decode(bytes) {
    Err(error) => Ok(format!("{error:?}")),
    Ok(trace) if Trace::decode(&trace.encode()).as_ref() == Ok(&trace) => Ok(format!("{} rounds", trace.rounds.len())),
    Ok(_) => Err("a trace that is read otherwise than it was written".to_owned()),
});

fn snapshot_name(bytes: &[u8]) -> Result<SnapshotName, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    text.parse().map_err(|error| format!("{error:?}"))
}

/// The pieces of a corpus, between lines of `---`.
fn seeds(corpus: &str) -> Vec<Vec<u8>> {
    corpus.split("---\n").map(|seed| seed.as_bytes().to_vec()).collect()
}

/// Reads, writes, and reads again.
fn again<T, E>(bytes: &[u8], parse: impl Fn(&[u8]) -> Result<T, E>) -> Answer
where
    T: Display + PartialEq + Debug,
    E: Debug,
{
    match parse(bytes) {
        Err(error) => Ok(format!("{error:?}")),
        Ok(value) => match parse(value.to_string().as_bytes()) {
            Ok(same) if same == value => Ok("accepted".to_owned()),
            other => Err(format!("{value:?} is read again as {other:?}")),
        },
    }
}

/// Without rounds; and with the beginnings of some.
fn traces() -> Vec<Vec<u8>> {
    let empty = Trace { began_ns: 5, lost: 0, rounds: Vec::new() }.encode();
    let longer = |bytes| [&empty[..], &vec![1; bytes]].concat();
    vec![empty.clone(), longer(96), longer(120), longer(240)]
}
