//! Rules for Rust sources: the opening paragraph, no logic in `lib.rs` and `mod.rs`, nothing left for later, tests that
//! run, and `snapshot` keeping to the types of the hypercall crate.

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned as _;

use super::finding::Finding;
use super::tree::Tree;

/// Macros that mean "not yet".
const LATER: [&str; 3] = ["todo", "unimplemented", "dbg"];
/// Attributes that let a test not run, or pass for any reason.
const EXCUSES: [&str; 2] = ["ignore", "should_panic"];

/// Applies the rules.
pub fn check(tree: &Tree) -> Vec<Finding> {
    tree.ending(".rs").flat_map(|(path, text)| file(path, text)).collect()
}

fn file(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(opening(path, text));
    let tokens = match text.parse::<TokenStream>() {
        Ok(tokens) => tokens,
        Err(error) => {
            findings.push(Finding::new(path, error.span().start().line, "parse", error.to_string()));
            return findings;
        }
    };
    sequences(path, tokens, &mut findings);
    findings.extend(logic(path, text));
    findings
}

/// The first line that is no inner attribute has to open the module's documentation.
fn opening(path: &str, text: &str) -> Option<Finding> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with("#!["));
    match lines.next() {
        Some((_, line)) if line.starts_with("//!") => None,
        first => {
            let line = first.map_or(1, |(number, _)| number + 1);
            Some(Finding::new(path, line, "opening", "the file does not start with a //! paragraph"))
        }
    }
}

/// `lib.rs` and `mod.rs` name modules and re-export; a function with a body belongs into a file with a name.
fn logic(path: &str, text: &str) -> Option<Finding> {
    if !path.ends_with("/lib.rs") && !path.ends_with("/mod.rs") {
        return None;
    }
    let parsed = syn::parse_file(text).ok()?;
    let first = parsed.items.iter().find(|item| matches!(item, syn::Item::Fn(_) | syn::Item::Impl(_)))?;
    let message = "logic in a file that only names modules: move it to a file of its own";
    Some(Finding::new(path, first.span().start().line, "logic", message))
}

/// Rules over neighbouring tokens, at every depth. Comments and strings are no tokens.
fn sequences(path: &str, tokens: TokenStream, findings: &mut Vec<Finding>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    for (at, token) in tokens.iter().enumerate() {
        let line = token.span().start().line;
        let next = |offset: usize| tokens.get(at + offset).map(ToString::to_string).unwrap_or_default();
        match token {
            TokenTree::Ident(ident) if LATER.iter().any(|later| ident == later) && next(1) == "!" => {
                findings.push(Finding::new(path, line, "later", format!("{ident}! is for a draft")));
            }
            TokenTree::Ident(ident)
                if ident == "xen_hypercall" && path.starts_with("snapshot/src/") && outside_types(&tokens, at) =>
            {
                let message = "snapshot may use xen_hypercall::types only: a port trait is missing";
                findings.push(Finding::new(path, line, "direction", message));
            }
            TokenTree::Group(group) => {
                if at > 0 && tokens[at - 1].to_string() == "#" {
                    let name = group.stream().into_iter().next().map(|name| name.to_string()).unwrap_or_default();
                    if EXCUSES.contains(&name.as_str()) {
                        let message = format!("#[{name}]: assert on the error, or on today's behaviour with a note");
                        findings.push(Finding::new(path, line, "excuse", message));
                    }
                }
                sequences(path, group.stream(), findings);
            }
            _ => {}
        }
    }
}

/// True of `xen_hypercall::x` unless x is `types`. The bare name, as in `extern crate`, is not a use.
fn outside_types(tokens: &[TokenTree], at: usize) -> bool {
    let text = |offset: usize| tokens.get(at + offset).map(ToString::to_string).unwrap_or_default();
    text(1) == ":" && text(2) == ":" && text(3) != "types"
}

#[cfg(test)]
mod tests {
    use super::super::finding::rules;
    use super::*;

    #[test]
    fn a_file_opens_with_its_paragraph() {
        assert!(file("a/src/x.rs", "#![no_std]\n\n//! What it owns.\nfn f() {}\n").is_empty());
        assert_eq!(rules(&file("a/src/x.rs", "// No doc.\nfn f() {}\n")), [("opening", 1)]);
        assert_eq!(rules(&file("a/src/x.rs", "#![no_std]\nuse a;\n//! Late.\n")), [("opening", 2)]);
        assert_eq!(rules(&file("a/src/x.rs", "")), [("opening", 1)]);
    }

    #[test]
    fn roots_hold_no_logic() {
        let text = "//! Names modules.\nmod a;\npub fn f() {}\nimpl X {}\n";
        assert_eq!(rules(&file("a/src/lib.rs", text)), [("logic", 3)]);
        assert_eq!(rules(&file("a/src/b/mod.rs", text)), [("logic", 3)]);
        assert_eq!(rules(&file("a/src/lib.rs", "//! A.\nmod a;\nimpl X {}\n")), [("logic", 3)]);
        assert!(file("a/src/b.rs", text).is_empty());
    }

    #[test]
    fn drafts_and_excuses_are_found_in_code_only() {
        let text =
            "//! todo!() dbg!()\nfn f() {\n    g(|| todo!());\n}\n// #[ignore]\n#[ignore]\nfn h() { \"todo!()\"; }\n";
        assert_eq!(rules(&file("a/src/x.rs", text)), [("later", 3), ("excuse", 6)]);
        assert_eq!(rules(&file("a/src/x.rs", "//! A.\n#[should_panic]\nfn f() {}\n")), [("excuse", 2)]);
    }

    #[test]
    fn snapshot_sees_types_only() {
        let text = "//! A.\nuse xen_hypercall::types::DomId;\nuse xen_hypercall::domctl;\n";
        assert_eq!(rules(&file("snapshot/src/x.rs", text)), [("direction", 3)]);
        assert!(file("kernel/src/x.rs", text).is_empty());
    }
}
