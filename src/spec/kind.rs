//! What a value may be: one [`Kind`] for each sort of value, which reads it, describes it and writes it canonically.
//!
//! The readers, `tegum explain` and `tegum schema` all come from here, so they cannot disagree. A reader that finds
//! something wrong notes it with its place and goes on, so that one run shows every error of a file.

use serde_json::{Value as Json, json};

use super::diagnostic::{Diagnostic, Place, nearest};
use super::node::{Node, Value};

/// Collects what is wrong while a tree is read.
#[derive(Debug, Default)]
pub struct Reader {
    pub diagnostics: Vec<Diagnostic>,
}

impl Reader {
    pub fn error(&mut self, place: Place, message: impl Into<String>, help: impl Into<Option<String>>) {
        let diagnostic = Diagnostic { place, message: message.into(), help: help.into() };
        // The same value is read again for every cell that holds it: one complaint is enough.
        if !self.diagnostics.contains(&diagnostic) {
            self.diagnostics.push(diagnostic);
        }
    }

    /// "expected X, got Y", and nothing read.
    pub fn expected<T>(&mut self, node: &Node, what: &str, help: Option<String>) -> Option<T> {
        self.error(node.place, format!("expected {what}, got {}", node.describe()), help);
        None
    }
}

/// A sort of value.
pub trait Kind {
    type Out;
    /// None after what is wrong has been noted.
    fn read(node: &Node, reader: &mut Reader) -> Option<Self::Out>;
    fn shape() -> Shape;
    /// Everything that can change a row, with defaults filled in: what cell ids are made of.
    fn canonical(out: &Self::Out) -> Json;
}

/// What a value may look like, for `explain`, the schema and suggestions.
#[derive(Clone, Debug)]
pub enum Shape {
    /// JSON type, words for it, least and greatest value.
    Leaf {
        json: &'static str,
        words: &'static str,
        least: Option<f64>,
        greatest: Option<f64>,
    },
    List(Box<Shape>),
    /// Two numbers.
    Pair(Box<Shape>),
    /// May be left out or null.
    Maybe(Box<Shape>),
    Record(Record),
    Choice(Choice),
    /// Free keys.
    Map(Box<Shape>),
}

#[derive(Clone, Debug)]
pub struct Record {
    pub doc: &'static str,
    pub fields: Vec<Field>,
    pub later: &'static [&'static str],
}

#[derive(Clone, Debug)]
pub struct Field {
    pub name: &'static str,
    pub doc: &'static str,
    /// As it would be written; none: the key must be given.
    pub default: Option<&'static str>,
    /// For a key that must be given: what one might write.
    pub example: &'static str,
    pub shape: fn() -> Shape,
}

#[derive(Clone, Debug)]
pub struct Choice {
    pub doc: &'static str,
    /// Shapes accepted without a key, such as a bare number.
    pub bare: Vec<Shape>,
    pub options: Vec<Alternative>,
    pub later: &'static [&'static str],
}

#[derive(Clone, Debug)]
pub struct Alternative {
    pub name: &'static str,
    pub doc: &'static str,
    /// None: the name alone says it all.
    pub shape: Option<fn() -> Shape>,
}

/// A number as the file wrote it: plain decimal, finite, and not so small that f32 would make it 0.
fn number(node: &Node, what: &str, reader: &mut Reader) -> Option<f64> {
    let Value::Scalar { text, quoted } = &node.value else { return reader.expected(node, what, None) };
    if *quoted {
        let help = text.parse::<f64>().is_ok().then(|| "remove the quotes".to_owned());
        return reader.expected(node, what, help);
    }
    let digits = text.trim_start_matches(['-', '+']);
    let lower = digits.to_lowercase();
    if lower == ".nan" || lower == ".inf" || lower == "nan" || lower == "inf" {
        reader.error(node.place, format!("{text}: a number must be finite"), None);
        return None;
    }
    let plain = digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '-' | '+'));
    let leading_zero = digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit();
    if !plain || leading_zero {
        return reader.expected(node, what, decimal_of(digits).map(|d| format!("plain decimal numbers only: {d}")));
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

/// 0x10, 010 and 1_000 in plain decimals.
fn decimal_of(text: &str) -> Option<String> {
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok().map(|v| v.to_string());
    }
    let joined = text.replace('_', "");
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
    Probability: "a probability, 0 to 1", Some(0.0), Some(1.0), |v| (0.0..=1.0).contains(&v);
    /// In [0, 1].
    Share: "a share, 0 to 1", Some(0.0), Some(1.0), |v| (0.0..=1.0).contains(&v);
    /// In [0, 1).
    Beta: "a number from 0 to below 1", Some(0.0), Some(1.0), |v| (0.0..1.0).contains(&v);
}

/// Whole numbers with a least value.
macro_rules! whole_numbers {
    ($($(#[doc = $doc:literal])* $name:ident: $words:literal, $least:literal;)+) => {
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
                if !($least as f64..=9_007_199_254_740_992.0).contains(&v) {
                    reader.error(node.place, format!("{} is out of range: expected {}", text_of(node), $words), None);
                    return None;
                }
                Some(v as usize)
            }
            fn shape() -> Shape {
                Shape::Leaf { json: "integer", words: $words, least: Some($least as f64), greatest: None }
            }
            fn canonical(out: &usize) -> Json {
                json!(out)
            }
        })+
    };
}

whole_numbers! {
    /// 1 or more.
    Count: "a whole number, 1 or more", 1;
    /// 0 or more.
    Whole: "a whole number, 0 or more", 0;
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
        let allowed = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        let reserved = ["con", "prn", "aux", "nul"].contains(&text.to_lowercase().as_str())
            || text.len() == 4 && ["com", "lpt"].contains(&text[..3].to_lowercase().as_str());
        if text.is_empty() || text.len() > 100 || text.starts_with('-') || !allowed || reserved {
            let help = "letters, digits, - and _, at most 100, not starting with - and not a reserved device name";
            reader.error(node.place, format!("\"{text}\" cannot be a name"), help.to_owned());
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

/// A list of one kind.
#[derive(Debug)]
pub struct ListOf<K>(std::marker::PhantomData<K>);

impl<K: Kind> Kind for ListOf<K> {
    type Out = Vec<K::Out>;
    fn read(node: &Node, reader: &mut Reader) -> Option<Vec<K::Out>> {
        let Value::List(items) = &node.value else { return reader.expected(node, "a list", None) };
        // All items are read before any is given up, so that each error shows.
        let read: Vec<Option<K::Out>> = items.iter().map(|item| K::read(item, reader)).collect();
        read.into_iter().collect()
    }
    fn shape() -> Shape {
        Shape::List(Box::new(K::shape()))
    }
    fn canonical(out: &Vec<K::Out>) -> Json {
        Json::Array(out.iter().map(K::canonical).collect())
    }
}

/// One item, or a list of them.
#[derive(Debug)]
pub struct OneOrMore<K>(std::marker::PhantomData<K>);

impl<K: Kind> Kind for OneOrMore<K> {
    type Out = Vec<K::Out>;
    fn read(node: &Node, reader: &mut Reader) -> Option<Vec<K::Out>> {
        match &node.value {
            Value::List(items) if items.is_empty() => {
                reader.error(node.place, "at least one is needed", None);
                None
            }
            Value::List(_) => ListOf::<K>::read(node, reader),
            _ => Some(vec![K::read(node, reader)?]),
        }
    }
    fn shape() -> Shape {
        Shape::Choice(Choice {
            doc: "one, or a list",
            bare: vec![K::shape(), Shape::List(Box::new(K::shape()))],
            options: vec![],
            later: &[],
        })
    }
    fn canonical(out: &Vec<K::Out>) -> Json {
        ListOf::<K>::canonical(out)
    }
}

/// [low, high] with low < high.
#[derive(Debug)]
pub struct Interval;

impl Kind for Interval {
    type Out = [f64; 2];
    fn read(node: &Node, reader: &mut Reader) -> Option<[f64; 2]> {
        let numbers = ListOf::<Number>::read(node, reader)?;
        match numbers[..] {
            [low, high] if low < high => Some([low, high]),
            [low, high] => {
                reader.error(node.place, format!("[{low}, {high}]: the first must be below the second"), None);
                None
            }
            _ => reader.expected(node, "two numbers [low, high]", None),
        }
    }
    fn shape() -> Shape {
        Shape::Pair(Box::new(Number::shape()))
    }
    fn canonical(out: &[f64; 2]) -> Json {
        json!(out)
    }
}

/// A value that may be left out.
#[derive(Debug)]
pub struct Maybe<K>(std::marker::PhantomData<K>);

impl<K: Kind> Kind for Maybe<K> {
    type Out = Option<K::Out>;
    fn read(node: &Node, reader: &mut Reader) -> Option<Option<K::Out>> {
        match &node.value {
            Value::Null => Some(None),
            Value::Scalar { text, quoted: false } if text == "none" => Some(None),
            _ => K::read(node, reader).map(Some),
        }
    }
    fn shape() -> Shape {
        Shape::Maybe(Box::new(K::shape()))
    }
    fn canonical(out: &Option<K::Out>) -> Json {
        out.as_ref().map_or(Json::Null, K::canonical)
    }
}

/// The node of a default as [`Field::default`] writes it: a scalar, `none`, `{}` or `[]`.
pub fn default_node(text: &str, place: Place) -> Node {
    match text {
        "{}" => Node { place, value: Value::Map(vec![]) },
        "[]" => Node { place, value: Value::List(vec![]) },
        "none" => Node { place, value: Value::Null },
        scalar => Node::plain(place, scalar),
    }
}

/// The entries of a mapping; duplicate and unknown keys are noted.
pub fn entries<'a>(
    node: &'a Node,
    what: &str,
    allowed: &[&str],
    later: &[&str],
    reader: &mut Reader,
) -> Option<&'a [(super::node::Key, Node)]> {
    let Value::Map(entries) = &node.value else { return reader.expected(node, &format!("a mapping ({what})"), None) };
    for (n, (key, _)) in entries.iter().enumerate() {
        if let Some((first, _)) = entries[..n].iter().find(|(k, _)| k.text == key.text) {
            let message = format!("`{}` is given twice, first on line {}", key.text, first.place.line);
            reader.error(key.place, message, Some("keep one".to_owned()));
        } else if later.contains(&key.text.as_str()) {
            let message = format!("`{}` is part of the language but not built yet", key.text);
            reader.error(key.place, message, Some("leave it out".to_owned()));
        } else if !allowed.contains(&key.text.as_str()) {
            unknown(key, what, allowed, reader);
        }
    }
    Some(entries)
}

fn unknown(key: &super::node::Key, what: &str, allowed: &[&str], reader: &mut Reader) {
    if key.text == "<<" {
        let help = "copy the keys you want";
        reader.error(key.place, "merge keys `<<` are not supported", Some(help.to_owned()));
        return;
    }
    let keys = format!("keys of {what}: {}", allowed.join(", "));
    let help = match nearest(&key.text, allowed.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? {keys}"),
        None => match super::explain::home_of(&key.text).filter(|home| *home != what) {
            Some(home) => format!("`{}` belongs under `{home}`; {keys}", key.text),
            None => keys,
        },
    };
    reader.error(key.place, format!("unknown key `{}` in {what}", key.text), Some(help));
}

/// A mapping with named fields. Each field is `name: Type as Kind = "default"` or `= required "example"`; a key that cannot
/// be a Rust name follows the field's name in brackets.
macro_rules! record {
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident as $what:literal {
            $($(#[doc = $field_doc:literal])* $field:ident $(($key:literal))?: $type:ty as $kind:ty = $($default:literal)? $(required $example:literal)?,)+
        }
        $(later [$($later:literal),* $(,)?])?
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[doc = $field_doc])* pub $field: $type,)+
        }
        impl $crate::spec::kind::Kind for $name {
            type Out = $name;
            fn read(node: &$crate::spec::node::Node, reader: &mut $crate::spec::kind::Reader) -> Option<$name> {
                let allowed = [$($crate::spec::kind::record!(@key $field $($key)?)),+];
                let later: &[&str] = &[$($($later),*)?];
                $crate::spec::kind::entries(node, $what, &allowed, later, reader)?;
                // Every field is read before any is given up, so that each error shows.
                $(let $field = $crate::spec::kind::record!(@field node, reader, ($field $($key)?), $what, $kind, $($default)? $(required $example)?);)+
                Some($name { $($field: $field?,)+ })
            }
            fn shape() -> $crate::spec::kind::Shape {
                $crate::spec::kind::Shape::Record($crate::spec::kind::Record {
                    doc: concat!($($doc),*),
                    fields: vec![$($crate::spec::kind::Field {
                        name: $crate::spec::kind::record!(@key $field $($key)?),
                        doc: concat!($($field_doc),*),
                        default: $crate::spec::kind::record!(@default $($default)? $(required $example)?),
                        example: $crate::spec::kind::record!(@example $($default)? $(required $example)?),
                        shape: <$kind as $crate::spec::kind::Kind>::shape,
                    }),+],
                    later: &[$($($later),*)?],
                })
            }
            fn canonical(out: &$name) -> serde_json::Value {
                let mut map = serde_json::Map::new();
                $(map.insert($crate::spec::kind::record!(@key $field $($key)?).into(), <$kind as $crate::spec::kind::Kind>::canonical(&out.$field));)+
                serde_json::Value::Object(map)
            }
        }
    };
    (@key $field:ident $key:literal) => { $key };
    (@key $field:ident) => { stringify!($field) };
    (@field $node:ident, $reader:ident, ($($name:tt)+), $what:literal, $kind:ty, required $example:literal) => {
        match $node.get($crate::spec::kind::record!(@key $($name)+)) {
            Some(value) => <$kind as $crate::spec::kind::Kind>::read(value, $reader),
            None => {
                let key = $crate::spec::kind::record!(@key $($name)+);
                let message = format!("{} needs `{key}`", $what);
                $reader.error($node.place, message, Some(format!("for example `{key}: {}`", $example)));
                None
            }
        }
    };
    (@field $node:ident, $reader:ident, ($($name:tt)+), $what:literal, $kind:ty, $default:literal) => {
        match $node.get($crate::spec::kind::record!(@key $($name)+)) {
            Some(value) => <$kind as $crate::spec::kind::Kind>::read(value, $reader),
            None => <$kind as $crate::spec::kind::Kind>::read(&$crate::spec::kind::default_node($default, $node.place), $reader),
        }
    };
    (@default required $example:literal) => { None };
    (@default $default:literal) => { Some($default) };
    (@example required $example:literal) => { $example };
    (@example $default:literal) => { $default };
}
pub(crate) use record;

/// One of several, written as the one key that names it: `{log: [..]}`, or as a bare name, number or list where allowed
/// (in square brackets, before the keys).
macro_rules! choice {
    (
        $(#[doc = $doc:literal])*
        pub enum $name:ident as $what:literal {
            $([number => $number:ident($number_type:ty as $number_kind:ty)])?
            $([list => $list:ident($list_type:ty as $list_kind:ty)])?
            $($(#[doc = $key_doc:literal])* $key:ident => $variant:ident $(($type:ty as $kind:ty))?,)+
        }
        $(later [$($later:literal),* $(,)?])?
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub enum $name {
            $(#[doc = "A bare number."] $number($number_type),)?
            $(#[doc = "A bare list."] $list($list_type),)?
            $($(#[doc = $key_doc])* $variant $(($type))?,)+
        }
        impl $name {
            /// The key it is written as.
            #[allow(unreachable_patterns, dead_code)] // reason: some choices have neither bare form nor a caller
            pub fn key(&self) -> &'static str {
                match self {
                    $($crate::spec::kind::choice!(@pattern $variant $(($type))?) => stringify!($key),)+
                    _ => "",
                }
            }
        }
        impl $crate::spec::kind::Kind for $name {
            type Out = $name;
            fn read(node: &$crate::spec::node::Node, reader: &mut $crate::spec::kind::Reader) -> Option<$name> {
                use $crate::spec::node::{Node, Value};
                let allowed = [$(stringify!($key)),+];
                let later: &[&str] = &[$($($later),*)?];
                $(if let Value::List(_) = &node.value {
                    return <$list_kind as $crate::spec::kind::Kind>::read(node, reader).map($name::$list);
                })?
                $(if let Value::Scalar { text, .. } = &node.value {
                    if !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
                        return <$number_kind as $crate::spec::kind::Kind>::read(node, reader).map($name::$number);
                    }
                })?
                let empty = Node { place: node.place, value: Value::Map(vec![]) };
                let (word, value) = $crate::spec::kind::one_key(node, &empty, $what, &allowed, later, reader)?;
                match word {
                    $(stringify!($key) => $crate::spec::kind::choice!(@read $name, $variant, value, reader $(, $kind)?),)+
                    _ => None,
                }
            }
            fn shape() -> $crate::spec::kind::Shape {
                $crate::spec::kind::Shape::Choice($crate::spec::kind::Choice {
                    doc: concat!($($doc),*),
                    bare: vec![
                        $(<$number_kind as $crate::spec::kind::Kind>::shape(),)?
                        $(<$list_kind as $crate::spec::kind::Kind>::shape(),)?
                    ],
                    options: vec![$($crate::spec::kind::Alternative {
                        name: stringify!($key),
                        doc: concat!($($key_doc),*),
                        shape: $crate::spec::kind::choice!(@shape $($kind)?),
                    }),+],
                    later: &[$($($later),*)?],
                })
            }
            fn canonical(out: &$name) -> serde_json::Value {
                match out {
                    $($name::$number(v) => <$number_kind as $crate::spec::kind::Kind>::canonical(v),)?
                    $($name::$list(v) => <$list_kind as $crate::spec::kind::Kind>::canonical(v),)?
                    $($crate::spec::kind::choice!(@bind $name, $variant, v $(, $type)?) =>
                        $crate::spec::kind::choice!(@canonical $key, v $(, $kind)?),)+
                }
            }
        }
    };
    (@pattern $variant:ident ($type:ty)) => { Self::$variant(_) };
    (@pattern $variant:ident) => { Self::$variant };
    (@read $name:ident, $variant:ident, $value:ident, $reader:ident, $kind:ty) => {
        <$kind as $crate::spec::kind::Kind>::read($value, $reader).map($name::$variant)
    };
    (@read $name:ident, $variant:ident, $value:ident, $reader:ident) => {
        $crate::spec::kind::nothing_more($value, $reader).map(|()| $name::$variant)
    };
    (@shape $kind:ty) => { Some(<$kind as $crate::spec::kind::Kind>::shape as fn() -> $crate::spec::kind::Shape) };
    (@shape) => { None };
    (@bind $name:ident, $variant:ident, $v:ident, $type:ty) => { $name::$variant($v) };
    (@bind $name:ident, $variant:ident, $v:ident) => { $name::$variant };
    (@canonical $key:ident, $v:ident, $kind:ty) => {
        serde_json::json!({ stringify!($key): <$kind as $crate::spec::kind::Kind>::canonical($v) })
    };
    (@canonical $key:ident, $v:ident) => { serde_json::json!(stringify!($key)) };
}
pub(crate) use choice;

/// The single key of a choice and its value; a bare word is the key of an empty mapping.
pub fn one_key<'a>(
    node: &'a Node,
    empty: &'a Node,
    what: &str,
    allowed: &[&'static str],
    later: &[&str],
    reader: &mut Reader,
) -> Option<(&'static str, &'a Node)> {
    let (word, place, value) = match &node.value {
        Value::Scalar { text, .. } => (text.as_str(), node.place, empty),
        Value::Null if allowed.contains(&"none") => ("none", node.place, empty),
        Value::Map(entries) => match &entries[..] {
            [(key, value)] => (key.text.as_str(), key.place, value),
            _ => {
                let place = entries.get(1).map_or(node.place, |(key, _)| key.place);
                let message = format!("{what} is one key, this has {}", entries.len());
                reader.error(place, message, Some(format!("one of: {}", allowed.join(", "))));
                return None;
            }
        },
        _ => return reader.expected(node, &format!("{what}: one of {}", allowed.join(", ")), None),
    };
    if let Some(known) = allowed.iter().find(|a| **a == word) {
        return Some((known, value));
    }
    if later.contains(&word) {
        let message = format!("{what} `{word}` is part of the language but not built yet");
        reader.error(place, message, Some(format!("one of: {}", allowed.join(", "))));
        return None;
    }
    let list = format!("one of: {}", allowed.join(", "));
    let help = match nearest(word, allowed.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? {list}"),
        None => list,
    };
    reader.error(place, format!("unknown {what} `{word}`"), Some(help));
    None
}

/// For a choice that is its name alone.
pub fn nothing_more(node: &Node, reader: &mut Reader) -> Option<()> {
    match &node.value {
        Value::Null => Some(()),
        Value::Map(entries) if entries.is_empty() => Some(()),
        _ => reader.expected(node, "nothing more: this choice has no settings", None),
    }
}
