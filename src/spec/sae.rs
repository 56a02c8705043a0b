//! The `sae` and `sae_train` sections: what is trained on the hidden states; and entries, the form of `sae` and `baselines`.

use serde_json::Value as Json;

use super::diagnostic::nearest;
use super::kind::{
    Choice, Count, Kind, Maybe, Name, NonNegative, Positive, Reader, Samples, Shape, Share, Steps, Whole,
};
use super::kind::{Width, entries};
use super::kind::{choice, record};
use super::node::{Node, Value};
use super::toy::{OptimizerSection, ScheduleSection};

choice! {
    /// Architecture of a sparse autoencoder.
    pub enum SaeKind as "sae kind" {
        /// Latents ReLU(pre) with an L1 penalty.
        relu => Relu(ReluSection as ReluSection),
        /// The k greatest pre-activations of a sample, then ReLU.
        topk => TopK(TopKSection as TopKSection),
    }
    later ["batch_topk", "gated", "jumprelu", "matryoshka", "matching_pursuit"]
}

record! {
    /// ReLU latents with an L1 penalty (Bricken et al. 2023; Templeton et al. 2024).
    pub struct ReluSection as "relu" {
        /// Width of the dictionary.
        n_latents: usize as Width = required "64",
        /// Weight of the L1 penalty on the summed squared error.
        l1: f64 as NonNegative = required "0.05",
        /// Rule for the decoder's rows.
        decoder: DecoderSection as DecoderSection = "unit_norm",
    }
    later ["tied", "aux_k", "resample", "target_l0", "init"]
}

choice! {
    /// Rule for the decoder's rows.
    pub enum DecoderSection as "decoder" {
        /// Unit rows; the gradient along each row is projected out.
        unit_norm => UnitNorm,
        /// Free rows; each latent's penalty is weighed by its row's norm.
        norm_penalty => NormPenalty,
    }
}

record! {
    /// TopK latents (Gao et al. 2024).
    pub struct TopKSection as "topk" {
        /// Width of the dictionary.
        n_latents: usize as Width = required "64",
        /// Active latents per sample, at most.
        k: usize as Count = required "2",
        /// Dead latents that reconstruct the residual, at most; none: half of d_hidden; 0: no auxiliary loss.
        aux_k: Option<usize> as Maybe<Whole> = "none",
    }
    later ["tied", "resample", "target_l0", "init"]
}

impl SaeKind {
    pub fn n_latents(&self) -> usize {
        match self {
            SaeKind::Relu(s) => s.n_latents,
            SaeKind::TopK(s) => s.n_latents,
        }
    }
}

record! {
    /// Training of every sparse autoencoder; an entry's own `train` overrides it key by key.
    pub struct SaeTrainSection as "sae_train" {
        /// Optimiser steps.
        steps: usize as Steps = "10000",
        /// Fresh hidden states per step.
        batch_size: usize as Samples = "1024",
        /// Optimiser.
        optimizer: OptimizerSection as OptimizerSection = "adam",
        /// Learning rate at its peak.
        lr: f64 as Positive = "3e-4",
        /// Course of the learning rate.
        schedule: ScheduleSection as ScheduleSection = "constant",
        /// Share of the steps over which the learning rate rises.
        warmup: f64 as Share = "0",
        /// Share of the steps over which it falls to 0 at the end.
        decay: f64 as Share = "0.2",
        /// Greatest norm of the whole gradient; none: not clipped.
        clip: Option<f64> as Maybe<Positive> = "1.0",
        /// Weight decay.
        weight_decay: f64 as NonNegative = "0",
        /// Scale of the inputs.
        normalise: NormaliseSection as NormaliseSection = "none",
        /// A latent that has not fired for more than this many steps is dead.
        dead_after: usize as Count = "1000",
    }
}

choice! {
    /// Scale of the inputs while training; folded into the weights at the end.
    pub enum NormaliseSection as "normalise" {
        /// As they are.
        none => None,
        /// Times sqrt(d_hidden) over their mean norm.
        mean_norm => MeanNorm,
    }
}

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

impl EntryKind for SaeKind {
    const TRAINED: bool = true;
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
        if let Some(own) = entries(own, "train", &keys, &[], reader) {
            for (key, value) in own {
                merged.put(&[&key.text], value.clone());
            }
        }
    }
    merged
}
