//! Requests as no `livesave` would write them: refused with a reason that names the key, never ignored, never believed.

use anyhow::Result;

use super::super::ward::Ward;
use crate::lab::Lab;
use crate::say;
use crate::verdict::check;

/// A well-formed request. It names a guest that does not exist and a port that nobody allocated.
const WELL_FORMED: &[(&str, &str)] = &[
    ("protocol", "1"),
    ("token", "00112233445566778899aabbccddeeff"),
    ("op", "take"),
    ("domid", "9999"),
    ("handle", "4dcbc4f8-22d5-4e1b-9a5e-2a1d0b2c3d4e"),
    ("guest", "nobody"),
    ("name", "never"),
    ("mode", "live"),
    ("created", "1795359600"),
    ("release-port", "1000"),
    ("max-pause-ms", "0"),
    ("round1-skip", "0"),
    ("h-milli", "5100"),
    ("target-pause-ms", "300"),
    ("staging-kib", "0"),
    ("on-busy", "accept"),
    ("config-chunks", "0"),
];

/// One request: a key, its text instead (`None`: left out), the error's word and a part of its reason.
type Bad = (&'static str, Option<&'static str>, &'static str, &'static str);

const BAD: &[Bad] = &[
    ("token", None, "bad-request", "token"),
    ("domid", None, "bad-request", "domid"),
    ("handle", None, "bad-request", "handle"),
    ("config-chunks", None, "bad-request", "config-chunks"),
    ("protocol", Some("2"), "wrong-version", "protocol"),
    ("op", Some("destroy"), "bad-request", "op"),
    ("domid", Some("0"), "bad-request", "domid"),
    ("domid", Some("-1"), "bad-request", "domid"),
    ("name", Some("a/../b"), "bad-request", "name"),
    ("name", Some("caf\\xff"), "bad-request", "UTF-8"),
    ("name", Some("a\\x01b"), "bad-request", "control character"),
    ("mode", Some("fast"), "bad-request", "mode"),
    ("max-pause-ms", Some("99999999999999999999"), "bad-request", "max-pause-ms"),
    ("max-pause-ms", Some("299"), "bad-request", "target-pause-ms"),
    ("target-pause-ms", Some("0"), "bad-request", "target-pause-ms"),
    ("on-busy", Some("hope"), "bad-request", "on-busy"),
    ("created", Some("1\\nsurprise=1"), "bad-request", "surprise"),
    ("created", Some("1\\ndomid=1"), "bad-request", "domid"),
    ("created", Some("1\\nnothing"), "bad-request", "key=value"),
    // All is well but what it points at.
    ("domid", Some("9999"), "release-port", ""),
];

/// Each of them, and one that is longer than a node may be.
pub fn run(ward: &mut Ward) -> Result<()> {
    for (key, instead, word, says) in BAD {
        let what = format!("a request with {key}={}", instead.unwrap_or("(missing)"));
        one(ward, &what, &text_with(key, *instead), (word, says))?;
    }
    let long = text_with("guest", Some(&"x".repeat(2000)));
    one(ward, "a request that is too long", &long, ("bad-request", "longer than"))?;
    one(ward, "a request that is no text", "\\xff\\xfe", ("bad-request", "UTF-8"))
}

fn one(ward: &mut Ward, what: &str, text: &str, (word, says): (&str, &str)) -> Result<()> {
    let answer = answered(ward.lab, text, word, says);
    ward.note(what, answer)?;
    ward.unharmed(what)
}

fn text_with(key: &str, instead: Option<&str>) -> String {
    let lines = WELL_FORMED.iter().filter_map(|(name, value)| match instead {
        _ if *name != key => Some(format!("{name}={value}")),
        Some(other) => Some(format!("{name}={other}")),
        None => None,
    });
    // xenstore-write turns these two characters into a newline.
    lines.collect::<Vec<_>>().join("\\n")
}

fn answered(lab: &Lab, text: &str, word: &str, says: &str) -> Result<()> {
    let answer = lab.sh(&format!(
        "S=/local/domain/$(xl domid livesave)/data/livesave; xenstore-rm $S/status 2>/dev/null; \
         xenstore-write $S/request '{text}'; i=0; \
         until xenstore-read $S/status 2>/dev/null; do i=$((i+1)); [ $i -lt 600 ] || exit 99; sleep 0.05; done; \
         xenstore-exists $S/request && echo 'the request is still there' || true"
    ))?;
    let lines: Vec<&str> = answer.split("\\n").collect();
    let reason = lines.iter().find_map(|line| line.strip_prefix("reason=")).unwrap_or_default();
    let refused = lines.contains(&"state=refused") && lines.contains(&format!("error={word}").as_str());
    say!("   {word:<14} {reason}");
    check(refused && reason.contains(says) && !answer.contains("still there"), || {
        format!("want refused, {word}, `{says}`; got {answer}")
    })
}
