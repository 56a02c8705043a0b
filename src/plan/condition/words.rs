//! The words of a condition: numbers, texts, paths and signs, each with its place.

use super::Wrong;

/// A word of a condition.
#[derive(Clone, Debug, PartialEq)]
pub enum Word {
    Number(f64),
    Text(String),
    /// Always a path.
    Quoted(String),
    /// A path or a word of the language.
    Plain(String),
    Sign(&'static str),
}

impl Word {
    pub fn shown(&self) -> String {
        match self {
            Word::Number(x) => format!("`{x}`"),
            Word::Text(x) => format!("'{x}'"),
            Word::Quoted(x) => format!("\"{x}\""),
            Word::Plain(x) => format!("`{x}`"),
            Word::Sign(x) => format!("`{x}`"),
        }
    }
}

/// Longer ones first.
const SIGNS: [&str; 16] = ["==", "!=", "<>", "<=", ">=", "=", "<", ">", "+", "-", "*", "/", "%", "(", ")", ","];

/// The words of a text, each with where it begins.
pub fn words(text: &str) -> Result<Vec<(Word, usize)>, Wrong> {
    let (mut words, mut at) = (vec![], 0);
    while let Some(c) = text[at..].chars().next() {
        let (rest, begun) = (&text[at..], at);
        if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        }
        let word = if c == '\'' || c == '"' {
            let Some(length) = rest[1..].find(c) else {
                return Err(Wrong { at, message: format!("no {c} ends what begins here") });
            };
            at += length + 2;
            let inside = rest[1..=length].to_owned();
            if c == '"' { Word::Quoted(inside) } else { Word::Text(inside) }
        } else if c.is_ascii_digit() || (c == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
            let length = number_length(rest);
            at += length;
            let number = rest[..length].parse::<f64>().ok().filter(|x| x.is_finite());
            Word::Number(
                number.ok_or_else(|| Wrong { at: begun, message: format!("`{}` is no number", &rest[..length]) })?,
            )
        } else if c.is_alphabetic() || c == '_' {
            let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).unwrap_or(rest.len());
            at += length;
            Word::Plain(rest[..length].to_owned())
        } else {
            let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
            let sign =
                sign.ok_or_else(|| Wrong { at, message: format!("`{c}` is not of the language of conditions") })?;
            at += sign.len();
            Word::Sign(sign)
        };
        words.push((word, begun));
    }
    Ok(words)
}

/// Bytes of the number that a text begins with.
fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let goes_on = match bytes[at] {
            b'0'..=b'9' | b'.' | b'_' | b'a'..=b'z' | b'A'..=b'Z' => true,
            b'+' | b'-' => matches!(bytes[at - 1], b'e' | b'E'),
            _ => false,
        };
        if !goes_on {
            break;
        }
        at += 1;
    }
    at
}
