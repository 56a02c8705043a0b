//! Lists, pairs and values that may be left out.

use serde_json::{Value as Json, json};

use super::{Choice, Kind, Number, Reader, Shape};
use crate::spec::node::{Node, Value};

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
