//! The parser and the report, against a policy that is small enough to check by eye: testdata/tiny.conf.

use super::binary::Policy;
use super::effective::report;
use super::verb::differences;

const TINY: &[u8] = include_bytes!("testdata/tiny.policy");

#[test]
fn rules_of_the_type_and_of_its_attributes_are_listed() {
    let report = report(&Policy::parse(TINY).unwrap()).unwrap();
    let body = report.split_once("## ").unwrap().1;
    let expected = "\
livesave_t may do
domain { getdomaininfo }: <target_type>
domain { getdomaininfo }: three_t if !(wide && !tall)
domain { pause }: three_t if (wide && !tall)
event { send }: <domain_type>

## livesave_t_channel may do

## may be done to livesave_t
domain { create pause }: dom0_t
event { send }: <domain_type>

## may be done to livesave_t_self

## may be done to livesave_t_channel

## dom0_t may do but while a take runs
";
    assert_eq!(body, expected);
}

#[test]
fn booleans_and_their_values_at_load_are_read() {
    let policy = Policy::parse(TINY).unwrap();
    let booleans: Vec<_> = policy.booleans.iter().map(|(name, on)| (name.as_str(), *on)).collect();
    assert_eq!(booleans, [("tall", true), ("wide", false)]);
}

#[test]
fn a_policy_cut_short_anywhere_is_an_error() {
    for len in 0..TINY.len() {
        assert!(Policy::parse(&TINY[..len]).is_err(), "{len} bytes of {} were accepted", TINY.len());
    }
}

#[test]
fn a_wrong_magic_target_or_version_is_an_error() {
    for at in [0, 8, 16] {
        let mut bytes = TINY.to_vec();
        bytes[at] ^= 1;
        assert!(Policy::parse(&bytes).is_err(), "byte {at}");
    }
}

#[test]
fn a_policy_that_allows_what_it_does_not_know_is_an_error() {
    let mut bytes = TINY.to_vec();
    bytes[20] |= 4;
    assert!(Policy::parse(&bytes).unwrap_err().root_cause().to_string().contains("does not know"));
}

#[test]
fn a_line_that_appears_vanishes_or_moves_is_a_difference() {
    let golden = "# head\n## a\nx: y\n\n## b\nz: y\n";
    assert!(differences(golden, golden).is_empty());
    assert_eq!(differences(golden, "## a\nx: y\n## b\n"), ["- b: z: y"]);
    assert_eq!(differences(golden, "## a\nx: y\nz: y\n## b\n"), ["- b: z: y", "+ a: z: y"]);
}
