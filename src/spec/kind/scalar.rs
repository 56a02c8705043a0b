//! Numbers with their ranges, truth values, text and names.

use serde_json::{Value as Json, json};

use super::{Kind, Reader, Shape};
use crate::spec::node::{Node, Value};

/// A number as the file wrote it: plain decimal, finite, and not so small that f32 would make it 0.
pub(crate) fn number(node: &Node, what: &str, reader: &mut Reader) -> Option<f64> {
    let Value::Scalar { text, quoted } = &node.value else { return reader.expected(node, what, None) };
    if *quoted {
        let help = text.parse::<f64>().is_ok().then(|| "remove the quotes".to_owned());
        return reader.expected(node, what, help);
    }
    let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |digits| ("-", digits));
    let lower = digits.strip_prefix('+').unwrap_or(digits).to_lowercase();
    if lower == ".nan" || lower == ".inf" || lower == "nan" || lower == "inf" {
        reader.error(node.place, format!("{text}: a number must be finite"), None);
        return None;
    }
    let plain = !digits.starts_with('+')
        && digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '-' | '+'));
    let leading_zero = digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit();
    if !plain || leading_zero {
        return reader.expected(
            node,
            what,
            decimal_of(digits).map(|d| format!("plain decimal numbers only: {sign}{d}")),
        );
    }
    match text.parse::<f64>() {
        Ok(v) if !v.is_finite() => {
            reader.error(node.place, format!("{text}: a number must be finite"), None);
            None
        }
        Ok(v) if v != 0.0 && (v as f32) == 0.0 => {
            reader.error(node.place, format!("{text} would become 0 in single precision"), Some("write 0".to_owned()));
            None
        }
        Ok(v) if (v as f32).is_infinite() => {
            reader.error(node.place, format!("{text} is too large for single precision"), None);
            None
        }
        Ok(v) => Some(v),
        Err(_) => reader.expected(node, what, None),
    }
}

/// 0x10, 0o20, 0b1, 010, +5 and 1_000 in plain decimals.
fn decimal_of(text: &str) -> Option<String> {
    let joined = text.strip_prefix('+').unwrap_or(text).replace('_', "");
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(digits) = joined.strip_prefix(prefix) {
            return u64::from_str_radix(digits, radix).ok().map(|v| v.to_string());
        }
    }
    let trimmed = joined.trim_start_matches('0');
    joined.chars().all(|c| c.is_ascii_digit() || c == '.').then(|| match trimmed {
        "" => "0".to_owned(),
        t if t.starts_with('.') => format!("0{t}"),
        t => t.to_owned(),
    })
}

/// A number in a range: reads it, or says which range.
fn in_range(node: &Node, what: &str, ok: impl Fn(f64) -> bool, reader: &mut Reader) -> Option<f64> {
    let v = number(node, what, reader)?;
    if ok(v) {
        return Some(v);
    }
    reader.error(node.place, format!("{} is out of range: expected {what}", text_of(node)), None);
    None
}

fn text_of(node: &Node) -> &str {
    match &node.value {
        Value::Scalar { text, .. } => text,
        _ => "this",
    }
}

/// Numbers with a range each.
macro_rules! numbers {
    ($($(#[doc = $doc:literal])* $name:ident: $words:literal, $least:expr, $greatest:expr, |$v:ident| $ok:expr;)+) => {
        $($(#[doc = $doc])*
        #[derive(Debug)]
        pub struct $name;
        impl Kind for $name {
            type Out = f64;
            fn read(node: &Node, reader: &mut Reader) -> Option<f64> {
                in_range(node, $words, |$v| $ok, reader)
            }
            fn shape() -> Shape {
                Shape::Leaf { json: "number", words: $words, least: $least, greatest: $greatest }
            }
            fn canonical(out: &f64) -> Json {
                json!(out)
            }
        })+
    };
}

numbers! {
    /// Any finite number.
    Number: "a number", None, None, |_v| true;
    /// Greater than 0.
    Positive: "a number above 0", Some(0.0), None, |v| v > 0.0;
    /// 0 or more.
    NonNegative: "a number, 0 or more", Some(0.0), None, |v| v >= 0.0;
    /// In [0, 1].
    Share: "a share, 0 to 1", Some(0.0), Some(1.0), |v| (0.0..=1.0).contains(&v);
    /// In [0, 1).
    Beta: "a number from 0 to below 1", Some(0.0), Some(1.0), |v| (0.0..1.0).contains(&v);
}

/// Whole numbers with a least value.
macro_rules! whole_numbers {
    ($($(#[doc = $doc:literal])* $name:ident: $words:literal, $least:literal, $greatest:literal;)+) => {
        $($(#[doc = $doc])*
        #[derive(Debug)]
        pub struct $name;
        impl Kind for $name {
            type Out = usize;
            fn read(node: &Node, reader: &mut Reader) -> Option<usize> {
                let v = number(node, $words, reader)?;
                if v.fract() != 0.0 {
                    return reader.expected(node, $words, None);
                }
                if !($least as f64..=$greatest as f64).contains(&v) {
                    reader.error(node.place, format!("{} is out of range: expected {}", text_of(node), $words), None);
                    return None;
                }
                Some(v as usize)
            }
            fn shape() -> Shape {
                Shape::Leaf { json: "integer", words: $words, least: Some($least as f64), greatest: Some($greatest as f64) }
            }
            fn canonical(out: &usize) -> Json {
                json!(out)
            }
        })+
    };
}

whole_numbers! {
    /// 1 or more.
    Count: "a whole number, 1 or more", 1, 9_007_199_254_740_992u64;
    /// 0 or more.
    Whole: "a whole number, 0 or more", 0, 9_007_199_254_740_992u64;
    /// Features of a world: what the data law can number.
    Features: "a whole number from 1 to 131071", 1, 131_071;
    /// Width of a hidden state or a dictionary.
    Width: "a whole number from 1 to 1048576", 1, 1_048_576;
    /// Samples of a batch or an evaluation.
    Samples: "a whole number from 1 to 16777216", 1, 16_777_216;
    /// Optimiser steps.
    Steps: "a whole number from 1 to 4294967295", 1, 4_294_967_295u64;
}

/// true or false.
#[derive(Debug)]
pub struct Flag;

impl Kind for Flag {
    type Out = bool;
    fn read(node: &Node, reader: &mut Reader) -> Option<bool> {
        match &node.value {
            Value::Scalar { text, quoted: false } if text == "true" => Some(true),
            Value::Scalar { text, quoted: false } if text == "false" => Some(false),
            _ => reader.expected(node, "true or false", Some("use true or false".into())),
        }
    }
    fn shape() -> Shape {
        Shape::Leaf { json: "boolean", words: "true or false", least: None, greatest: None }
    }
    fn canonical(out: &bool) -> Json {
        json!(out)
    }
}

/// Free text; an unquoted number or word is taken as it is written.
#[derive(Debug)]
pub struct Text;

impl Kind for Text {
    type Out = String;
    fn read(node: &Node, reader: &mut Reader) -> Option<String> {
        match &node.value {
            Value::Scalar { text, .. } => Some(text.clone()),
            Value::Null => reader.expected(node, "text", Some("quote it if the word null is meant".into())),
            _ => reader.expected(node, "text", None),
        }
    }
    fn shape() -> Shape {
        Shape::Leaf { json: "string", words: "text", least: None, greatest: None }
    }
    fn canonical(out: &String) -> Json {
        json!(out)
    }
}

/// What a name is made of, in words.
pub const NAME_RULE: &str = "letters, digits, - and _, at most 100, not starting with - and not a reserved device name";

/// Whether a text can be a name, and so a folder on any system: see [`NAME_RULE`].
pub fn is_name(text: &str) -> bool {
    let allowed = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let lower = text.to_lowercase();
    let port = text.len() == 4 && allowed && ["com", "lpt"].contains(&&lower[..3]);
    let reserved = port || ["con", "prn", "aux", "nul"].contains(&lower.as_str());
    !text.is_empty() && text.len() <= 100 && !text.starts_with('-') && allowed && !reserved
}

/// A name that may also be a folder: letters, digits, `-` and `_`, at most 100, not starting with `-`.
#[derive(Debug)]
pub struct Name;

impl Kind for Name {
    type Out = String;
    fn read(node: &Node, reader: &mut Reader) -> Option<String> {
        let text = match &node.value {
            Value::Scalar { text, .. } => text.clone(),
            Value::Null => "null".into(),
            _ => return reader.expected(node, "a name", None),
        };
        if !is_name(&text) {
            reader.error(node.place, format!("\"{text}\" cannot be a name"), NAME_RULE.to_owned());
            return None;
        }
        Some(text)
    }
    fn shape() -> Shape {
        Shape::Leaf { json: "string", words: "a name of letters, digits, - and _", least: None, greatest: None }
    }
    fn canonical(out: &String) -> Json {
        json!(out)
    }
}
