//! Rules for every text file: ASCII, line width, no tabs or trailing blanks, a newline at the end.

use super::finding::Finding;
use super::tree::Tree;

/// In characters. rustfmt has the same number.
const WIDTH_MAX: usize = 120;
/// Generated, or not ours to lay out.
const NOT_OURS: [&str; 3] = ["Cargo.lock", "flask/effective-permissions.txt", "flask/refused.txt"];

/// Applies the rules.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let ours = tree.texts().filter(|(path, _)| !NOT_OURS.contains(path));
    ours.flat_map(|(path, text)| file(path, text)).collect()
}

fn file(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        fenced ^= path.ends_with(".md") && line.trim_start().starts_with("```");
        let mut say = |rule, message: String| findings.push(Finding::new(path, number + 1, rule, message));
        if let Some(character) = line.chars().find(|character| !matches!(character, ' '..='~' | '\t')) {
            say("ascii", format!("the character {character:?}"));
        }
        let width = line.chars().count();
        if width > WIDTH_MAX && !fenced && !may_be_wide(path, line) {
            say("width", format!("{width} columns, {WIDTH_MAX} are the limit"));
        }
        if line.ends_with([' ', '\t']) {
            say("blanks", "blanks at the end of the line".to_owned());
        }
        if line.starts_with("<<<<<<< ") || line.starts_with(">>>>>>> ") {
            say("merge", "a merge conflict".to_owned());
        }
    }
    if !text.is_empty() && !text.ends_with('\n') {
        findings.push(Finding::new(path, text.lines().count(), "newline", "no newline at the end"));
    }
    findings
}

/// A row of a table cannot be folded, nor can a line of bytes in a fixture.
fn may_be_wide(path: &str, line: &str) -> bool {
    let row = path.ends_with(".md") && line.trim_start().starts_with('|');
    row || path.ends_with(".csv") || path.contains("/testdata/") || path.contains("/golden/")
}

#[cfg(test)]
mod tests {
    use super::super::finding::rules;
    use super::*;

    #[test]
    fn each_rule_speaks_at_its_line() {
        let long = "x".repeat(121);
        let text = format!("fine\nna\u{ef}ve\n{long}\nblank \n<<<<<<< ours\nno end");
        let expected = [("ascii", 2), ("width", 3), ("blanks", 4), ("merge", 5), ("newline", 6)];
        assert_eq!(rules(&file("a.rs", &text)), expected);
    }

    #[test]
    fn the_limit_itself_and_rows_of_tables_pass() {
        let (limit, row) = ("x".repeat(120), format!("| {} |", "x".repeat(200)));
        assert!(file("a.rs", &format!("{limit}\n")).is_empty());
        assert!(file("a.md", &format!("{row}\n")).is_empty());
        assert!(file("a.md", &format!("```\nx{row}\n```\n")).is_empty());
        assert_eq!(rules(&file("a.md", &format!("```\n```\nx{row}\n"))), [("width", 3)]);
        assert_eq!(rules(&file("a.rs", &format!("{row}\n"))), [("width", 1)]);
    }
}
