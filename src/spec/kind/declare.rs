//! `record!` and `choice!`: a section is declared once, and read, described and written from that.

use std::collections::HashMap;

use super::Reader;
use crate::spec::diagnostic::{Place, nearest};
use crate::spec::node::{Key, Node, Value};

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
pub fn entries<'a>(node: &'a Node, what: &str, allowed: &[&str], reader: &mut Reader) -> Option<&'a [(Key, Node)]> {
    let Value::Map(entries) = &node.value else { return reader.expected(node, &format!("a mapping ({what})"), None) };
    let mut seen: HashMap<&str, Place> = HashMap::with_capacity(entries.len());
    for (key, _) in entries {
        if let Some(first) = seen.get(key.text.as_str()) {
            let message = format!("`{}` is given twice, first on line {}", key.text, first.line);
            reader.error(key.place, message, Some("keep one".to_owned()));
        } else if !allowed.contains(&key.text.as_str()) {
            unknown(key, what, allowed, reader);
        }
        seen.entry(&key.text).or_insert(key.place);
    }
    Some(entries)
}

/// Errors before help is no longer looked for: few are shown, and near words take time to find.
const HELPED: usize = 1_000;

fn unknown(key: &Key, what: &str, allowed: &[&str], reader: &mut Reader) {
    if key.text == "<<" {
        let help = "copy the keys you want";
        reader.error(key.place, "merge keys `<<` are not supported", Some(help.to_owned()));
        return;
    }
    if reader.diagnostics.len() >= HELPED {
        return reader.error(key.place, format!("unknown key `{}` in {what}", key.text), None);
    }
    let keys = format!("keys of {what}: {}", allowed.join(", "));
    let help = match nearest(&key.text, allowed.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? {keys}"),
        None => match crate::spec::explain::home_of(&key.text, what) {
            Some(home) => format!("`{}` belongs {home}; {keys}", key.text),
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
                $crate::spec::kind::entries(node, $what, &allowed, reader)?;
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
                $(if let Value::List(_) = &node.value {
                    return <$list_kind as $crate::spec::kind::Kind>::read(node, reader).map($name::$list);
                })?
                $(if let Value::Scalar { text, .. } = &node.value {
                    if !text.starts_with(|c: char| c.is_ascii_alphabetic()) {
                        return <$number_kind as $crate::spec::kind::Kind>::read(node, reader).map($name::$number);
                    }
                })?
                let empty = Node { place: node.place, value: Value::Map(vec![]) };
                let (word, value) = $crate::spec::kind::one_key(node, &empty, $what, &allowed, reader)?;
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
