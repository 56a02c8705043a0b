//! Curves over features, as the file writes them.

use serde_json::Value as Json;

use super::kind::{Choice, Kind, ListOf, NonNegative, Number, Positive, Reader, Shape, Whole, choice, record};
use super::node::{Node, Value};

choice! {
    /// A value for each feature i = 0 .. n_features - 1.
    pub enum Curve as "curve" {
        [number => Constant(f64 as Number)]
        [list => List(Vec<f64> as ListOf<Number>)]
        /// r^i.
        geometric => Geometric(f64 as Positive),
        /// Power law rescaled to run from max to min: min + (max - min)(r_i - r_n)/(r_1 - r_n) with r_i = i^-exponent, i from 1.
        zipf => Zipf(Zipf as Zipf),
        /// Evenly spaced from max down to min.
        linear => Linear(Bounds as Bounds),
        /// Uniform between min and max, drawn once per seed.
        random => Random(Bounds as Bounds),
        /// (i + 1)^-exponent, a true power law.
        power => Power(Power as Power),
        /// 1 for all but the last feature, which has this value; {value: r, others: p} gives the others p.
        last => Last(Apart as OneApart),
        /// 1 for all but the first feature, which has this value; {value: r, others: p} gives the others p.
        first => First(Apart as OneApart),
        /// Evenly spaced from start to end, up or down: start + (end - start) i/(n - 1).
        from_to => FromTo(Ends as Ends),
        /// From start to end by equal factors: start (end/start)^(i/(n - 1)).
        exponential => Exponential(PositiveEnds as PositiveEnds),
        /// Absolute value of a normal, drawn once per seed.
        folded_normal => FoldedNormal(Spread as Spread),
        /// The same as Torch's generator on the CPU draws it, whatever the experiment's seed: what SAELens makes of the seed of a
        /// synthetic model plus 1 for standard deviations, plus 2 for means.
        torch_folded_normal => TorchFoldedNormal(TorchSpread as TorchSpread),
    }
}

record! {
    /// One feature apart from the others.
    pub struct Apart as "one apart" {
        /// Value of that feature.
        value: f64 as NonNegative = required "0.01",
        /// Value of all others.
        others: f64 as NonNegative = "1",
    }
}

/// [`Apart`], or its value alone.
#[derive(Debug)]
pub struct OneApart;

impl Kind for OneApart {
    type Out = Apart;
    fn read(node: &Node, reader: &mut Reader) -> Option<Apart> {
        match &node.value {
            Value::Map(_) => Apart::read(node, reader),
            _ => NonNegative::read(node, reader).map(|value| Apart { value, others: 1.0 }),
        }
    }
    fn shape() -> Shape {
        let bare = vec![NonNegative::shape(), Apart::shape()];
        Shape::Choice(Choice { doc: "its value, or that and the value of the others", bare, options: vec![] })
    }
    fn canonical(out: &Apart) -> Json {
        if out.others == 1.0 { NonNegative::canonical(&out.value) } else { Apart::canonical(out) }
    }
}

record! {
    /// Parameters of the rescaled power law.
    pub struct Zipf as "zipf" {
        /// Steepness.
        exponent: f64 as Positive = "1",
        /// Value of the first feature.
        max: f64 as Number = "0.3",
        /// Value of the last feature.
        min: f64 as Number = "0.01",
    }
}

record! {
    /// Both ends of a range.
    pub struct Bounds as "bounds" {
        /// Value of the first feature, or the greatest.
        max: f64 as Number = required "0.3",
        /// Value of the last feature, or the least.
        min: f64 as Number = required "0.01",
    }
}

record! {
    /// First and last value.
    pub struct Ends as "from_to" {
        /// Value of the first feature.
        start: f64 as Number = required "5",
        /// Value of the last feature.
        end: f64 as Number = required "4",
    }
}

record! {
    /// First and last value, both above 0.
    pub struct PositiveEnds as "exponential" {
        /// Value of the first feature.
        start: f64 as Positive = required "5",
        /// Value of the last feature.
        end: f64 as Positive = required "0.5",
    }
}

record! {
    /// A power law.
    pub struct Power as "power" {
        /// Steepness.
        exponent: f64 as Positive = "1",
    }
}

record! {
    /// A normal's parameters.
    pub struct Spread as "folded_normal" {
        /// Mean before the absolute value.
        mean: f64 as Number = "0",
        /// Standard deviation.
        std: f64 as NonNegative = "0.1",
    }
}

record! {
    /// A normal's parameters and the seed of Torch's generator.
    pub struct TorchSpread as "torch_folded_normal" {
        /// Mean before the absolute value.
        mean: f64 as Number = "0",
        /// Standard deviation.
        std: f64 as NonNegative = "0.1",
        /// Seed of the generator.
        seed: usize as Whole = required "43",
    }
}
