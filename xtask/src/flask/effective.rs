//! Every effective permission of a type: the rules that name it and those that it inherits by its attributes.
//!
//! The text is stable: sorted, one line for each class and set of permissions, and a set of targets that equals an
//! attribute's members is written as that attribute, so that a further guest type does not change it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::binary::{Policy, Rule, Value};

/// Whose outgoing permissions are listed: the stub's label, and the label of its ends of event channels.
const SUBJECTS: [&str; 2] = ["livesave_t", "livesave_t_channel"];
/// While this boolean is on, a take runs, and dom0 lacks what is given under its negation.
const TAKING: &str = "!livesave_taking";
/// From whom it is withheld.
const DOM0: &str = "dom0_t";
/// On whom incoming permissions are listed.
const OBJECTS: [&str; 3] = ["livesave_t", "livesave_t_self", "livesave_t_channel"];

/// (condition, object class, permission) and the others that it concerns.
type Listing = BTreeMap<(Option<String>, Value, u32), BTreeSet<Value>>;

/// The whole report on the stub's types.
pub fn report(policy: &Policy) -> Result<String> {
    let mut text = String::from(
        "# Every effective permission of the stub domain, read back from the compiled policy by `cargo xtask flask`.\n\
         # <name> stands for all types with that attribute.\n",
    );
    for name in SUBJECTS {
        section(policy, &mut text, name, &format!("{name} may do"), |rule| (rule.source, rule.target))?;
    }
    for name in OBJECTS {
        section(policy, &mut text, name, &format!("may be done to {name}"), |rule| (rule.target, rule.source))?;
    }
    withheld(policy, &mut text)?;
    Ok(text)
}

/// What dom0 lacks while a take runs: every rule that gives it such a permission on such a target. A rule that gives it
/// always stands here too, without the condition, so that it is noticed that nothing is withheld any more.
fn withheld(policy: &Policy, text: &mut String) -> Result<()> {
    let dom0 = value_of(policy, DOM0)?;
    let of_dom0 = |rule: &&Rule| policy.membership.get(&dom0).is_some_and(|all| all.contains(&rule.source));
    let each = |rule: &Rule| {
        let bits = (0..u32::BITS).filter(|bit| rule.permissions >> bit & 1 == 1);
        let (class, targets) = (rule.class, members(policy, rule.target).collect::<Vec<_>>());
        bits.flat_map(|bit| targets.iter().map(move |target| (class, bit, *target)).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    let taken: BTreeSet<_> = policy
        .rules
        .iter()
        .filter(of_dom0)
        .filter(|rule| rule.condition.as_deref() == Some(TAKING))
        .flat_map(each)
        .collect();
    let mut listing = Listing::new();
    for rule in policy.rules.iter().filter(of_dom0) {
        for (class, bit, target) in each(rule).into_iter().filter(|found| taken.contains(found)) {
            listing.entry((rule.condition.clone(), class, bit)).or_default().insert(target);
        }
    }
    writeln!(text, "\n## {DOM0} may do but while a take runs")?;
    for line in lines(policy, &listing)? {
        writeln!(text, "{line}")?;
    }
    Ok(())
}

/// One section: the rules in which `name` stands at the near end, by what stands at the far end.
fn section(
    policy: &Policy,
    text: &mut String,
    name: &str,
    title: &str,
    ends: impl Fn(&Rule) -> (Value, Value),
) -> Result<()> {
    let near = value_of(policy, name)?;
    let mut listing = Listing::new();
    for rule in &policy.rules {
        let (mine, other) = ends(rule);
        if !policy.membership.get(&near).is_some_and(|attributes| attributes.contains(&mine)) {
            continue;
        }
        for bit in (0..u32::BITS).filter(|bit| rule.permissions >> bit & 1 == 1) {
            let key = (rule.condition.clone(), rule.class, bit);
            listing.entry(key).or_default().extend(members(policy, other));
        }
    }
    writeln!(text, "\n## {title}")?;
    for line in lines(policy, &listing)? {
        writeln!(text, "{line}")?;
    }
    Ok(())
}

/// Permissions of one class with the same far ends share a line.
fn lines(policy: &Policy, listing: &Listing) -> Result<BTreeSet<String>> {
    let mut grouped: BTreeMap<_, BTreeSet<&str>> = BTreeMap::new();
    for ((condition, class, bit), others) in listing {
        let class = policy.classes.get(class).context("a rule for an unknown class")?;
        let permission = class.permissions.get(bit).context("a rule for an unknown permission")?;
        for part in apart(policy, others) {
            grouped.entry((condition, &class.name, part)).or_default().insert(permission);
        }
    }
    let line = |((condition, class, others), permissions): (&(&Option<String>, &String, BTreeSet<Value>), _)| {
        let permissions: &BTreeSet<&str> = permissions;
        let joined = permissions.iter().copied().collect::<Vec<_>>().join(" ");
        let when = condition.as_ref().map(|name| format!(" if {name}")).unwrap_or_default();
        format!("{class} {{ {joined} }}: {}{when}", names(policy, others))
    };
    Ok(grouped.iter().map(line).collect())
}

/// The stub's own types, which have lines of their own, and the rest. An attribute's members stay together.
fn apart(policy: &Policy, others: &BTreeSet<Value>) -> Vec<BTreeSet<Value>> {
    if names(policy, others).starts_with('<') {
        return vec![others.clone()];
    }
    let ours = |value: &Value| policy.types.get(value).is_some_and(|kind| OBJECTS.contains(&kind.name.as_str()));
    let (own, rest): (BTreeSet<_>, BTreeSet<_>) = others.iter().copied().partition(ours);
    [own, rest].into_iter().filter(|part| !part.is_empty()).collect()
}

/// The types that a rule's end stands for.
fn members(policy: &Policy, end: Value) -> impl Iterator<Item = Value> {
    let concrete = move |(value, attributes): (&Value, &BTreeSet<Value>)| {
        let is_type = policy.types.get(value).is_some_and(|kind| !kind.attribute);
        (is_type && attributes.contains(&end)).then_some(*value)
    };
    policy.membership.iter().filter_map(concrete)
}

/// A set of types, or the attribute that has exactly these members and more than one.
fn names(policy: &Policy, set: &BTreeSet<Value>) -> String {
    let is_set = |value: Value| members(policy, value).collect::<BTreeSet<_>>() == *set;
    let attributes = policy.types.iter().filter(|(_, kind)| kind.attribute);
    if let Some((_, kind)) = attributes.filter(|(value, _)| is_set(**value)).min_by_key(|(_, kind)| &kind.name) {
        return format!("<{}>", kind.name);
    }
    let mut names: Vec<_> =
        set.iter().filter_map(|value| policy.types.get(value)).map(|kind| kind.name.as_str()).collect();
    names.sort_unstable();
    names.join(" ")
}

fn value_of(policy: &Policy, name: &str) -> Result<Value> {
    let found = policy.types.iter().find(|(_, kind)| kind.name == name && !kind.attribute);
    found.map(|(value, _)| *value).with_context(|| format!("the policy has no type {name}: is the module in it?"))
}
