//! The laws that SAELens makes probabilities and magnitudes of (`synthetic/firing_probabilities.py`,
//! `synthetic/firing_magnitudes.py`), in its JSON and found again in numbers.

use serde_json::{Value as Json, json};

use crate::data::curve::Curve;

/// Numbers that a law makes in f32 are this near to it, relatively.
const NEAR: f64 = 1e-6;

/// A law of magnitudes.
#[derive(Clone, Debug, PartialEq)]
pub enum MagnitudeLaw {
    /// The same for all.
    Constant(f64),
    /// Evenly spaced.
    Linear { start: f64, end: f64 },
    /// By equal factors.
    Exponential { start: f64, end: f64 },
    /// |mean + std z|, then held between the bounds that there are; z by Torch's generator.
    FoldedNormal { mean: f64, std: f64, min_value: Option<f64>, max_value: Option<f64> },
}

impl MagnitudeLaw {
    /// The numbers, `[n]`; none where they need a seed and there is none.
    pub fn values(&self, n: usize, seed: Option<u64>) -> Option<Vec<f64>> {
        match *self {
            MagnitudeLaw::Constant(value) => Some(vec![value; n]),
            MagnitudeLaw::Linear { start, end } => Some(Curve::FromTo { start, end }.values(n, 0)),
            MagnitudeLaw::Exponential { start, end } => Some(Curve::Exponential { start, end }.values(n, 0)),
            MagnitudeLaw::FoldedNormal { mean, std, min_value, max_value } => {
                let held = |v: f64| v.max(min_value.unwrap_or(0.0)).min(max_value.unwrap_or(f64::INFINITY));
                let drawn = Curve::TorchFoldedNormal { mean, std, seed: seed? }.values(n, 0);
                Some(drawn.into_iter().map(held).collect())
            }
        }
    }

    /// The law without randomness that makes these numbers, if one does.
    pub fn of_values(values: &[f64]) -> Option<MagnitudeLaw> {
        let (&start, &end) = (values.first()?, values.last()?);
        let mut laws = vec![MagnitudeLaw::Constant(start)];
        if start > 0.0 && end > 0.0 {
            laws.extend([MagnitudeLaw::Linear { start, end }, MagnitudeLaw::Exponential { start, end }]);
        }
        laws.into_iter().find(|law| law.values(values.len(), None).is_some_and(|made| all_near(&made, values)))
    }

    /// The law of a curve that Torch's generator draws, and its seed; none of any other curve.
    pub fn of_drawn(curve: &Curve) -> Option<(MagnitudeLaw, u64)> {
        let &Curve::TorchFoldedNormal { mean, std, seed } = curve else { return None };
        Some((MagnitudeLaw::FoldedNormal { mean, std, min_value: None, max_value: None }, seed))
    }

    /// As SAELens writes it.
    pub fn json(&self) -> Json {
        match self {
            MagnitudeLaw::Constant(value) => json!(value),
            MagnitudeLaw::Linear { start, end } => json!({ "start": start, "end": end, "generator_name": "linear" }),
            MagnitudeLaw::Exponential { start, end } => {
                json!({ "start": start, "end": end, "generator_name": "exponential" })
            }
            MagnitudeLaw::FoldedNormal { mean, std, min_value, max_value } => json!({
                "mean": mean, "std": std, "min_value": min_value, "max_value": max_value, "generator_name": "folded_normal"
            }),
        }
    }

    /// From what SAELens wrote; left out parameters have its defaults.
    ///
    /// # Errors
    /// What is no law of SAELens itself, in words.
    pub fn of_json(json: &Json) -> Result<MagnitudeLaw, String> {
        if let Some(value) = json.as_f64() {
            return Ok(MagnitudeLaw::Constant(value));
        }
        let number = |key: &str, default: Option<f64>| parameter(json, key, default);
        let bound = |key: &str| json.get(key).and_then(Json::as_f64);
        Ok(match name_of(json)? {
            "constant" => MagnitudeLaw::Constant(number("value", Some(1.0))?),
            "linear" => MagnitudeLaw::Linear { start: number("start", None)?, end: number("end", None)? },
            "exponential" => MagnitudeLaw::Exponential { start: number("start", None)?, end: number("end", None)? },
            "folded_normal" => MagnitudeLaw::FoldedNormal {
                mean: number("mean", Some(0.0))?,
                std: number("std", Some(0.1))?,
                min_value: bound("min_value"),
                max_value: bound("max_value"),
            },
            other => return Err(format!("`{other}` is no law of magnitudes that SAELens brings")),
        })
    }
}

/// A law of firing probabilities.
#[derive(Clone, Debug, PartialEq)]
pub enum ProbabilityLaw {
    /// The same for all.
    Constant(f64),
    /// Evenly spaced from max down to min.
    Linear { max: f64, min: f64 },
    /// A power law rescaled to run from max to min.
    Zipfian { exponent: f64, max: f64, min: f64 },
    /// Uniform between both, by Torch's generator.
    Random { max: f64, min: f64 },
}

impl ProbabilityLaw {
    /// The law without randomness that makes these numbers, if one does. Of a rescaled power law the second number tells
    /// the exponent: it falls with it.
    pub fn of_values(values: &[f64]) -> Option<ProbabilityLaw> {
        let (&max, &min) = (values.first()?, values.last()?);
        let n = values.len();
        if all_near(&vec![max; n], values) {
            return Some(ProbabilityLaw::Constant(max));
        }
        if !(min > 0.0 && min < max) {
            return None;
        }
        if all_near(&Curve::Linear { max, min }.values(n, 0), values) {
            return Some(ProbabilityLaw::Linear { max, min });
        }
        let (mut low, mut high) = (1e-3, 20.0);
        for _ in 0..100 {
            let exponent = 0.5 * (low + high);
            let second = Curve::Zipf { exponent, max, min }.values(n, 0)[1];
            if second > values[1] { low = exponent } else { high = exponent }
        }
        // Four digits where they are as good: the search stops in the noise of f32.
        let found = 0.5 * (low + high);
        let makes = |exponent: &f64| all_near(&Curve::Zipf { exponent: *exponent, max, min }.values(n, 0), values);
        let exponent = [(found * 1e4).round() / 1e4, found].into_iter().find(makes)?;
        Some(ProbabilityLaw::Zipfian { exponent, max, min })
    }

    /// As SAELens writes it.
    pub fn json(&self) -> Json {
        let bounds =
            |max: f64, min: f64, name: &str| json!({ "max_prob": max, "min_prob": min, "generator_name": name });
        match *self {
            ProbabilityLaw::Constant(p) => json!({ "probability": p, "generator_name": "constant" }),
            ProbabilityLaw::Linear { max, min } => bounds(max, min, "linear"),
            ProbabilityLaw::Random { max, min } => bounds(max, min, "random"),
            ProbabilityLaw::Zipfian { exponent, max, min } => {
                let mut json = bounds(max, min, "zipfian");
                json["exponent"] = json!(exponent);
                json
            }
        }
    }

    /// From what SAELens wrote.
    ///
    /// # Errors
    /// What is no law of SAELens itself, in words.
    pub fn of_json(json: &Json) -> Result<ProbabilityLaw, String> {
        let number = |key: &str, default: f64| parameter(json, key, Some(default));
        let min = number("min_prob", 0.01)?;
        Ok(match name_of(json)? {
            "constant" => ProbabilityLaw::Constant(number("probability", 0.1)?),
            "linear" => ProbabilityLaw::Linear { max: number("max_prob", 0.3)?, min },
            "random" => ProbabilityLaw::Random { max: number("max_prob", 0.5)?, min },
            "zipfian" => {
                ProbabilityLaw::Zipfian { exponent: number("exponent", 1.0)?, max: number("max_prob", 0.3)?, min }
            }
            other => return Err(format!("`{other}` is no law of firing probabilities that SAELens brings")),
        })
    }
}

fn all_near(made: &[f64], values: &[f64]) -> bool {
    made.iter().zip(values).all(|(a, b)| (a - b).abs() <= NEAR * a.abs().max(b.abs()))
}

fn name_of(json: &Json) -> Result<&str, String> {
    let name = json.get("generator_name").and_then(Json::as_str);
    name.ok_or_else(|| format!("a law without `generator_name`: {json}"))
}

fn parameter(json: &Json, key: &str, default: Option<f64>) -> Result<f64, String> {
    match json.get(key) {
        None => default.ok_or_else(|| format!("a law without `{key}`: {json}")),
        Some(value) => value.as_f64().ok_or_else(|| format!("`{key}` is no number: {value}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laws_are_found_again_in_their_numbers() {
        let found = |curve: Curve| MagnitudeLaw::of_values(&curve.values(50, 0));
        assert_eq!(found(Curve::Constant(1.0)), Some(MagnitudeLaw::Constant(1.0)));
        assert_eq!(found(Curve::FromTo { start: 5.0, end: 4.0 }), Some(MagnitudeLaw::Linear { start: 5.0, end: 4.0 }));
        let exponential = Curve::Exponential { start: 1.0, end: 3.0 };
        assert_eq!(found(exponential), Some(MagnitudeLaw::Exponential { start: 1.0, end: 3.0 }));
        assert_eq!(found(Curve::Power { exponent: 1.0 }), None);
        let found = |curve: Curve, n: usize| ProbabilityLaw::of_values(&curve.values(n, 0));
        assert_eq!(found(Curve::Constant(0.2), 4), Some(ProbabilityLaw::Constant(0.2)));
        // Numbers whose differences are exact, so that the ends come back to the last bit.
        let (max, min) = (0.5, 0.25);
        assert_eq!(found(Curve::Linear { max, min }, 30), Some(ProbabilityLaw::Linear { max, min }));
        for exponent in [0.5, 1.0, 2.25] {
            let zipf = found(Curve::Zipf { exponent, max, min }, 1000);
            assert_eq!(zipf, Some(ProbabilityLaw::Zipfian { exponent, max, min }));
        }
        assert_eq!(
            found(Curve::Power { exponent: 1.0 }, 3),
            Some(ProbabilityLaw::Zipfian { exponent: 1.0, max: 1.0, min: 1.0 / 3.0 })
        );
        assert_eq!(found(Curve::Random { max, min }, 30), None);
    }

    #[test]
    fn laws_survive_their_json_and_strange_ones_are_refused() {
        let magnitudes = [
            MagnitudeLaw::Constant(2.0),
            MagnitudeLaw::Linear { start: 5.0, end: 4.0 },
            MagnitudeLaw::Exponential { start: 1.0, end: 3.0 },
            MagnitudeLaw::FoldedNormal { mean: 0.5, std: 0.5, min_value: None, max_value: Some(2.0) },
        ];
        magnitudes.iter().for_each(|law| assert_eq!(MagnitudeLaw::of_json(&law.json()).as_ref(), Ok(law)));
        let probabilities = [
            ProbabilityLaw::Constant(0.1),
            ProbabilityLaw::Linear { max: 0.3, min: 0.1 },
            ProbabilityLaw::Random { max: 0.3, min: 0.1 },
            ProbabilityLaw::Zipfian { exponent: 0.5, max: 0.4, min: 0.1 },
        ];
        probabilities.iter().for_each(|law| assert_eq!(ProbabilityLaw::of_json(&law.json()).as_ref(), Ok(law)));
        assert!(
            MagnitudeLaw::of_json(&json!({ "generator_name": "linear", "start": 1 })).unwrap_err().contains("`end`")
        );
        assert!(MagnitudeLaw::of_json(&json!("linear")).is_err());
        assert!(ProbabilityLaw::of_json(&json!({ "generator_name": "mine" })).unwrap_err().contains("`mine`"));
    }

    #[test]
    fn bounds_hold_folded_normals_and_a_seed_is_needed() {
        let law = MagnitudeLaw::FoldedNormal { mean: 0.5, std: 0.5, min_value: Some(0.25), max_value: Some(0.75) };
        let values = law.values(100, Some(43)).expect("a seed");
        assert!(values.iter().all(|v| (0.25..=0.75).contains(v)) && values.contains(&0.25) && values.contains(&0.75));
        assert_eq!(law.values(100, None), None);
    }
}
