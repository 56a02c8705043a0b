//! What a column is called on an axis and what kind of quantity it is.

use super::spec::is_expression;
use super::text::{Rich, Style};

/// What kind of quantity a column holds; it decides colours and ranges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Amount {
    /// A number with no natural range: viridis over the data's range.
    #[default]
    Amount,
    /// A share or a cosine: viridis over [0, 1].
    Share,
    /// A number whose sign matters: blue-white-red, symmetric about zero.
    Signed,
    /// A whole number: viridis, whole ticks.
    Count,
    /// A feature's phase: dropped, superposed or dedicated, in their fixed colours.
    Phase,
    /// A name: Okabe-Ito.
    Kind,
    /// An angle in degrees: viridis over the data's range.
    Degrees,
}

/// How a column looks in a figure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnLook {
    /// Name: "firing probability". `^{..}` raises and `_{..}` lowers.
    pub label: String,
    /// Mathematical symbol, set slanted behind the name and before values in titles: "p".
    pub symbol: Option<String>,
    /// Unit, or what else belongs in brackets at the end: "degrees".
    pub unit: Option<String>,
    /// Kind of quantity.
    pub scale: Amount,
    /// Definition and its version, for the caption.
    pub definition: Option<String>,
}

impl ColumnLook {
    /// A look without a symbol or a definition.
    pub fn new(label: &str, scale: Amount) -> ColumnLook {
        ColumnLook { label: label.to_owned(), symbol: None, unit: None, scale, definition: None }
    }

    /// This look with a symbol.
    pub fn with_symbol(self, symbol: &str) -> ColumnLook {
        ColumnLook { symbol: (!symbol.is_empty()).then(|| symbol.to_owned()), ..self }
    }

    /// This look with a unit.
    pub fn with_unit(self, unit: &str) -> ColumnLook {
        ColumnLook { unit: (!unit.is_empty()).then(|| unit.to_owned()), ..self }
    }

    /// The axis label: name, symbol, and unit in brackets.
    pub fn axis_label(&self) -> Rich {
        let mut label = Rich::label(&self.label);
        if let Some(symbol) = &self.symbol {
            label = label.with(Style::Plain, " ").then(&symbol_text(symbol));
        }
        if let Some(unit) = &self.unit {
            label = label.with(Style::Plain, " (").then(&Rich::label(unit)).with(Style::Plain, ")");
        }
        label
    }

    /// A number with what it is a value of: "p = 0.05", or "active latents = 4" without a symbol.
    pub fn value_title(&self, value: &Rich) -> Rich {
        let name = match &self.symbol {
            Some(symbol) => symbol_text(symbol),
            None => Rich::label(&self.label),
        };
        name.with(Style::Plain, " = ").then(value)
    }

    /// The name in plain words, for captions.
    pub fn in_words(&self) -> String {
        self.axis_label().read()
    }

    /// The range of the quantity, if it has one.
    pub fn natural_range(&self) -> Option<[f64; 2]> {
        (self.scale == Amount::Share).then_some([0.0, 1.0])
    }
}

/// A symbol: its letters slanted, its sub- and superscripts upright.
fn symbol_text(symbol: &str) -> Rich {
    match symbol.find(['_', '^']) {
        None => Rich::default().with(Style::Symbol, symbol),
        Some(at) => Rich::default().with(Style::Symbol, &symbol[..at]).then(&Rich::label(&symbol[at..])),
    }
}

/// Says how columns look. The caller implements it over its own table of columns and falls back on `HouseLabels`.
pub trait Labels {
    /// The look of a column; every name has one.
    fn describe(&self, column: &str) -> ColumnLook;
}

impl<F: Fn(&str) -> ColumnLook> Labels for F {
    fn describe(&self, column: &str) -> ColumnLook {
        self(column)
    }
}

/// Looks of the paths of a spec and of the common scores; for any other column its name in words.
#[derive(Clone, Copy, Debug, Default)]
pub struct HouseLabels;

/// Column, label, symbol, kind of quantity. Rows ending in `_` stand for a score of one feature.
const KNOWN: [(&str, &str, &str, Amount); 62] = [
    ("data.firing_probability", "firing probability", "p", Amount::Amount),
    ("data.n_features", "features", "n", Amount::Count),
    ("data.dictionary.d_hidden", "hidden width", "d", Amount::Count),
    ("data.dictionary.noise", "noise, standard deviation", "σ", Amount::Amount),
    ("toy.d_hidden", "hidden width", "d", Amount::Count),
    ("toy.importance.last", "relative importance of the last feature", "r", Amount::Amount),
    ("toy.importance.first", "relative importance of the first feature", "r", Amount::Amount),
    ("toy.importance.geometric", "importance ratio", "r", Amount::Amount),
    ("toy.model", "toy model", "", Amount::Kind),
    ("toy.model.mlp.bias", "initial hidden bias", "", Amount::Amount),
    ("n_latents", "latents", "m", Amount::Count),
    ("k", "active latents allowed", "k", Amount::Amount),
    ("l1", "L1 penalty", "λ", Amount::Amount),
    ("target_l0", "target L0", "", Amount::Amount),
    ("lr", "learning rate", "", Amount::Amount),
    ("steps", "training steps", "", Amount::Count),
    ("step", "training step", "", Amount::Count),
    ("samples", "training samples", "T", Amount::Count),
    ("seed", "seed", "", Amount::Count),
    ("method", "method", "", Amount::Kind),
    ("feature", "feature", "i", Amount::Count),
    ("importance", "importance", "I_{i}", Amount::Amount),
    ("loss", "loss per feature", "", Amount::Amount),
    ("loss_weighted", "importance-weighted loss", "", Amount::Amount),
    ("n_represented", "features represented", "", Amount::Count),
    ("norm", "norm |W_{i}|", "", Amount::Amount),
    ("superposition", "superposition", "", Amount::Amount),
    ("dimensionality", "feature dimensionality", "D_{i}", Amount::Share),
    ("data_dimensionality", "data dimensionality", "D_{X}", Amount::Share),
    ("bias", "bias", "b_{i}", Amount::Signed),
    ("train_loss", "training loss per feature", "", Amount::Amount),
    ("train_loss_weighted", "training loss", "", Amount::Amount),
    ("w_norm", "norm of the weights", "", Amount::Amount),
    ("b_norm", "norm of the bias", "", Amount::Amount),
    ("norm_all", "mean norm of all features", "", Amount::Amount),
    ("cosine_within", "mean cosine within groups", "", Amount::Signed),
    ("cosine_between", "mean cosine between groups", "", Amount::Signed),
    ("d_star", "dimensions per feature", "D*", Amount::Amount),
    ("capacity", "capacity", "", Amount::Amount),
    ("norm_mean", "mean norm of represented features", "", Amount::Amount),
    ("gap_min_degrees", "smallest gap between features", "", Amount::Degrees),
    ("gap_max_degrees", "largest gap between features", "", Amount::Degrees),
    ("mmcs", "mean best cosine per feature (MMCS)", "", Amount::Share),
    ("mmcs_latents", "mean best cosine per latent", "", Amount::Share),
    ("mmcs_larger", "MMCS with the next larger dictionary", "", Amount::Share),
    ("mmcs_composed", "mean best cosine with composed features", "", Amount::Share),
    ("mcc", "mean matched cosine (MCC)", "", Amount::Share),
    ("mcc_represented", "mean matched cosine, represented features", "", Amount::Share),
    ("recovered", "share of features recovered", "", Amount::Share),
    ("precision", "precision", "", Amount::Share),
    ("recall", "recall", "", Amount::Share),
    ("f1", "F1", "", Amount::Share),
    ("uniqueness", "uniqueness", "", Amount::Share),
    ("l0", "active latents per sample (L0)", "", Amount::Amount),
    ("true_l0", "active features per sample", "", Amount::Amount),
    ("fvu", "fraction of variance unexplained", "", Amount::Share),
    ("explained_variance", "explained variance", "", Amount::Share),
    ("dead", "dead latents", "", Amount::Amount),
    ("absorption_any", "absorption, any feature", "", Amount::Share),
    ("absorption_gap", "absorption gap in recall", "", Amount::Signed),
    ("leakage", "leakage of the child into the parent", "", Amount::Signed),
    ("theory_margin", "second-best over best predicted loss", "", Amount::Amount),
];

/// Scores of one feature, named `<base>_last`, `<base>_0`, `<base>_1` ...
const PER_FEATURE: [(&str, &str, Amount); 7] = [
    ("theory_phase", "predicted phase", Amount::Phase),
    ("phase", "phase", Amount::Phase),
    ("norm", "norm", Amount::Amount),
    ("superposition", "superposition", Amount::Amount),
    ("data_dimensionality", "data dimensionality", Amount::Share),
    ("dimensionality", "dimensionality", Amount::Share),
    ("cross", "cross-talk cosine", Amount::Signed),
];

impl Labels for HouseLabels {
    fn describe(&self, column: &str) -> ColumnLook {
        if is_expression(column) {
            return ColumnLook::new(column, Amount::Amount);
        }
        let known = |name: &str| KNOWN.iter().find(|(known, ..)| *known == name);
        if let Some((_, label, symbol, scale)) = known(column) {
            let unit = if *scale == Amount::Degrees { "degrees" } else { "" };
            return ColumnLook::new(label, *scale).with_symbol(symbol).with_unit(unit);
        }
        if let Some(look) = per_feature(column) {
            return look;
        }
        // One entry of a list over features, such as data.firing_probability.0.
        if let Some((list, entry)) = column.rsplit_once('.')
            && entry.parse::<usize>().is_ok()
        {
            let look = self.describe(list);
            return ColumnLook { label: format!("{} of feature {entry}", look.label), ..look };
        }
        // The setting of one method, such as sae.topk.k or sae.*.n_latents.
        let last = column.rsplit('.').next().unwrap_or(column);
        match (column.strip_prefix("sae."), known(last)) {
            (Some(rest), Some((_, label, symbol, scale))) => {
                let variant = rest.strip_suffix(last).and_then(|before| before.split('.').next());
                let variant = variant.filter(|variant| *variant != "*").unwrap_or_default();
                ColumnLook::new(label, *scale).with_symbol(symbol).with_unit(variant)
            }
            (None, Some((_, label, symbol, scale))) if column.contains('.') => {
                ColumnLook::new(label, *scale).with_symbol(symbol)
            }
            _ => ColumnLook::new(&last.replace('_', " "), Amount::Amount),
        }
    }
}

/// Words of the statistics over features or samples that a score's name may end in.
const STATISTICS: [(&str, &str); 4] = [("mean", "mean"), ("median", "median"), ("min", "least"), ("max", "greatest")];

fn per_feature(column: &str) -> Option<ColumnLook> {
    let (base, which) = column.rsplit_once('_')?;
    let find = |base: &str| PER_FEATURE.iter().find(|(known, ..)| *known == base);
    if let Some(base) = base.strip_suffix("_rank") {
        let (_, label, scale) = find(base)?;
        let rank = which.parse::<usize>().ok()?;
        return Some(ColumnLook::new(&format!("{label} of rank {rank}"), *scale));
    }
    let (_, label, scale) = find(base)?;
    if let Some((_, words)) = STATISTICS.iter().find(|(known, _)| *known == which) {
        return Some(ColumnLook::new(&format!("{words} {label}"), *scale));
    }
    let feature = match which {
        "last" => "the last feature".to_owned(),
        number => format!("feature {}", number.parse::<usize>().ok()?),
    };
    Some(ColumnLook::new(&format!("{label} of {feature}"), *scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(column: &str) -> String {
        HouseLabels.describe(column).in_words()
    }

    #[test]
    fn paths_have_names_and_symbols() {
        assert_eq!(label("data.firing_probability"), "firing probability p");
        assert_eq!(label("toy.d_hidden"), "hidden width d");
        assert_eq!(label("toy.importance.last"), "relative importance of the last feature r");
        assert_eq!(label("sae.topk.k"), "active latents allowed k (topk)");
        assert_eq!(label("sae.*.n_latents"), "latents m");
        assert_eq!(label("sae.k"), "active latents allowed k");
        assert_eq!(label("gap_min_degrees"), "smallest gap between features (degrees)");
        assert_eq!(label("phase_last"), "phase of the last feature");
        assert_eq!(label("norm_3"), "norm of feature 3");
        assert_eq!(label("dimensionality_rank_5"), "dimensionality of rank 5");
        assert_eq!(label("data_dimensionality_median"), "median data dimensionality");
        assert_eq!(label("data.dataset.samples"), "training samples T");
        assert_eq!(label("something_new"), "something new");
        assert_eq!(label("1.0 / \"toy.d_hidden\""), "1.0 / \"toy.d_hidden\"");
    }

    #[test]
    fn quantities_have_their_kind() {
        assert_eq!(HouseLabels.describe("theory_phase_last").scale, Amount::Phase);
        assert_eq!(HouseLabels.describe("mcc").natural_range(), Some([0.0, 1.0]));
        assert_eq!(HouseLabels.describe("loss").natural_range(), None);
    }

    #[test]
    fn titles_give_the_symbol_and_the_value() {
        let look = HouseLabels.describe("data.firing_probability");
        assert_eq!(look.value_title(&Rich::plain("0.05")).read(), "p = 0.05");
        assert_eq!(HouseLabels.describe("importance").axis_label().read(), "importance I_i");
    }

    #[test]
    fn a_closure_can_be_the_labels() {
        let labels: &dyn Labels = &|column: &str| ColumnLook::new(column, Amount::Kind);
        assert_eq!(labels.describe("x").label, "x");
    }
}
