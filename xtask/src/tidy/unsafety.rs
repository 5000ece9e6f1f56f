//! `unsafe` only in the files of xtask/unsafe-files.txt, each with its reason; no entry without need; and the crates
//! that forbid it altogether do say so.

use std::collections::BTreeMap;

use proc_macro2::{TokenStream, TokenTree};

use super::finding::Finding;
use super::tree::Tree;

const LIST: &str = "xtask/unsafe-files.txt";
/// Crate roots that carry `#![forbid(unsafe_code)]`.
const FORBIDDING: [&str; 2] = ["snapshot/src/lib.rs", "cli/src/main.rs"];

/// Applies the rules.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let list = tree.text(LIST).unwrap_or_default();
    let mut unused = entries(list, &mut findings);
    for (path, text) in tree.ending(".rs") {
        let Some(line) = text.parse().ok().and_then(first) else { continue };
        if unused.remove(path).is_none() && !listed(list, path) {
            findings.push(Finding::new(
                path,
                line,
                "unsafe",
                format!("unsafe code in a file that {LIST} does not name"),
            ));
        }
    }
    for (path, line) in unused {
        findings.push(Finding::new(LIST, line, "unsafe", format!("{path} has no unsafe code: take it off the list")));
    }
    let silent = FORBIDDING.iter().filter(|path| tree.text(path).is_some_and(|text| !forbids(text)));
    findings.extend(silent.map(|path| Finding::new(path, 1, "unsafe", "#![forbid(unsafe_code)] is missing")));
    findings
}

/// Path and line of each entry: `path reason...`.
fn entries<'a>(list: &'a str, findings: &mut Vec<Finding>) -> BTreeMap<&'a str, usize> {
    let mut entries = BTreeMap::new();
    for (number, line) in list.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        match line.split_once(' ') {
            Some((path, reason)) if !reason.trim().is_empty() => {
                entries.insert(path, number + 1);
            }
            _ => findings.push(Finding::new(LIST, number + 1, "unsafe", "an entry is a path and a reason")),
        }
    }
    entries
}

fn listed(list: &str, path: &str) -> bool {
    list.lines().any(|line| line.split(' ').next() == Some(path))
}

fn forbids(text: &str) -> bool {
    text.lines().any(|line| line.trim() == "#![forbid(unsafe_code)]")
}

/// The line of the first `unsafe` that is code, in macros too. `#[unsafe(no_mangle)]` counts: it is a promise as well.
fn first(tokens: TokenStream) -> Option<usize> {
    tokens.into_iter().find_map(|token| match token {
        TokenTree::Ident(ident) if ident == "unsafe" => Some(ident.span().start().line),
        TokenTree::Group(group) => first(group.stream()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::rules;
    use super::*;

    const UNSAFE: &str = "//! unsafe in prose.\nfn f() {\n    \"unsafe\";\n    m!(unsafe { g() });\n}\n";

    #[test]
    fn unsafe_in_an_unlisted_file_is_found_where_it_stands() {
        let tree = Tree::of(&[("a/src/x.rs", UNSAFE), ("a/src/y.rs", "//! Says unsafe only here.\n")]);
        assert_eq!(rules(&check(&tree)), [("unsafe", 4)]);
        let tree = Tree::of(&[("a/src/x.rs", UNSAFE), (LIST, "# why\na/src/x.rs calls Xen\n")]);
        assert!(check(&tree).is_empty());
    }

    #[test]
    fn an_entry_needs_a_reason_and_a_need() {
        let tree = Tree::of(&[("a/src/x.rs", "//! Safe.\n"), (LIST, "a/src/x.rs calls Xen\n")]);
        assert_eq!(rules(&check(&tree)), [("unsafe", 1)]);
        let tree = Tree::of(&[("a/src/x.rs", UNSAFE), (LIST, "a/src/x.rs\n")]);
        assert_eq!(rules(&check(&tree)), [("unsafe", 1)]);
    }

    #[test]
    fn the_crates_without_unsafe_say_so() {
        let tree =
            Tree::of(&[("snapshot/src/lib.rs", "//! A.\n"), ("cli/src/main.rs", "#![forbid(unsafe_code)]\n//! A.\n")]);
        assert_eq!(rules(&check(&tree)), [("unsafe", 1)]);
    }
}
