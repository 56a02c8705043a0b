//! What a value may be: one [`Kind`] for each sort of value, which reads it, describes it and writes it canonically.
//!
//! The readers, `tegum explain` and `tegum schema` all come from here, so they cannot disagree. A reader that finds
//! something wrong notes it with its place and goes on, so that one run shows every error of a file.

use std::collections::HashSet;

use serde_json::Value as Json;

use super::diagnostic::{Diagnostic, Place};
use super::node::Node;

mod declare;
mod list;
mod scalar;

pub(crate) use declare::{choice, record};
pub use declare::{default_node, entries, nothing_more, one_key};
pub use list::{Interval, ListOf, Maybe, OneOrMore};
pub(crate) use scalar::number;
pub use scalar::{
    Beta, Count, Features, Flag, NAME_RULE, Name, NonNegative, Number, Positive, Samples, Share, Steps, Text, Whole,
    Width, is_name,
};

/// Collects what is wrong while a tree is read.
#[derive(Debug, Default)]
pub struct Reader {
    pub diagnostics: Vec<Diagnostic>,
    /// What is in `diagnostics`.
    seen: HashSet<Diagnostic>,
    /// Settings that may come to nothing.
    pub uses: Uses,
}

/// Settings whose effect hangs on others. An axis may give a setting what it needs in some cells, and `sae_train` is read by
/// entries of which only some may use all of it: what comes to nothing in one cell is not wrong, what comes to nothing in all is.
#[derive(Debug, Default)]
pub struct Uses {
    used: HashSet<Place>,
    idle: HashSet<Diagnostic>,
}

impl Uses {
    /// Notes that what is written at a place is used, or comes to nothing.
    pub fn note(&mut self, place: Place, used: bool, message: impl Into<String>, help: impl Into<String>) {
        if used {
            self.used.insert(place);
        } else {
            self.idle.insert(Diagnostic { place, message: message.into(), help: Some(help.into()) });
        }
    }

    pub fn is_empty(&self) -> bool {
        self.used.is_empty() && self.idle.is_empty()
    }

    /// Adds what was noted elsewhere.
    pub fn join(&mut self, other: Uses) {
        self.used.extend(other.used);
        self.idle.extend(other.idle);
    }

    /// Complaints about what nothing uses, in source order.
    pub fn complaints(self) -> Vec<Diagnostic> {
        let Uses { used, idle } = self;
        let mut idle: Vec<Diagnostic> = idle.into_iter().filter(|complaint| !used.contains(&complaint.place)).collect();
        // A place may have one for each of several reasons; the first says enough.
        idle.sort_by(|a, b| (a.place, &a.message).cmp(&(b.place, &b.message)));
        idle.dedup_by_key(|complaint| complaint.place);
        idle
    }
}

impl Reader {
    pub fn error(&mut self, place: Place, message: impl Into<String>, help: impl Into<Option<String>>) {
        let diagnostic = Diagnostic { place, message: message.into(), help: help.into() };
        // The same value is read again for every cell that holds it: one complaint is enough.
        if self.seen.insert(diagnostic.clone()) {
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
    /// An entry of `sae` or `baselines`: one of the kinds, with a name and, where it is trained, settings for that.
    Entry {
        kinds: Box<Shape>,
        trained: bool,
    },
    /// A shape that holds itself, looked into only where somebody asks for what is below.
    Again {
        words: &'static str,
        shape: fn() -> Shape,
    },
    /// Anything: a part that another reader takes apart.
    Any {
        words: &'static str,
    },
}

#[derive(Clone, Debug)]
pub struct Record {
    pub doc: &'static str,
    pub fields: Vec<Field>,
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
}

#[derive(Clone, Debug)]
pub struct Alternative {
    pub name: &'static str,
    pub doc: &'static str,
    /// None: the name alone says it all.
    pub shape: Option<fn() -> Shape>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_is_used_anywhere_is_not_complained_of() {
        let at = |line| Place { line, column: 1, length: 1 };
        let (mut one, mut other) = (Uses::default(), Uses::default());
        one.note(at(3), false, "b", "h");
        one.note(at(1), false, "a", "h");
        one.note(at(2), false, "c", "h");
        other.note(at(2), true, "c", "h");
        other.note(at(3), false, "a", "h");
        one.join(other);
        let told: Vec<(u32, String)> = one.complaints().into_iter().map(|c| (c.place.line, c.message)).collect();
        assert_eq!(told, [(1, "a".to_owned()), (3, "a".to_owned())]);
    }
}
