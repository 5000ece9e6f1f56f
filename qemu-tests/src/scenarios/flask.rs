//! The policy under the hypervisor that enforces it: a test kernel with the stub's label tries every call on a target,
//! on a guest that is none, on dom0 and on the host. What is allowed works, and everything else is refused.
//!
//! Which permissions exist at all is compared elsewhere, in the compiled policy (`cargo xtask flask`).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::{GuestSpec, Lab};
use crate::verdict::check;

/// The test kernel, where `lab install` puts it.
const KERNEL: &str = "/boot/prober";
const STUB_LABEL: &str = "system_u:system_r:livesave_t";
const TARGET_LABEL: &str = "system_u:system_r:livesave_guest_t";
/// A few hundred calls, and as many lines on a console that is slow under emulation.
const PROBE_WAIT: Duration = Duration::from_secs(300);

const EACCES: i32 = 13;
const EINVAL: i32 = 22;
const EOPNOTSUPP: i32 = 95;
/// GNTST_permission_denied of grant_table.h, negated.
const GRANT_DENIED: i32 = 8;
/// Probes that a target has to allow. A PVH guest has no address size: that one is allowed and then fails.
const READS: [&str; 13] = [
    "getdomaininfo",
    "getvcpucontext",
    "gettsc",
    "get_cpu_policy",
    "pageinfo",
    "stat",
    "gethvmc",
    "getparam",
    "map_read",
    "logdirty_enable",
    "logdirty_clean",
    "logdirty_peek",
    "logdirty_off",
];
/// Probes that nothing allows; the last ones concern the host.
const NEVER: [&str; 20] = [
    "getvcpuinfo",
    "map_write",
    "shadow_enable",
    "shadow_get_allocation",
    "setvcpucontext",
    "sethvmc",
    "settsc",
    "setparam",
    "subscribe",
    "setdomainmaxmem",
    "alloc_unbound_in",
    "resume",
    "unpause",
    "pause",
    "shutdown",
    "destroy",
    "physinfo",
    "readconsole",
    "debug_keys",
    "setenforce",
];
/// Of these Xen says first that dom0, a PV domain, has none.
const NOT_OF_PV: [&str; 2] = ["getparam", "setparam"];
/// Domctls (domctl.h) that the stub may make on a target: getdomaininfo, shadow_op, getvcpucontext, gethvmcontext,
/// get_address_size, get_ext_vcpucontext, gethvmcontext_partial, gettscinfo, getpageframeinfo3,
/// getvcpuextstate, get_vcpu_msrs, get_cpu_policy.
const ALLOWED: [u32; 12] = [5, 10, 13, 33, 36, 43, 55, 59, 61, 63, 72, 82];
/// Domctls whose first check is the policy (flask_domctl in xen/xsm/flask/hooks.c). For the rest Xen looks at the
/// arguments first, or does not know the number: they fail, but not always with the policy's error.
const CHECKED_FIRST: [u32; 51] = [
    2, 3, 4, 5, 9, 10, 11, 12, 13, 14, 15, 17, 18, 22, 24, 25, 27, 28, 29, 33, 34, 35, 36, 42, 43, 54, 55, 57, 59, 60,
    61, 62, 63, 64, 65, 66, 68, 69, 71, 72, 73, 74, 75, 77, 78, 79, 82, 83, 84, 85, 86,
];
/// The highest number that the prober tries.
const DOMCTL_MAX: u32 = 86;
/// What the audit log has to show, each against the target.
const AUDITED: [&str; 9] =
    ["map_write", "setvcpucontext", "setparam", "set_misc_info", "pause", "unpause", "resume", "shutdown", "destroy"];

/// Xen's answers by the probe's name.
type Answers = BTreeMap<String, i32>;

/// What a domain is to the stub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Target,
    Stranger,
    Dom0,
}

/// Runs the test kernel twice: as the host boots, and with the boolean on that makes guests without a label targets.
pub fn run(lab: &Lab) -> Result<()> {
    let mut target = GuestSpec::new("flasktarget");
    target.label = Some(TARGET_LABEL.to_owned());
    let target = lab.create_guest(&target)?;
    // It never runs: that it is still paused at the end shows that nobody else let it go.
    lab.put_bytes(GuestSpec::new("flaskother").config().as_bytes(), "/run/flaskother.cfg")?;
    lab.sh("xl create -q -p /run/flaskother.cfg")?;
    let (target_id, other_id) = (target.domid(lab)?, lab.sh("xl domid flaskother")?.parse()?);

    probe(lab, &[(target_id, Who::Target), (other_id, Who::Stranger), (0, Who::Dom0)])?;
    audited(&lab.serial())?;
    set_boolean(lab, true)?;
    let wide = probe(lab, &[(other_id, Who::Target), (0, Who::Dom0)]);
    set_boolean(lab, false)?;
    wide.context("with livesave_domU on")?;

    let state = lab.sh("xl list flaskother | awk 'NR == 2 { print $5 }'")?;
    check(state.contains('p'), || format!("the paused guest is {state} after the probes"))?;
    let counter = target.wait_whole_pass(lab)?;
    check(counter.errors == 0, || format!("the target after the probes: {counter:?}"))?;
    lab.sh("xl destroy flaskother; xl destroy flasktarget")?;
    Ok(())
}

fn set_boolean(lab: &Lab, on: bool) -> Result<()> {
    lab.sh(&format!("PATH=$PATH:/usr/lib/xen-4.17/bin flask-set-bool livesave_domU {}", u8::from(on))).map(|_| ())
}

/// Every refusal leaves a line in Xen's log.
fn audited(log: &str) -> Result<()> {
    for permission in AUDITED {
        let denied = format!("denied  {{ {permission} }}");
        let seen = log.lines().any(|line| line.contains(&denied) && line.contains(TARGET_LABEL));
        check(seen, || format!("no line in Xen's log says that {permission} was denied"))?;
    }
    Ok(())
}

/// Boots the test kernel and judges what it reports.
fn probe(lab: &Lab, domains: &[(u32, Who)]) -> Result<()> {
    let words: Vec<String> = domains.iter().map(|(domain, _)| format!("target={domain}")).collect();
    let config = format!(
        "name = \"prober\"\ntype = \"pv\"\nmemory = 32\nvcpus = 1\nkernel = \"{KERNEL}\"\n\
         seclabel = \"{STUB_LABEL}\"\ncmdline = \"{}\"\non_poweroff = \"preserve\"\non_crash = \"preserve\"\n",
        words.join(" ")
    );
    lab.put_bytes(config.as_bytes(), "/run/prober.cfg")?;
    lab.sh("rm -f /var/log/xen/console/guest-prober.log; xl create -q /run/prober.cfg")?;
    let base = format!("/local/domain/{}/data/livesave/probe", lab.sh("xl domid prober")?);
    lab.wait_until("the probe ends", PROBE_WAIT, |lab| {
        Ok(lab.run(&format!("xenstore-read {base}/done 2>/dev/null"))?.status == 0)
    })?;
    let mut problems = Vec::new();
    for (domain, who) in domains {
        // xenstore-read shows a newline as two characters.
        let answers = parse(&lab.sh(&format!("xenstore-read {base}/{domain}"))?.replace("\\n", "\n"))?;
        problems.extend(judge(&answers, *who));
    }
    lab.sh("xl destroy prober")?;
    check(problems.is_empty(), || problems.join("; "))
}

fn parse(text: &str) -> Result<Answers> {
    let line = |line: &str| {
        let (name, answer) = line.split_once(' ').with_context(|| format!("the prober said: {line}"))?;
        Ok((name.to_owned(), answer.trim().parse()?))
    };
    text.lines().filter(|line| !line.trim().is_empty()).map(line).collect()
}

/// Everything that is not as the policy has it.
fn judge(answers: &Answers, who: Who) -> Vec<String> {
    let mut problems = Vec::new();
    let mut expect = |name: &str, wanted: i32| match answers.get(name) {
        Some(answer) if *answer == wanted => {}
        answer => problems.push(format!("{name} on {who:?}: {answer:?}, not {wanted}")),
    };
    let allowed = |answer| if who == Who::Target { answer } else { EACCES };
    let reads = READS.iter().filter(|name| who != Who::Dom0 || !NOT_OF_PV.contains(name));
    reads.for_each(|name| expect(name, allowed(0)));
    if who == Who::Dom0 {
        NOT_OF_PV.iter().for_each(|name| expect(name, EINVAL));
    }
    expect("getaddrsize", allowed(EOPNOTSUPP));
    let never = NEVER.iter().filter(|name| who != Who::Dom0 || !NOT_OF_PV.contains(name));
    never.for_each(|name| expect(name, EACCES));
    expect("event_channel", if who == Who::Dom0 { 0 } else { EACCES });
    if who != Who::Dom0 {
        expect("grant_map", GRANT_DENIED);
    }
    problems.extend((1..=DOMCTL_MAX).filter_map(|number| swept(answers, who, number)));
    problems
}

/// What is wrong with the answer to one domctl of the sweep.
fn swept(answers: &Answers, who: Who, number: u32) -> Option<String> {
    let answer = answers.get(&format!("domctl-{number}")).copied();
    let fine = match answer {
        None => false,
        Some(answer) if who == Who::Target && ALLOWED.contains(&number) => answer != EACCES,
        Some(answer) if CHECKED_FIRST.contains(&number) => answer == EACCES,
        Some(answer) => answer > 0,
    };
    (!fine).then(|| format!("domctl {number} on {who:?}: {answer:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYBODY: [Who; 3] = [Who::Target, Who::Stranger, Who::Dom0];

    /// What the prober says under a right policy.
    fn right(who: Who) -> Answers {
        let is_target = who == Who::Target;
        let mut answers = Answers::new();
        let mut say = |name: &str, answer: i32| _ = answers.insert(name.to_owned(), answer);
        READS.iter().for_each(|name| say(name, if is_target { 0 } else { EACCES }));
        say("getaddrsize", if is_target { EOPNOTSUPP } else { EACCES });
        NEVER.iter().for_each(|name| say(name, EACCES));
        if who == Who::Dom0 {
            NOT_OF_PV.iter().for_each(|name| say(name, EINVAL));
        }
        say("event_channel", if who == Who::Dom0 { 0 } else { EACCES });
        say("grant_map", GRANT_DENIED);
        for number in 1..=DOMCTL_MAX {
            let answer = if is_target && ALLOWED.contains(&number) { 14 } else { EACCES };
            say(&format!("domctl-{number}"), answer);
        }
        answers
    }

    #[test]
    fn a_right_policy_passes() {
        for who in EVERYBODY {
            assert_eq!(judge(&right(who), who), Vec::<String>::new());
        }
        assert!(!judge(&right(Who::Target), Who::Stranger).is_empty());
        assert!(!judge(&right(Who::Stranger), Who::Target).is_empty());
    }

    #[test]
    fn every_answer_counts() {
        for who in EVERYBODY {
            let answers = right(who);
            for (name, answer) in answers.iter().filter(|(name, _)| who != Who::Dom0 || *name != "grant_map") {
                let number = name.strip_prefix("domctl-").and_then(|number| number.parse().ok());
                let may = number.is_some_and(|number| who == Who::Target && ALLOWED.contains(&number));
                let wrong = if *answer == 0 || may { EACCES } else { 0 };
                let mut changed = answers.clone();
                changed.insert(name.clone(), wrong);
                assert_eq!(judge(&changed, who).len(), 1, "{name} on {who:?}: {wrong}");
                changed.remove(name);
                assert_eq!(judge(&changed, who).len(), 1, "{name} on {who:?} is missing");
            }
        }
    }

    #[test]
    fn answers_are_read_as_the_prober_writes_them() {
        let answers = parse("pause 13\ndomctl-7 -1\n").unwrap();
        assert_eq!(answers, Answers::from([("pause".to_owned(), 13), ("domctl-7".to_owned(), -1)]));
        assert!(parse("pause\n").is_err());
    }

    #[test]
    fn a_refusal_that_is_not_audited_is_a_failure() {
        let line =
            |permission| format!("(XEN) avc:  denied  {{ {permission} }} for tcontext={TARGET_LABEL} tclass=x\n");
        let log: String = AUDITED.iter().map(line).collect();
        assert!(audited(&log).is_ok());
        assert!(audited(&log.replace("{ resume }", "{ other }")).is_err());
    }
}
