//! Checks of one part of a file with its values fixed: what a single value cannot know.

use super::baseline::{BaselineKind, EncoderSection, IcaSection, PcaSection, RandomEncoderSection, RandomSection};
use super::curve::Curve;
use super::data::{DataSection, GroupsSection, MagnitudeSection, VectorsSection};
use super::entry::Entry;
use super::kind::Reader;
use super::linked;
use super::node::{Node, Value};
use super::sae::SaeTrainSection;

pub use super::sae_check::{sae, sae_train_uses, sae_without_truth, truth_with_norm};
use super::toy::{ModelSection, ToySection};
use crate::data::dictionary::dimensions_at_cosine;

/// Least and greatest value of a curve over n features (bounds for random ones).
fn extremes(curve: &Curve, n: usize) -> (f64, f64) {
    let last = (n - 1) as f64;
    match curve {
        Curve::Constant(v) => (*v, *v),
        Curve::List(list) => {
            (list.iter().copied().fold(f64::MAX, f64::min), list.iter().copied().fold(f64::MIN, f64::max))
        }
        Curve::Geometric(r) => (libm::pow(*r, last).min(1.0), libm::pow(*r, last).max(1.0)),
        Curve::Zipf(z) => (z.min.min(z.max), z.max.max(z.min)),
        Curve::Linear(b) | Curve::Random(b) => (b.min.min(b.max), b.max.max(b.min)),
        Curve::Power(p) => (libm::pow(last + 1.0, -p.exponent), 1.0),
        Curve::Last(one) | Curve::First(one) => (one.value.min(one.others), one.value.max(one.others)),
        Curve::FromTo(e) => (e.start.min(e.end), e.start.max(e.end)),
        Curve::Exponential(e) => (e.start.min(e.end), e.start.max(e.end)),
        Curve::FoldedNormal(s) => (0.0, s.mean.abs() + 10.0 * s.std),
        Curve::TorchFoldedNormal(s) => (0.0, s.mean.abs() + 10.0 * s.std),
    }
}

/// A curve of the right length whose values lie in a range.
pub fn curve(
    curve: &Curve,
    node: Option<&Node>,
    here: &Node,
    n: usize,
    range: [f64; 2],
    what: &str,
    reader: &mut Reader,
) {
    let place = node.unwrap_or(here).place;
    if let Curve::List(list) = curve {
        if list.len() != n {
            let message = format!("{what} has {} entries for {n} features", list.len());
            reader.error(place, message, Some("give one entry per feature, a number, or a curve".to_owned()));
            return;
        }
        let items = match node.map(|n| &n.value) {
            Some(Value::List(items)) => &items[..],
            _ => &[],
        };
        for (i, v) in list.iter().enumerate().filter(|(_, v)| !(range[0]..=range[1]).contains(*v)) {
            let place = items.get(i).map_or(place, |item| item.place);
            reader.error(place, format!("{v} is out of range: {what} lies in {}", interval(range)), None);
        }
        return;
    }
    if let Curve::Zipf(z) = curve
        && z.min >= z.max
    {
        reader.error(place, "zipf runs from max down to min: max must be the greater", None);
    }
    let (least, greatest) = extremes(curve, n);
    if let Curve::Zipf(z) = curve
        && libm::pow(n as f64, -z.exponent) == 1.0
        && n > 1
    {
        reader.error(place, "zipf with this exponent is flat", Some("give a number instead of a curve".to_owned()));
    }
    if let Curve::Linear(b) | Curve::Random(b) = curve
        && b.min > b.max
    {
        let message = format!("{} has min {} above max {}", curve.key(), b.min, b.max);
        reader.error(place, message, Some("exchange them".to_owned()));
    }
    if let (Curve::FoldedNormal(_) | Curve::TorchFoldedNormal(_), true) = (curve, range[1] < f64::MAX) {
        reader.error(
            place,
            format!("a folded normal has no upper bound, and {what} lies in {}", interval(range)),
            None,
        );
        return;
    }
    if least < range[0] || greatest > range[1] {
        let bad = if least < range[0] { least } else { greatest };
        reader.error(place, format!("{bad} is out of range: {what} lies in {}", interval(range)), None);
    }
}

fn interval([low, high]: [f64; 2]) -> String {
    if high == f64::MAX { format!("[{low}, ...)") } else { format!("[{low}, {high}]") }
}

/// The world.
pub fn data(section: &DataSection, node: &Node, reader: &mut Reader) {
    let n = section.n_features;
    let at = |path: &[&str]| node.at(path.iter().copied());
    let p = &section.firing_probability;
    curve(p, at(&["firing_probability"]), node, n, [0.0, 1.0], "firing_probability", reader);
    if !section.groups.is_empty() && !matches!(p, Curve::Constant(_) | Curve::List(_)) {
        let place = at(&["firing_probability"]).unwrap_or(node).place;
        let help = "give a number, or a list in which the members of a group have one probability".to_owned();
        reader.error(place, "the members of a group fire with one probability, a curve gives each its own", Some(help));
    }
    if extremes(p, n).1 == 0.0 && section.groups.is_empty() {
        let place = at(&["firing_probability"]).unwrap_or(node).place;
        reader.error(place, "no feature ever fires", Some("give a probability above 0".to_owned()));
    }
    let any = [-f64::MAX, f64::MAX];
    let not_negative = [0.0, f64::MAX];
    match &section.magnitude {
        MagnitudeSection::Constant(c) => {
            curve(c, at(&["magnitude", "constant"]), node, n, any, "magnitude", reader);
        }
        MagnitudeSection::Exponential(c) => {
            curve(c, at(&["magnitude", "exponential"]), node, n, not_negative, "the mean magnitude", reader);
        }
        MagnitudeSection::Normal(s) | MagnitudeSection::FoldedNormal(s) => {
            let key = section.magnitude.key();
            curve(&s.mean, at(&["magnitude", key, "mean"]), node, n, any, "the mean magnitude", reader);
            curve(&s.std, at(&["magnitude", key, "std"]), node, n, not_negative, "the standard deviation", reader);
        }
        MagnitudeSection::Uniform(_) | MagnitudeSection::Symmetric(_) => {}
    }
    groups(section, node, reader);
    linked::check(section, node, reader);
    if let Some(dictionary) = &section.dictionary
        && dictionary.vectors == VectorsSection::Orthogonal
        && dictionary.d_hidden < n
    {
        let place = at(&["dictionary", "d_hidden"]).unwrap_or(node).place;
        let message = format!("{n} orthogonal directions do not fit into d_hidden = {}", dictionary.d_hidden);
        reader.error(place, message, Some("widen d_hidden, or take `vectors: random`".to_owned()));
    }
    if let Some(dictionary) = &section.dictionary
        && let VectorsSection::Cosine(cosine) = dictionary.vectors
    {
        let place = at(&["dictionary", "vectors", "cosine"]).unwrap_or(node).place;
        match dimensions_at_cosine(n, cosine) {
            Ok(least) if least > dictionary.d_hidden => {
                let place = at(&["dictionary", "d_hidden"]).unwrap_or(node).place;
                let message = format!(
                    "{n} directions at one cosine with each other take d_hidden of at least {least}, not {}",
                    dictionary.d_hidden
                );
                reader.error(place, message, Some("widen d_hidden, or take `vectors: random`".to_owned()));
            }
            Ok(_) => {}
            Err(_) => {
                let least = -1.0 / (n - 1) as f64;
                let message = format!("{n} directions cannot all have the cosine {cosine} with each other");
                reader.error(place, message, Some(format!("give a cosine in [{least}, 1)")));
            }
        }
    }
}

fn groups(section: &DataSection, node: &Node, reader: &mut Reader) {
    let items = match node.get("groups").map(|n| &n.value) {
        Some(Value::List(items)) => &items[..],
        _ => &[],
    };
    let whole = node.get("groups").unwrap_or(node).place;
    if let GroupsSection::Blocks(blocks) = &section.groups
        && blocks.count > section.n_features
    {
        let message = format!("{} blocks of {} features", blocks.count, section.n_features);
        let place = node.at(["groups", "blocks", "count"]).map_or(whole, |node| node.place);
        reader.error(place, message, Some("a block has at least one feature".to_owned()));
        return;
    }
    let mut owner = vec![None; section.n_features];
    for (g, group) in section.groups.sets(section.n_features).iter().enumerate() {
        let place = items.get(g).map_or(whole, |item| item.place);
        for &member in group.members() {
            match owner.get(member) {
                None => {
                    let message =
                        format!("feature {member} in a group, but features run from 0 to {}", owner.len() - 1);
                    reader.error(place, message, None);
                }
                Some(Some(first)) => {
                    let message = format!("feature {member} is in two groups, number {first} and number {g}");
                    reader.error(place, message, Some("groups are disjoint".to_owned()));
                }
                Some(None) => owner[member] = Some(g),
            }
        }
        if let Curve::List(list) = &section.firing_probability {
            let p: Vec<f64> = group.members().iter().filter_map(|m| list.get(*m).copied()).collect();
            if p.windows(2).any(|w| w[0] != w[1]) {
                let message = "the members of a group have one firing probability: that of the set";
                reader.error(place, message, Some(format!("they are given {p:?}")));
            }
        }
    }
}

/// A toy model.
pub fn toy(section: &ToySection, node: &Node, reader: &mut Reader) {
    let at = node.get("importance");
    // How long a list must be is not known here, so that it is compared with itself.
    let n = match &section.importance {
        Curve::List(list) => list.len().max(1),
        _ => 2,
    };
    curve(&section.importance, at, node, n, [0.0, f64::MAX], "importance", reader);
    if let ModelSection::Mlp(mlp) = &section.model
        && mlp.bias_decay * section.train.lr >= 1.0
    {
        let place = node.at(["model", "mlp", "bias_decay"]).unwrap_or(node).place;
        let message = format!(
            "bias_decay {} times lr {} is not below 1: the bias would change its sign",
            mlp.bias_decay, section.train.lr
        );
        reader.error(place, message, Some("give a rate such as 0.03".to_owned()));
    }
}

impl DataSection {
    /// Whether some x can be negative.
    pub fn is_signed(&self) -> bool {
        match &self.magnitude {
            MagnitudeSection::Symmetric(_) => true,
            MagnitudeSection::Uniform([low, _]) => *low < 0.0,
            MagnitudeSection::Constant(c) => extremes(c, self.n_features).0 < 0.0,
            // Clipped at 0, or an absolute value.
            MagnitudeSection::Normal(_) | MagnitudeSection::FoldedNormal(_) | MagnitudeSection::Exponential(_) => false,
        }
    }
}

/// Training settings.
pub fn sae_train(section: &SaeTrainSection, node: &Node, reader: &mut Reader) {
    if section.warmup + section.decay > 1.0 {
        let place = node.get("decay").or(node.get("warmup")).unwrap_or(node).place;
        let message = format!("warmup {} and decay {} overlap", section.warmup, section.decay);
        reader.error(place, message, Some("their sum is at most 1".to_owned()));
    }
}

/// A baseline beside activations from files: nothing is known but these.
pub fn baseline_without_truth(entry: &Entry<BaselineKind>, node: &Node, d_hidden: usize, reader: &mut Reader) {
    if matches!(entry.kind, BaselineKind::Oracle(_)) {
        let message = "an oracle has the true dictionary, and activations from files come without one";
        reader.error(node.place, message, Some("leave it out".to_owned()));
    } else if entry.kind.follows_width() {
        let message = format!("`{}` needs `n_latents`: there is no first entry of `sae` to follow", entry.kind.key());
        reader.error(node.place, message, Some(format!("for example `{}: {{n_latents: 64}}`", entry.kind.key())));
    } else {
        baseline(entry, node, usize::MAX, d_hidden, reader);
    }
}

/// What of a baseline's settings comes to nothing.
pub fn baseline_uses(kind: &BaselineKind, node: &Node, reader: &mut Reader) {
    let BaselineKind::Random(RandomSection { k, encoder, .. }) = kind else { return };
    if let Some(l1) = node.at(["random", "l1"]) {
        let trained = matches!(encoder, RandomEncoderSection::Trained(_));
        let (message, help) = match trained {
            false => ("`l1` has no effect without `encoder: trained`", "leave it out, or write `encoder: trained`"),
            true => ("`l1` has no effect beside `k`: the k greatest latents have no penalty", "keep one of them"),
        };
        reader.uses.note(l1.place, trained && k.is_none(), message, help);
    }
    if let Some(dead_after) = node.at(["random", "encoder", "trained", "dead_after"]) {
        let message =
            "`dead_after` has no effect: the encoder of random directions is trained without a loss for dead latents";
        reader.uses.note(dead_after.place, false, message, "leave it out");
    }
}

/// A baseline in a world of n_features whose hidden states have d_hidden dimensions.
pub fn baseline(entry: &Entry<BaselineKind>, node: &Node, n_features: usize, d_hidden: usize, reader: &mut Reader) {
    match &entry.kind {
        BaselineKind::Oracle(s) => match (&s.encoder, s.k) {
            (EncoderSection::Fista(fista), None) if fista.l1 <= 0.0 || fista.l1 >= 0.1 => {
                let message =
                    format!("l1 = {} is out of range: a share of the greatest product, in (0, 0.1)", fista.l1);
                reader.error(node.place, message, None);
            }
            (EncoderSection::Fista(_) | EncoderSection::Relu | EncoderSection::LeastSquares, Some(_)) => {
                let message = format!("the encoder `{}` takes no `k`: it finds out how many fire", s.encoder.key());
                reader.error(node.place, message, Some("leave `k` out".to_owned()));
            }
            (EncoderSection::TopK | EncoderSection::Omp, None) => {
                let message = format!("the encoder `{}` of an oracle needs `k`", s.encoder.key());
                reader.error(node.place, message, Some("for example `oracle: {k: 2}`".to_owned()));
            }
            (_, Some(k)) if k > n_features => {
                let message = format!("the oracle's k = {k} is greater than n_features = {n_features}");
                reader.error(node.place, message, None);
            }
            _ => {}
        },
        BaselineKind::Pca(PcaSection { n_latents }) | BaselineKind::Ica(IcaSection { n_latents, .. })
            if n_latents.is_some_and(|n| n > d_hidden) =>
        {
            let message = format!("{} has at most d_hidden = {d_hidden} directions", entry.kind.key());
            reader.error(node.place, message, None);
        }
        BaselineKind::Online(s) if s.l1 <= 0.0 || s.l1 >= 1.0 => {
            let message = format!("l1 = {} is out of range: a share of the greatest product, in (0, 1)", s.l1);
            reader.error(node.place, message, None);
        }
        kind => {
            let width = kind.clone().shared_width().copied().flatten();
            if let (Some(k), Some(n)) = (kind.k(), width)
                && k > n
            {
                let help = "at most n_latents latents can be active".to_owned();
                reader.error(node.place, format!("k = {k} is greater than n_latents = {n}"), Some(help));
            }
        }
    }
}
