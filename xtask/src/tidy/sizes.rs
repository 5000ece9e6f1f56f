//! Lengths of files and functions, with a ratchet: what is too long today is listed with its length and may only
//! shrink.

use std::collections::BTreeMap;

use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use super::finding::Finding;
use super::tree::Tree;

const RATCHET: &str = "xtask/tidy-ratchet.txt";
/// No file is longer, listed or not.
const FILE_LINES_CAP: usize = 600;
/// A longer file has to be on the list.
const FILE_LINES: usize = 400;
/// A longer function has to be on the list.
const FN_LINES: usize = 70;

/// Applies the rules.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut listed = ratchet(tree.text(RATCHET).unwrap_or_default(), &mut findings);
    for (path, text) in tree.ending(".rs") {
        let lines = text.lines().count();
        if lines > FILE_LINES_CAP {
            let message = format!("{lines} lines, {FILE_LINES_CAP} are the limit: split by noun");
            findings.push(Finding::new(path, FILE_LINES_CAP + 1, "file-length", message));
        }
        let entry = listed.remove(path);
        findings.extend(compare(path, 1, "file-length", path, lines, FILE_LINES, entry));
        for function in functions(text) {
            let key = format!("{path}::{}", function.name);
            let entry = listed.remove(key.as_str());
            findings.extend(compare(path, function.line, "fn-length", &key, function.lines, FN_LINES, entry));
        }
    }
    let gone = |(key, (_, line)): (&str, (usize, usize))| {
        Finding::new(RATCHET, line, "ratchet", format!("{key} does not exist: take it off the list"))
    };
    findings.extend(listed.into_iter().map(gone));
    findings
}

/// The list: `key lines`, to (lines, line number of the entry).
fn ratchet<'a>(text: &'a str, findings: &mut Vec<Finding>) -> BTreeMap<&'a str, (usize, usize)> {
    let mut listed = BTreeMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let parsed = line.split_once(' ').and_then(|(key, lines)| Some((key, lines.trim().parse().ok()?)));
        match parsed {
            Some((key, lines)) => {
                listed.insert(key, (lines, number + 1));
            }
            None => findings.push(Finding::new(RATCHET, number + 1, "ratchet", "an entry is a name and a length")),
        }
    }
    listed
}

/// What is to be said about a thing of `lines` lines where `limit` needs no entry.
fn compare(
    path: &str,
    line: usize,
    rule: &'static str,
    key: &str,
    lines: usize,
    limit: usize,
    entry: Option<(usize, usize)>,
) -> Option<Finding> {
    match entry {
        None if lines > limit => Some(Finding::new(path, line, rule, format!("{lines} lines, {limit} are the limit"))),
        None => None,
        Some((allowed, _)) if lines > allowed => {
            Some(Finding::new(path, line, rule, format!("grew to {lines} lines, {RATCHET} has {allowed}")))
        }
        Some((_, at)) if lines <= limit => {
            Some(Finding::new(RATCHET, at, "ratchet", format!("{key} is short now: take it off the list")))
        }
        Some((allowed, at)) if lines < allowed => {
            Some(Finding::new(RATCHET, at, "ratchet", format!("{key} has {lines} lines now: write that")))
        }
        Some(_) => None,
    }
}

struct Function {
    name: String,
    line: usize,
    lines: usize,
}

/// Every function with a body, by its name alone: two of one name in a file share an entry's key, and the first takes
/// it.
fn functions(text: &str) -> Vec<Function> {
    let mut found = Functions(Vec::new());
    if let Ok(file) = syn::parse_file(text) {
        found.visit_file(&file);
    }
    found.0
}

struct Functions(Vec<Function>);

impl Functions {
    fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let (line, end) = (signature.span().start().line, block.span().end().line);
        self.0.push(Function { name: signature.ident.to_string(), line, lines: end + 1 - line });
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast syn::TraitItemFn) {
        if let Some(block) = &function.default {
            self.add(&function.sig, block);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::rules;
    use super::*;

    fn source(lines: usize) -> String {
        "//! A.\n".repeat(lines)
    }

    fn function(lines: usize) -> String {
        format!(
            "//! A.\nimpl X {{\n    /// Doc does not count.\n    fn long() {{\n{}    }}\n}}\n",
            "f();\n".repeat(lines - 2)
        )
    }

    #[test]
    fn files_over_the_limit_need_an_entry_and_none_passes_the_cap() {
        let check = |lines, list| rules(&check(&Tree::of(&[("a.rs", &source(lines)), (RATCHET, list)])));
        assert_eq!(check(400, ""), []);
        assert_eq!(check(401, ""), [("file-length", 1)]);
        assert_eq!(check(401, "a.rs 401\n"), []);
        assert_eq!(check(600, "a.rs 600\n"), []);
        assert_eq!(check(601, "a.rs 601\n"), [("file-length", 601)]);
    }

    #[test]
    fn functions_over_the_limit_need_an_entry() {
        let check = |lines, list| rules(&check(&Tree::of(&[("a.rs", &function(lines)), (RATCHET, list)])));
        assert_eq!(check(70, ""), []);
        assert_eq!(check(71, ""), [("fn-length", 4)]);
        assert_eq!(check(71, "a.rs::long 71\n"), []);
        assert_eq!(check(72, "a.rs::long 71\n"), [("fn-length", 4)]);
    }

    #[test]
    fn the_list_may_only_shrink() {
        let check = |list| rules(&check(&Tree::of(&[("a.rs", &function(80)), (RATCHET, list)])));
        assert_eq!(check("# list\na.rs::long 90\n"), [("ratchet", 2)]);
        assert_eq!(check("a.rs::long 80\na.rs::gone 80\n"), [("ratchet", 2)]);
        assert_eq!(check("a.rs::long 80\na.rs 300\n"), [("ratchet", 2)]);
        assert_eq!(check("a.rs::long 80\nnonsense\n"), [("ratchet", 2)]);
    }
}
