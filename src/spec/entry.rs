//! Entries, the form of `sae` and `baselines`.

use serde_json::Value as Json;

use super::diagnostic::nearest;
use super::kind::{Choice, Kind, Name, Reader, Shape, entries};
use super::node::{Node, Value};

/// One entry of `sae` or `baselines`: a kind with its settings, a name, and settings of its own for training.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry<C> {
    /// What rows call it (`method`); defaults to the kind.
    pub name: String,
    pub kind: C,
    /// Keys that override `sae_train`, as written.
    pub train: Option<Node>,
}

/// Reads an [`Entry`].
#[derive(Debug)]
pub struct EntryOf<C>(std::marker::PhantomData<C>);

/// The name of an entry as written, before it is read: `name`, or its kind's key.
pub fn entry_name(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar { text, .. } => Some(text),
        Value::Map(keys) => match node.get("name") {
            Some(Node { value: Value::Scalar { text, .. }, .. }) => Some(text),
            _ => keys.iter().map(|(key, _)| key.text.as_str()).find(|key| *key != "name" && *key != "train"),
        },
        _ => None,
    }
}

/// The key of an entry's kind.
pub fn entry_kind(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar { text, .. } => Some(text),
        Value::Map(keys) => keys.iter().map(|(key, _)| key.text.as_str()).find(|key| *key != "name" && *key != "train"),
        _ => None,
    }
}

/// A kind that an entry may be of.
pub trait EntryKind: Kind<Out = Self> + Sized {
    /// Whether entries take training settings of their own.
    const TRAINED: bool;
}

impl<C: EntryKind> Kind for EntryOf<C> {
    type Out = Entry<C>;
    fn read(node: &Node, reader: &mut Reader) -> Option<Entry<C>> {
        let Value::Map(keys) = &node.value else {
            let kind = C::read(node, reader)?;
            return Some(Entry { name: entry_name(node)?.to_owned(), kind, train: None });
        };
        let name = node.get("name").map(|n| Name::read(n, reader));
        let train = node.get("train").cloned();
        if let (Some(train), false) = (&train, C::TRAINED) {
            reader.error(train.place, "a baseline is not trained", Some("leave `train` out".to_owned()));
        }
        let rest: Vec<_> = keys.iter().filter(|(key, _)| key.text != "name" && key.text != "train").cloned().collect();
        let kind = match &rest[..] {
            [] => {
                let example = "for example `relu: {n_latents: 64, l1: 0.05}`".to_owned();
                reader.error(node.place, "this entry names no kind", Some(example));
                None
            }
            // A second key next to a known kind is most likely a setting that slipped out of it.
            [(first, _), (second, _), ..] if first.text != second.text => {
                let known: Vec<&str> = ["name", "train"].into_iter().chain(names(&C::shape())).collect();
                let help = match nearest(&second.text, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("settings of `{}` stand in its own braces", first.text),
                };
                reader.error(second.place, format!("`{}` beside `{}`", second.text, first.text), Some(help));
                None
            }
            _ => C::read(&Node { place: node.place, value: Value::Map(rest.clone()) }, reader),
        };
        let name = match name {
            Some(name) => name?,
            None => rest.first()?.0.text.clone(),
        };
        Some(Entry { name, kind: kind?, train })
    }
    fn shape() -> Shape {
        Shape::Entry { kinds: Box::new(C::shape()), trained: C::TRAINED }
    }
    fn canonical(out: &Entry<C>) -> Json {
        // The name is a label: it changes no number.
        C::canonical(&out.kind)
    }
}

fn names(shape: &Shape) -> Vec<&'static str> {
    match shape {
        Shape::Choice(Choice { options, .. }) => options.iter().map(|o| o.name).collect(),
        _ => vec![],
    }
}

/// `sae_train` with an entry's own keys over it.
pub fn train_node(sae_train: Option<&Node>, own: Option<&Node>, reader: &mut Reader) -> Node {
    let empty = Node { place: own.or(sae_train).map_or_else(Default::default, |n| n.place), value: Value::Map(vec![]) };
    let mut merged = sae_train.cloned().unwrap_or_else(|| empty.clone());
    if let Some(own) = own {
        // Keys are checked against the section's own when the merged mapping is read; here only the form matters.
        let keys: Vec<&str> = match &own.value {
            Value::Map(keys) => keys.iter().map(|(key, _)| key.text.as_str()).collect(),
            _ => vec![],
        };
        if let Some(own) = entries(own, "train", &keys, reader) {
            for (key, value) in own {
                merged.put(&[&key.text], value.clone());
            }
        }
    }
    merged
}
