//! A YAML document as a tree in which every key and value knows its place.
//!
//! `serde_yaml` parses, within budgets against alias bombs and deep nesting; this module only keeps what it says, with
//! the source text of every scalar, so that `1.10` stays a version and `0x10` can be refused by the reader.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::Spanned;

use super::diagnostic::{Diagnostic, Place, SpecError};
use super::surface;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub place: Place,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Scalar {
        /// As the reader of the file sees it: source text of a plain scalar, content of a quoted one.
        text: String,
        quoted: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    pub place: Place,
    pub text: String,
}

impl Node {
    pub fn plain(place: Place, text: impl Into<String>) -> Node {
        Node { place, value: Value::Scalar { text: text.into(), quoted: false } }
    }

    /// The value of a key; of a list the entry of that number, from 0.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(k, _)| k.text == key).map(|(_, node)| node),
            Value::List(items) => key.parse::<usize>().ok().and_then(|index| items.get(index)),
            _ => None,
        }
    }

    /// The node at a dotted path of keys, if it is there.
    pub fn at<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Option<&Node> {
        path.into_iter().try_fold(self, |node, key| node.get(key))
    }

    /// Puts `node` at a path below this one, making mappings of whatever stands in the way but entries of lists.
    pub fn put(&mut self, path: &[&str], node: Node) {
        let Some((key, rest)) = path.split_first() else {
            *self = node;
            return;
        };
        if let Value::List(items) = &mut self.value
            && let Some(item) = key.parse::<usize>().ok().and_then(|index| items.get_mut(index))
        {
            item.put(rest, node);
            return;
        }
        if !matches!(self.value, Value::Map(_)) {
            self.value = Value::Map(Vec::new());
        }
        let Value::Map(entries) = &mut self.value else { return };
        let at = entries.iter().position(|(k, _)| k.text == *key).unwrap_or_else(|| {
            let key = Key { place: node.place, text: (*key).to_owned() };
            entries.push((key, Node { place: node.place, value: Value::Null }));
            entries.len() - 1
        });
        entries[at].1.put(rest, node);
    }

    /// Whether a value stands here, and not `none`.
    pub fn is_given(&self) -> bool {
        match &self.value {
            Value::Null => false,
            Value::Scalar { text, quoted } => *quoted || text != "none",
            _ => true,
        }
    }

    /// What kind of thing this is, for messages.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Scalar { text, quoted: false } if text.parse::<f64>().is_ok() => format!("the number {text}"),
            Value::Scalar { text, .. } => format!("the text \"{}\"", shorten(text)),
            Value::List(items) => format!("a list of {}", items.len()),
            Value::Map(_) => "a mapping".into(),
        }
    }
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= 40 {
        return text.to_owned();
    }
    format!("{}...", text.chars().take(37).collect::<String>())
}

/// Depth of nesting, nodes after aliases are expanded, and bytes of scalars that a file may reach.
pub(super) const DEPTH: usize = 64;
pub(super) const NODES: usize = 250_000;
pub(super) const BYTES: usize = 16 << 20;

/// Parses one document.
pub fn parse(file: &str, source: &str) -> Result<Node, SpecError> {
    let fail = |place, message: String, help: Option<&str>| SpecError {
        file: file.to_owned(),
        source: source.to_owned(),
        diagnostics: vec![Diagnostic { place, message, help: help.map(str::to_owned) }],
    };
    if let Some((place, c)) = first_control(source) {
        let help = "remove it; text may hold any printable character";
        return Err(fail(place, format!("control character {}", c.escape_default()), Some(help)));
    }
    if let Some(place) = tab_indentation(source) {
        return Err(fail(place, "a tab in the indentation".into(), Some("use spaces")));
    }
    let options = serde_yaml::options! {
        budget: serde_yaml::budget! { max_depth: DEPTH, flow_nesting_limit: DEPTH, max_nodes: NODES, max_total_scalar_bytes: BYTES },
        duplicate_keys: serde_yaml::DuplicateKeyPolicy::PassThrough,
        merge_keys: serde_yaml::MergeKeyPolicy::AsOrdinary,
        non_finite_float_policy: serde_yaml::options::NonFiniteFloatPolicy::PassThrough,
        strict_booleans: true,
        with_snippet: false,
    };
    let parsed: Result<Spanned<Raw>, _> = serde_yaml::from_str_with_options(source, options);
    match parsed {
        Ok(root) => {
            if let Some(place) = first_tag(source) {
                return Err(fail(place, "tags are not supported".into(), Some("write the plain value")));
            }
            let place = place_of(&root.referenced, &root.value);
            Ok(root.value.into_node(place, source))
        }
        Err(error) => {
            let place = error.location().map(|l| Place { line: l.line() as u32, column: l.column() as u32, length: 1 });
            let said = surface::friendly(&error.without_snippet().to_string(), source, place);
            Err(fail(said.place.or(place).unwrap_or(Place::START), said.message, said.help.as_deref()))
        }
    }
}

fn first_control(source: &str) -> Option<(Place, char)> {
    for (n, line) in source.split('\n').enumerate() {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let bad = |c: char| c.is_control() && c != '\t';
        if let Some((column, c)) = line.chars().enumerate().find(|(_, c)| bad(*c)) {
            return Some((Place { line: n as u32 + 1, column: column as u32 + 1, length: 1 }, c));
        }
    }
    None
}

fn tab_indentation(source: &str) -> Option<Place> {
    source.lines().enumerate().find_map(|(n, line)| {
        let indent = &line[..line.len() - line.trim_start().len()];
        let at = indent.chars().position(|c| c == '\t')?;
        (!line.trim().is_empty()).then_some(Place { line: n as u32 + 1, column: at as u32 + 1, length: 1 })
    })
}

/// A node as the parser gives it, before scalars get their source text.
enum Raw {
    Null,
    Scalar(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_bool<E>(self, v: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(v.to_string()))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Raw, E> {
        Ok(Raw::Scalar(v.to_string()))
    }
    fn visit_u64<E>(self, v: u64) -> Result<Raw, E> {
        Ok(Raw::Scalar(v.to_string()))
    }
    fn visit_i128<E>(self, v: i128) -> Result<Raw, E> {
        Ok(Raw::Scalar(v.to_string()))
    }
    fn visit_u128<E>(self, v: u128) -> Result<Raw, E> {
        Ok(Raw::Scalar(v.to_string()))
    }
    fn visit_f64<E>(self, v: f64) -> Result<Raw, E> {
        Ok(Raw::Scalar(v.to_string()))
    }
    fn visit_str<E>(self, v: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(v.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}

fn place_of(location: &serde_yaml::Location, raw: &Raw) -> Place {
    let length = match raw {
        Raw::Scalar(_) => location.span().len() as u32,
        _ => 1,
    };
    Place { line: location.line() as u32, column: location.column() as u32, length }
}

/// Source text under a scalar, if the parser gave byte offsets.
fn text_under<'a>(location: &serde_yaml::Location, source: &'a str) -> Option<&'a str> {
    let span = location.span();
    let (start, len) = (span.byte_offset()? as usize, span.byte_len()? as usize);
    source.get(start..start + len)
}

impl Raw {
    fn into_node(self, place: Place, source: &str) -> Node {
        let child = |s: Spanned<Raw>| {
            // A scalar behind an alias is read where it is defined and blamed where it is used.
            let text = match s.value {
                Raw::Scalar(_) => text_under(&s.defined, source),
                _ => None,
            };
            let place = place_of(&s.referenced, &s.value);
            match (s.value, text) {
                (Raw::Scalar(content), text) => Node { place, value: scalar(content, text) },
                (raw, _) => raw.into_node(place, source),
            }
        };
        let value = match self {
            Raw::Null => Value::Null,
            Raw::Scalar(content) => scalar(content, None),
            Raw::List(items) => Value::List(items.into_iter().map(child).collect()),
            Raw::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|(key, value)| {
                        let key = child(key);
                        let text = match key.value {
                            Value::Scalar { text, .. } => text,
                            Value::Null => "null".into(),
                            Value::List(_) | Value::Map(_) => "?".into(),
                        };
                        (Key { place: key.place, text }, child(value))
                    })
                    .collect(),
            ),
        };
        Node { place, value }
    }
}

/// Quoted and block scalars keep their content, plain ones their source text.
fn scalar(content: String, source: Option<&str>) -> Value {
    let source = source.unwrap_or(&content).trim();
    // A scalar over several lines is text whatever its style, folded by the parser.
    let quoted = source.starts_with(['"', '\'', '|', '>']) || source.contains('\n');
    let text = if quoted || source.is_empty() { content } else { source.to_owned() };
    Value::Scalar { text, quoted }
}

/// The first `!tag`, looked for in the source: the parser resolves tags without telling.
fn first_tag(source: &str) -> Option<Place> {
    // Indentation of the line that opened a block scalar, whose lines are text.
    let mut block: Option<usize> = None;
    for (n, line) in source.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        if block.is_some_and(|opened| line.trim().is_empty() || indent > opened) {
            continue;
        }
        let end = line.trim_end();
        let opens = [": >", ": |", ": >-", ": |-", "- >", "- |", "- >-", "- |-"].iter().any(|mark| end.ends_with(mark));
        block = opens.then_some(indent);
        let mut quote = None;
        let mut before = ' ';
        // A value may start after `:`, `-`, `[`, `{` or `,`, or where nothing stands before it.
        let mut last = None;
        for (column, c) in line.chars().enumerate() {
            match quote {
                Some(q) if c == q => quote = None,
                Some(_) => {}
                None if c == '#' && before == ' ' => break,
                None if (c == '"' || c == '\'') && " [{,:".contains(before) => quote = Some(c),
                None if c == '!' && " [{,".contains(before) && last.is_none_or(|last| ":-[{,".contains(last)) => {
                    return Some(Place { line: n as u32 + 1, column: column as u32 + 1, length: 1 });
                }
                None => {}
            }
            before = c;
            if !c.is_whitespace() {
                last = Some(c);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(source: &str) -> Node {
        parse("a.yaml", source).unwrap()
    }

    fn message(source: &str) -> String {
        parse("a.yaml", source).unwrap_err().to_string()
    }

    #[test]
    fn every_key_and_value_knows_its_place() {
        let node = root("a: 1\nb:\n  - {c: 0.50, d: \"no\"}\n");
        let c = node.get("b").map(|b| match &b.value {
            Value::List(items) => items[0].get("c").cloned(),
            _ => None,
        });
        let c = c.flatten().unwrap();
        assert_eq!((c.place.line, c.place.column, c.place.length), (3, 9, 4));
        assert_eq!(c.value, Value::Scalar { text: "0.50".into(), quoted: false });
    }

    #[test]
    fn scalars_keep_their_source_text_and_quotes() {
        let node = root("a: 1.10\nb: '8'\nc: no\nd: null\ne: >-\n  two\n  lines\nf: 1_000\ng: 0x10\nh: .nan\n");
        let scalar = |text: &str, quoted| Value::Scalar { text: text.into(), quoted };
        assert_eq!(node.get("a").unwrap().value, scalar("1.10", false));
        assert_eq!(node.get("b").unwrap().value, scalar("8", true));
        assert_eq!(node.get("c").unwrap().value, scalar("no", false));
        assert_eq!(node.get("d").unwrap().value, Value::Null);
        assert_eq!(node.get("e").unwrap().value, scalar("two lines", true));
        assert_eq!(node.get("f").unwrap().value, scalar("1_000", false));
        assert_eq!(node.get("g").unwrap().value, scalar("0x10", false));
        assert_eq!(node.get("h").unwrap().value, scalar(".nan", false));
    }

    #[test]
    fn an_alias_is_read_where_it_is_defined_and_blamed_where_it_is_used() {
        let node = root("a: &x 3\nb: *x\n");
        let b = node.get("b").unwrap();
        assert_eq!(b.value, Value::Scalar { text: "3".into(), quoted: false });
        assert_eq!(b.place.line, 2);
    }

    #[test]
    fn byte_order_mark_and_carriage_returns_are_accepted() {
        assert_eq!(root("\u{feff}a: 1\r\nb: 2\r\n").get("b").unwrap().value, root("b: 2\n").get("b").unwrap().value);
    }

    #[test]
    fn bombs_tabs_tags_and_second_documents_are_refused_with_their_place() {
        assert!(message(&"[".repeat(1_000_000)).contains("nesting deeper than 64"));
        let bomb: String = std::iter::once("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned())
            .chain((1..9).map(|i| format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(","))))
            .collect();
        assert!(message(&bomb).contains("aliases expand"), "{}", message(&bomb));
        assert!(message("a:\n\tb: 1\n").starts_with("a.yaml:2:1: a tab"));
        assert!(
            message("a: !!python/object x\n").starts_with("a.yaml:1:4: tags"),
            "{}",
            message("a: !!python/object x\n")
        );
        assert!(message("a: 1\n---\nb: 2\n").contains("second document"), "{}", message("a: 1\n---\nb: 2\n"));
        assert!(message("a: [1, 2\nb: 3\n").contains("a.yaml:"));
        assert!(message("a: *nowhere\n").contains("a.yaml:1:4"), "{}", message("a: *nowhere\n"));
    }

    #[test]
    fn put_makes_the_mappings_on_its_way() {
        let mut node = root("a: {b: 1}\n");
        node.put(&["a", "c", "d"], Node::plain(Place::default(), "2"));
        node.put(&["a", "b", "e"], Node::plain(Place::default(), "3"));
        assert!(node.at(["a", "c", "d"]).is_some() && node.at(["a", "b", "e"]).is_some());
    }
}
