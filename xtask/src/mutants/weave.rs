//! All mutants of a file in one text, each behind a question that is asked when the code runs: which one is on.
//!
//! Pure. With no mutant on, what is woven says what the source says: an operand is evaluated as often as there, and in
//! the same order. Each mutant's text, and each expression that was taken apart for some, stands between marks,
//! so that what the compiler does not take is known to belong to it.

use proc_macro2::LineColumn;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use super::list::{Genre, Mutant};

/// The question, as a function of the crate's root. Its answer is `false` for all if the variable is not set.
pub const QUESTION: &str = "
mod woven {
    extern crate std;
    pub fn mutant(id: usize) -> bool {
        static ON: std::sync::LazyLock<usize> = std::sync::LazyLock::new(|| {
            std::env::var(\"LIVESAVE_MUTANT\").ok().and_then(|id| id.parse().ok()).unwrap_or(usize::MAX)
        });
        *ON == id
    }
}
pub(crate) use woven::mutant;
";

/// A place that is written anew, and how.
struct Edit {
    start: usize,
    end: usize,
    ids: Vec<(usize, String)>,
    shape: Shape,
}

/// Ranges are bytes of the source.
enum Shape {
    /// Before the first statement.
    Body,
    /// Operands, operator.
    Binary((usize, usize), (usize, usize), (usize, usize)),
    /// The operand; the operator stands before it.
    Unary((usize, usize)),
    /// A guard; the ids with an empty text delete the arm.
    Guard,
    /// Where an arm without a guard can have one.
    NoGuard,
    /// A match of which arms can be left out: what the compiler then misses it says of the whole.
    Match,
}

/// The text with all mutants that can be woven. Those that cannot are not in it: whoever judges knows them by their
/// absence from [`marks`].
pub fn weave(source: &str, mutants: &[(usize, &Mutant)]) -> syn::Result<String> {
    let file = syn::parse_file(source)?;
    let mut places = Places { lines: Lines::of(source), mutants, edits: Vec::new() };
    places.bodies();
    places.visit_file(&file);
    let mut edits = places.edits;
    // Outer before inner; what is put before a place, before the place.
    edits.sort_by_key(|edit| (edit.start, edit.end != edit.start, std::cmp::Reverse(edit.end)));
    Ok(Weaver { source, edits: &edits }.range(0, source.len(), 0).0)
}

/// Byte of a place: a line from 1 and a column of characters from 0.
pub fn offset(source: &str, (line, column): (usize, usize)) -> usize {
    Lines::of(source).offset(line, column)
}

/// Start, end and ids of what stands between marks, outer before inner.
pub fn marks(text: &str) -> Vec<(usize, usize, Vec<usize>)> {
    let (mut found, mut open, mut at) = (Vec::new(), Vec::new(), 0);
    while let Some(next) = text[at..].find("/*").map(|offset| at + offset) {
        let rest = &text[next..];
        if let Some(ids) = rest.strip_prefix("/*{").and_then(|rest| rest.split_once("*/")) {
            open.push(found.len());
            found.push((next, text.len(), ids.0.split(' ').filter_map(|id| id.parse().ok()).collect()));
        } else if rest.starts_with("/*}*/")
            && let Some(index) = open.pop()
        {
            found[index].1 = next;
        }
        at = next + 2;
    }
    found
}

struct Places<'a> {
    lines: Lines,
    mutants: &'a [(usize, &'a Mutant)],
    edits: Vec<Edit>,
}

impl Places<'_> {
    fn bodies(&mut self) {
        for (id, mutant) in self.mutants.iter().filter(|(_, mutant)| mutant.genre == Genre::FnValue) {
            let start = self.lines.offset(mutant.start.0, mutant.start.1);
            let ids = vec![(*id, mutant.replacement.clone())];
            self.edits.push(Edit { start, end: start, ids, shape: Shape::Body });
        }
    }

    fn at(&self, genre: Genre, start: usize) -> Vec<(usize, String)> {
        let is_here =
            |mutant: &Mutant| mutant.genre == genre && self.lines.offset(mutant.start.0, mutant.start.1) == start;
        let here = self.mutants.iter().filter(|(_, mutant)| is_here(mutant));
        here.map(|(id, mutant)| (*id, mutant.replacement.clone())).collect()
    }

    fn of(&self, node: &impl Spanned) -> (usize, usize) {
        let span = node.span();
        let offset = |at: LineColumn| self.lines.offset(at.line, at.column);
        (offset(span.start()), offset(span.end()))
    }

    fn push(&mut self, (start, end): (usize, usize), ids: Vec<(usize, String)>, shape: Shape) {
        if !ids.is_empty() {
            self.edits.push(Edit { start, end, ids, shape });
        }
    }
}

impl<'ast> Visit<'ast> for Places<'_> {
    fn visit_expr_binary(&mut self, node: &'ast syn::ExprBinary) {
        let (whole, op) = (self.of(node), self.of(&node.op));
        let ids = self.at(Genre::BinaryOperator, op.0);
        let sides = (self.of(&node.left), self.of(&node.right));
        let is_chain = [&node.left, &node.right].iter().any(|side| matches!(***side, syn::Expr::Let(_)));
        if !is_chain {
            self.push(whole, ids, Shape::Binary(sides.0, op, sides.1));
        }
        visit::visit_expr_binary(self, node);
    }

    fn visit_expr_unary(&mut self, node: &'ast syn::ExprUnary) {
        let ids = self.at(Genre::UnaryOperator, self.of(&node.op).0);
        self.push(self.of(node), ids, Shape::Unary(self.of(&node.expr)));
        visit::visit_expr_unary(self, node);
    }

    fn visit_expr_match(&mut self, node: &'ast syn::ExprMatch) {
        let ids = node.arms.iter().flat_map(|arm| self.at(Genre::MatchArm, self.of(&arm.pat).0)).collect();
        self.push(self.of(node), ids, Shape::Match);
        visit::visit_expr_match(self, node);
    }

    fn visit_arm(&mut self, node: &'ast syn::Arm) {
        let mut ids = self.at(Genre::MatchArm, self.of(&node.pat).0);
        if let Some((_, guard)) = &node.guard {
            let range = self.of(guard);
            ids.extend(self.at(Genre::MatchArmGuard, range.0));
            self.push(range, ids, Shape::Guard);
        } else {
            let end = self.of(&node.pat).1;
            self.push((end, end), ids, Shape::NoGuard);
        }
        visit::visit_arm(self, node);
    }
}

struct Weaver<'a> {
    source: &'a str,
    edits: &'a [Edit],
}

impl Weaver<'_> {
    /// The text of `start..end`, with the edits from the `first` on that lie in it; and the first that does not.
    fn range(&self, start: usize, end: usize, first: usize) -> (String, usize) {
        let (mut text, mut at, mut next) = (String::new(), start, first);
        while let Some(edit) = self.edits.get(next).filter(|edit| edit.start <= end) {
            let is_inside = edit.start >= at && edit.end <= end && (edit.start < end || edit.start == edit.end);
            if !is_inside {
                next += 1;
                continue;
            }
            text.push_str(&self.source[at..edit.start]);
            text.push_str(&self.woven(next));
            at = edit.end;
            next += 1;
        }
        text.push_str(&self.source[at..end]);
        (text, next)
    }

    fn inner(&self, (start, end): (usize, usize), of: usize) -> String {
        self.range(start, end, of + 1).0
    }

    fn woven(&self, index: usize) -> String {
        let edit = &self.edits[index];
        let text = match edit.shape {
            Shape::Body => return choice(&edit.ids, |value| format!("return {value};"), "") + "\n",
            Shape::Match => self.inner((edit.start, edit.end), index),
            Shape::NoGuard => format!(" if {}", none_of(&edit.ids)),
            Shape::Guard => {
                let whole = self.inner((edit.start, edit.end), index);
                let (forced, deleted): (Vec<_>, Vec<_>) =
                    edit.ids.iter().cloned().partition(|(_, value)| !value.is_empty());
                format!("({}) && {}", choice(&forced, str::to_owned, &whole), none_of(&deleted))
            }
            Shape::Unary(operand) => {
                let (operand, op) = (self.inner(operand, index), &self.source[edit.start..operand.0]);
                format!("({})", choice(&edit.ids, |_| operand.clone(), &format!("{op}{operand}")))
            }
            Shape::Binary(left, op, right) => {
                let (left, right) = (self.inner(left, index), self.inner(right, index));
                binary(&edit.ids, &left, &self.source[op.0..op.1], &right)
            }
        };
        let ids = edit.ids.iter().map(|(id, _)| id.to_string()).collect::<Vec<_>>().join(" ");
        format!("/*{{{ids}*/{text}/*}}*/")
    }
}

/// Which mutant is on decides; none of them, and it is the last.
fn choice(ids: &[(usize, String)], text: impl Fn(&str) -> String, otherwise: &str) -> String {
    let one =
        |(id, value): &(usize, String)| format!("/*{{{id}*/if crate::mutant({id}) {{ {} }} else/*}}*/ ", text(value));
    ids.iter().map(one).collect::<String>() + &format!("{{ {otherwise} }}")
}

fn none_of(ids: &[(usize, String)]) -> String {
    let any = ids.iter().map(|(id, _)| format!("crate::mutant({id})")).collect::<Vec<_>>().join(" || ");
    if any.is_empty() { "true".to_owned() } else { format!("!({any})") }
}

/// Operands once and in order: compared by reference, `&&` and `||` with a right side that may not be reached.
fn binary(ids: &[(usize, String)], left: &str, op: &str, right: &str) -> String {
    let of = |l: &str, r: &str| choice(ids, |op| format!("{l} {op} {r}"), &format!("{l} {op} {r}"));
    match op {
        "&&" | "||" => format!("({{ let l: bool = {left}; {} }})", of("l", right)),
        "==" | "!=" | "<" | "<=" | ">" | ">=" => {
            format!("(match (&({left}), &({right})) {{ (l, r) => {{ {} }} }})", of("*l", "*r"))
        }
        _ if op.ends_with('=') => of(left, right),
        _ => format!("(match (({left}), ({right})) {{ (l, r) => {{ {} }} }})", of("l", "r")),
    }
}

struct Lines(Vec<(usize, String)>);

impl Lines {
    fn of(source: &str) -> Self {
        let mut at = 0;
        let line = |line: &str| {
            let start = at;
            at += line.len();
            (start, line.to_owned())
        };
        Self(source.split_inclusive('\n').map(line).collect())
    }

    /// Of a line from 1 and a column of characters from 0.
    fn offset(&self, line: usize, column: usize) -> usize {
        let Some((start, text)) = self.0.get(line.saturating_sub(1)) else { return usize::MAX };
        start + text.char_indices().nth(column).map_or(text.len(), |(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutant(genre: Genre, start: (usize, usize), replacement: &str) -> Mutant {
        Mutant {
            name: String::new(),
            file: String::new(),
            genre,
            start,
            end: start,
            replacement: replacement.to_owned(),
        }
    }

    fn woven(source: &str, mutants: &[Mutant]) -> String {
        let numbered: Vec<_> = mutants.iter().enumerate().collect();
        let text = weave(source, &numbered).unwrap();
        syn::parse_file(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        text
    }

    #[test]
    fn each_genre_gets_its_question_where_it_stands() {
        let source = "fn f(a: u8) -> bool {\n    a < 3 && !g(a + 1)\n}\n";
        let mutants = [
            mutant(Genre::FnValue, (2, 4), "true"),
            mutant(Genre::BinaryOperator, (2, 6), "=="),
            mutant(Genre::BinaryOperator, (2, 10), "||"),
            mutant(Genre::UnaryOperator, (2, 13), ""),
            mutant(Genre::BinaryOperator, (2, 18), "-"),
        ];
        let text = woven(source, &mutants);
        let told = marks(&text);
        assert!((0..5).all(|id| text.contains(&format!("crate::mutant({id})"))), "{text}");
        let inside = |outer: usize, inner: usize| {
            let of = |id: usize| told.iter().find(|(.., ids)| ids.contains(&id)).unwrap();
            of(outer).0 <= of(inner).0 && of(inner).1 <= of(outer).1
        };
        assert!(inside(2, 1) && inside(2, 3) && inside(3, 4) && !inside(2, 0) && !inside(1, 3), "{text}");
        assert_eq!(woven(source, &[]), source);
    }

    #[test]
    fn arms_and_guards() {
        let arms = "        1 if a > 0 => 2,\n        3 => 4,\n        _ => 5,\n";
        let source = &format!("fn f(a: u8) -> u8 {{\n    match a {{\n{arms}    }}\n}}\n");
        let mutants = [
            mutant(Genre::MatchArm, (3, 8), ""),
            mutant(Genre::MatchArmGuard, (3, 13), "true"),
            mutant(Genre::MatchArm, (4, 8), ""),
            mutant(Genre::BinaryOperator, (3, 15), "<"),
        ];
        let text = woven(source, &mutants);
        assert!(text.contains("3/*{2*/ if !(crate::mutant(2))/*}*/ =>"), "{text}");
        assert!((0..4).all(|id| text.contains(&format!("crate::mutant({id})"))), "{text}");
    }
}
