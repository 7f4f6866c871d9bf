//! String literals in Rust source.

/// A text of the source. A gap `{name}` is where the program inserts something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Literal {
    pub(super) text: String,
    /// The line where it begins.
    pub(super) line: usize,
}

/// Returns the literals of a file. Those of one `concat!` are one literal, in which each other
/// argument is a gap.
pub(super) fn literals(code: &str) -> Vec<Literal> {
    let mut reader = Reader { code, at: 0 };
    let mut found = Vec::new();
    while reader.at < code.len() {
        let start = reader.at;
        let text = if reader.rest().starts_with("concat!(") {
            reader.at += "concat!(".len();
            Some(reader.concatenated())
        } else {
            reader.step()
        };
        if let Some(text) = text {
            found.push(Literal { text, line: code[..start].matches('\n').count() + 1 });
        }
    }
    found
}

struct Reader<'a> {
    code: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.code[self.at..]
    }

    /// Reads the arguments of a `concat!` to its closing bracket.
    fn concatenated(&mut self) -> String {
        let (mut text, mut other, mut depth) = (String::new(), String::new(), 1);
        while depth > 0 && self.at < self.code.len() {
            let sign = self.rest().chars().next().unwrap_or_default();
            depth += i32::from(sign == '(') - i32::from(sign == ')');
            let before = self.at;
            let literal = self.step();
            let is_end = literal.is_some() || depth == 0 || (sign == ',' && depth == 1);
            if is_end && !other.is_empty() {
                text.push('{');
                text.push_str(&other);
                text.push('}');
                other.clear();
            }
            match literal {
                Some(literal) => text += &literal,
                // One sign, and no comment.
                None if !is_end && self.at == before + sign.len_utf8() && !sign.is_whitespace() => {
                    other.push(sign);
                }
                None => {}
            }
        }
        text
    }

    /// Moves over a comment, a character, a literal or one other sign. Returns the literal.
    fn step(&mut self) -> Option<String> {
        let rest = self.rest();
        let after = |end: &str| rest.find(end).map_or(rest.len(), |at| at + end.len());
        if rest.starts_with("//") {
            self.at += after("\n");
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            self.at += after("\"#");
            return raw.split_once("\"#").map(|(text, _)| text.to_owned());
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\") {
            self.at += 3;
        } else if let Some(literal) = rest.strip_prefix('"') {
            let (text, length) = unescape(literal);
            self.at += length + 2;
            return Some(text);
        } else {
            self.at += rest.chars().next().map_or(1, char::len_utf8);
        }
        None
    }
}

/// Returns the value of a literal that begins here, and the length of its source.
fn unescape(literal: &str) -> (String, usize) {
    let mut text = String::new();
    let mut signs = literal.char_indices().peekable();
    while let Some((at, sign)) = signs.next() {
        match sign {
            '"' => return (text, at),
            '\\' => match signs.next() {
                // The line goes on at its first letter.
                Some((_, '\n')) => while signs.next_if(|(_, sign)| sign.is_whitespace()).is_some() {},
                Some((_, escaped)) => text.push(escaped),
                None => {}
            },
            other => text.push(other),
        }
    }
    (text, literal.len().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: &str) -> Vec<String> {
        literals(code).into_iter().map(|literal| literal.text).collect()
    }

    #[test]
    fn literals_of_every_form_are_read() {
        assert_eq!(of("a(\"b \\\n    c\"); // \"no\"\n'\"' r#\"d \"e\"\"#"), ["b c", "d \"e\""]);
        assert_eq!(of("'\\'' \"a \\\" b\" '\\n' \"c\""), ["a \" b", "c"]);
        assert_eq!(literals("\n\n \"a\"")[0].line, 3);
    }

    #[test]
    fn a_concatenation_is_one_literal_with_gaps() {
        let code = "concat!(\"A \", $table, // Why (not).\n \" b = (1)\"), \"c\"";
        assert_eq!(of(code), ["A {$table} b = (1)", "c"]);
        assert_eq!(of("concat!(\"A \", open!(), \" b \", c!(\"d\"))"), ["A {open!()} b {c!(}d{)}"]);
        assert_eq!(of("concat!(\n \"A \",\n open!()\n)"), ["A {open!()}"]);
    }
}
