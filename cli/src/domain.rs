//! Which domain is meant: by id or by name, as `xl` reads it, against what xenstore says now.
//!
//! A name is looked up in `/local/domain/<N>/name`. A domain that is going away is renamed or lingers under its old
//! name, so a name can fit twice; that is an error, never a guess.

use crate::exit::{Exit, Outcome};
use crate::host::tree::Tree;
use xen_hypercall::types::DomId;

/// A domain found by the operator's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its id.
    pub domid: DomId,
    /// Its name in xenstore.
    pub name: String,
}

/// Most bytes of a domain's name that are believed.
const NAME_MAX: usize = 256;

/// Every domain that xenstore names, dom0 included.
pub fn all(tree: &mut impl Tree) -> Outcome<Vec<Found>> {
    let mut found = Vec::new();
    for id in tree.list("/local/domain")? {
        let Ok(number) = id.parse::<u16>() else { continue };
        let name = tree.get(&format!("/local/domain/{id}/name"))?.unwrap_or_default();
        found.push(Found { domid: DomId::new(number), name });
    }
    Ok(found)
}

/// The domain that `word` names: a number is an id, anything else a name.
pub fn resolve(tree: &mut impl Tree, word: &str) -> Outcome<Found> {
    if word.is_empty() || word.len() > NAME_MAX || word.chars().any(char::is_control) {
        return Err(Exit::Usage.fail("a domain is named by its id or its name, and this is neither"));
    }
    let domains = all(tree)?;
    let fits = |found: &Found| match word.parse::<u16>() {
        Ok(number) => found.domid.raw() == number,
        Err(_) => found.name == word,
    };
    let mut fitting: Vec<Found> = domains.into_iter().filter(fits).collect();
    match (fitting.pop(), fitting.is_empty()) {
        (Some(found), true) => Ok(found),
        (None, _) => Err(Exit::NoDomain.fail(format_args!("no domain '{word}'")).hint("`xl list` shows the domains")),
        (Some(last), false) => {
            let mut ids: Vec<String> = fitting.iter().map(|found| found.domid.to_string()).collect();
            ids.push(last.domid.to_string());
            let what = format!("'{word}' is the name of {} domains: {}", ids.len(), ids.join(", "));
            Err(Exit::AmbiguousDomain.fail(what).hint("use the id"))
        }
    }
}

/// As [`resolve`], but never dom0.
pub fn resolve_guest(tree: &mut impl Tree, word: &str) -> Outcome<Found> {
    let found = resolve(tree, word)?;
    if found.domid == DomId::DOM0 {
        return Err(Exit::Usage.fail("dom0 cannot be taken").hint("name a guest"));
    }
    Ok(found)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::collections::BTreeMap;

    pub fn tree(nodes: &[(&str, &str)]) -> BTreeMap<String, String> {
        nodes.iter().map(|(path, value)| ((*path).to_owned(), (*value).to_owned())).collect()
    }

    fn host() -> BTreeMap<String, String> {
        tree(&[
            ("/local/domain/0/name", "Domain-0"),
            ("/local/domain/3/name", "web01"),
            ("/local/domain/4/name", "db"),
            ("/local/domain/7/name", "db"),
            ("/local/domain/8/data/x", "no name yet"),
            ("/local/domain/9/name", "3"),
        ])
    }

    #[test]
    fn a_name_and_an_id_find_the_domain() {
        assert_eq!(resolve(&mut host(), "web01").unwrap().domid, DomId::new(3));
        assert_eq!(resolve(&mut host(), "4").unwrap().name, "db");
        assert_eq!(resolve(&mut host(), "8").unwrap().name, "");
    }

    #[test]
    fn a_number_is_an_id_even_if_a_domain_is_called_so() {
        assert_eq!(resolve(&mut host(), "3").unwrap().name, "web01");
    }

    #[test]
    fn a_name_of_two_domains_is_ambiguous_and_names_both() {
        let failure = resolve(&mut host(), "db").unwrap_err();
        assert_eq!(failure.exit, Exit::AmbiguousDomain);
        assert!(failure.what.contains("4, 7"), "{}", failure.what);
    }

    #[test]
    fn nobody_is_not_guessed() {
        for word in ["web", "web011", "99", "65536", "-1"] {
            assert_eq!(resolve(&mut host(), word).unwrap_err().exit, Exit::NoDomain, "{word}");
        }
        for word in ["", "a\nb"] {
            assert_eq!(resolve(&mut host(), word).unwrap_err().exit, Exit::Usage, "{word:?}");
        }
    }

    #[test]
    fn dom0_is_no_guest() {
        assert_eq!(resolve_guest(&mut host(), "Domain-0").unwrap_err().exit, Exit::Usage);
    }
}
