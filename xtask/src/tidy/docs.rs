//! Rules for the documents: one title, links and paths that lead somewhere, and no document that nothing links to.

use std::collections::BTreeSet;

use super::finding::Finding;
use super::tree::Tree;

/// Where a reader starts.
const START: &str = "README.md";
/// A path in `code style` below one of these has to exist.
const ROOTS: [&str; 12] = [
    "hypercall",
    "drivers",
    "snapshot",
    "sim",
    "kernel",
    "cli",
    "linker",
    "flask",
    "xtask",
    "qemu-tests",
    "docs",
    ".ci",
];

/// Applies the rules.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.ending(".md") {
        let document = Document::new(text);
        findings.extend(title(path, &document));
        for (line, target) in &document.links {
            findings.extend(link(tree, path, *line, target));
        }
        for (line, name) in &document.paths {
            if !tree.exists(name) {
                findings.push(Finding::new(path, *line, "path", format!("{name} does not exist")));
            }
        }
    }
    findings.extend(unlinked(tree));
    findings
}

/// What the rules look at, outside fenced code.
struct Document<'a> {
    /// Headings with their line and level.
    headings: Vec<(usize, usize, &'a str)>,
    /// Targets of links.
    links: Vec<(usize, &'a str)>,
    /// Paths of this repository in code style.
    paths: Vec<(usize, &'a str)>,
}

impl<'a> Document<'a> {
    fn new(text: &'a str) -> Self {
        let mut document = Self { headings: Vec::new(), links: Vec::new(), paths: Vec::new() };
        let mut fenced = false;
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            } else if !fenced {
                document.line(number + 1, line);
            }
        }
        document
    }

    fn line(&mut self, number: usize, line: &'a str) {
        let level = line.chars().take_while(|character| *character == '#').count();
        if level > 0 && line[level..].starts_with(' ') {
            self.headings.push((number, level, line[level..].trim()));
        }
        // Code spans are the odd pieces between backticks; a link's target is not looked for inside them.
        for (index, piece) in line.split('`').enumerate() {
            if index % 2 == 1 {
                self.paths.extend(is_path(piece).then_some((number, piece)));
            } else {
                self.links.extend(targets(piece).map(|target| (number, target)));
            }
        }
    }
}

/// The targets of `](target)` in a piece of a line.
fn targets(piece: &str) -> impl Iterator<Item = &str> {
    piece.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

fn is_path(piece: &str) -> bool {
    let plain = |character: char| character.is_ascii_alphanumeric() || "._-/".contains(character);
    piece.split_once('/').is_some_and(|(root, _)| ROOTS.contains(&root)) && piece.chars().all(plain)
}

fn title(path: &str, document: &Document<'_>) -> Option<Finding> {
    let titles: Vec<_> = document.headings.iter().filter(|(_, level, _)| *level == 1).collect();
    match titles.as_slice() {
        [(1, ..)] => None,
        [] => Some(Finding::new(path, 1, "title", "no title")),
        [(line, ..)] => Some(Finding::new(path, *line, "title", "the title is not the first line")),
        [_, (line, ..), ..] => Some(Finding::new(path, *line, "title", "a second title")),
    }
}

fn link(tree: &Tree, from: &str, line: usize, target: &str) -> Option<Finding> {
    if target.starts_with("https://") || target.starts_with("http://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let Some(path) = resolve(from, file) else {
        return Some(Finding::new(from, line, "link", format!("{target} leads out of the repository")));
    };
    if !tree.exists(&path) {
        return Some(Finding::new(from, line, "link", format!("{target} leads nowhere")));
    }
    let known = anchor.is_empty() || tree.text(&path).is_some_and(|text| anchors(text).contains(anchor));
    (!known).then(|| Finding::new(from, line, "link", format!("{path} has no heading #{anchor}")))
}

/// `file` as seen from the document `from`, from the root of the repository. The empty name is the document itself.
fn resolve(from: &str, file: &str) -> Option<String> {
    if file.is_empty() {
        return Some(from.to_owned());
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in file.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// The anchors of a document's headings: lower case, blanks to hyphens, other punctuation dropped.
fn anchors(text: &str) -> BTreeSet<String> {
    let anchor = |(_, _, heading): &(usize, usize, &str)| {
        let kept = heading.chars().filter(|kept| kept.is_ascii_alphanumeric() || " -_".contains(*kept));
        kept.map(|character| if character == ' ' { '-' } else { character.to_ascii_lowercase() }).collect()
    };
    Document::new(text).headings.iter().map(anchor).collect()
}

/// Documents below docs/ that no chain of links from the README reaches.
fn unlinked(tree: &Tree) -> Vec<Finding> {
    let mut reached = BTreeSet::new();
    let mut todo = vec![START.to_owned()];
    while let Some(path) = todo.pop() {
        let Some(text) = tree.text(&path) else { continue };
        if !reached.insert(path.clone()) || !path.ends_with(".md") {
            continue;
        }
        let document = Document::new(text);
        let linked = document.links.iter().map(|(_, target)| target.split('#').next().unwrap_or_default());
        todo.extend(linked.filter_map(|file| resolve(&path, file)));
    }
    let dead = tree.texts().filter(|(path, _)| path.starts_with("docs/") && !reached.contains(*path));
    dead.map(|(path, _)| Finding::new(path, 1, "dead", format!("no link from {START} leads here"))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::finding::rules;
    use super::*;

    #[test]
    fn links_lead_to_files_and_headings() {
        let readme = "# A\n[b](docs/b.md) [c](docs/c.md)\n[d](docs/b.md#two-words) [e](docs/b.md#none) [f](http://x)\n\
                      `[g](no.md)` [h](#a)\n```\n[i](no.md)\n```\n[j](../out.md)\n";
        let tree = Tree::of(&[("README.md", readme), ("docs/b.md", "# B\n## Two, words!\n[up](../README.md)\n")]);
        assert_eq!(rules(&check(&tree)), [("link", 2), ("link", 3), ("link", 8)]);
    }

    #[test]
    fn a_document_has_one_title_and_it_comes_first() {
        let tree = Tree::of(&[("README.md", "text\n")]);
        assert_eq!(rules(&check(&tree)), [("title", 1)]);
        let tree = Tree::of(&[("README.md", "text\n# A\n")]);
        assert_eq!(rules(&check(&tree)), [("title", 2)]);
        let tree = Tree::of(&[("README.md", "# A\n```\n# not one\n```\n# B\n")]);
        assert_eq!(rules(&check(&tree)), [("title", 5)]);
    }

    #[test]
    fn paths_in_code_style_exist() {
        let readme = "# A\n`kernel/src/main.rs` `kernel/src/no.rs` `kernel/` `a/b` `docs/N x`\n";
        let tree = Tree::of(&[("README.md", readme), ("kernel/src/main.rs", "")]);
        assert_eq!(rules(&check(&tree)), [("path", 2)]);
    }

    #[test]
    fn a_document_that_nothing_links_to_is_dead() {
        let files = [("README.md", "# A\n[b](docs/b.md)\n"), ("docs/b.md", "# B\n[c](c.md)\n"), ("docs/c.md", "# C\n")];
        assert!(check(&Tree::of(&files)).is_empty());
        let files = [files[0], ("docs/b.md", "# B\n"), files[2]];
        assert_eq!(rules(&check(&Tree::of(&files))), [("dead", 1)]);
    }
}
