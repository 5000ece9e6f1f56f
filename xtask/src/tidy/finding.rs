//! What a rule found, and where.

use std::fmt;

/// One breach of one rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, from the root of the repository.
    pub path: String,
    /// The line, from 1.
    pub line: usize,
    /// The rule's name, as docs/STYLE.md has it.
    pub rule: &'static str,
    /// What is wrong, and what to do instead.
    pub message: String,
}

impl Finding {
    /// Puts one together.
    pub fn new(path: &str, line: usize, rule: &'static str, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, rule, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}: {}: {}", self.path, self.line, self.rule, self.message)
    }
}

/// The rules that spoke, in the order of the findings: what a unit test compares.
#[cfg(test)]
pub fn rules(findings: &[Finding]) -> Vec<(&'static str, usize)> {
    findings.iter().map(|finding| (finding.rule, finding.line)).collect()
}
