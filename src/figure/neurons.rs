//! The weights of each neuron of a toy model as a stack, one part a feature (Elhage et al. 2022, "Superposition in a
//! privileged basis" and "Computation in superposition").
//!
//! Of a tied model the stack holds W_ji, negative weights below the axis. Of an untied one it holds |W_ji|, each neuron
//! scaled so that its greatest input weight is 1, since only the product with the output weights has a meaning.

use super::axis::{Axis, Marks, Spacing};
use super::caption::{Caption, Context};
use super::colour::{KINDS, Ramp, Rgb};
use super::colour_bar::{self, ColourBar};
use super::data::Column;
use super::error::FigureError;
use super::layout::{Block, Panel, Parts};
use super::legend::{Legend, Sample};
use super::look::Labels;
use super::panels::{Facets, checked_range, width_for};
use super::scene::{Rect, Scene, Shape};
use super::sources::Data;
use super::spec::{Neurons, SideTable, StackColour};
use super::text::Rich;
use super::theme::{self, Width};
use super::ticks::in_words;
use super::weights::{Shares, ToyWeights};

/// A feature is in a neuron of a tied model where its weight is above this.
const IN_TIED: f64 = 0.3;
/// Share of a neuron's greatest product of weights above which a feature is in a neuron of an untied model.
const IN_UNTIED: f64 = 0.1;
/// Thickness of a stack, as a share of its slot.
const STACK: f64 = 0.82;
/// Room above the highest stack for the marks, and below the lowest, as shares of their span.
const ABOVE: f64 = 0.13;
const BELOW: f64 = 0.03;
/// Parts shorter than this are drawn together, in points.
const LEAST: f64 = 0.15;
/// Most features with a colour of their own.
const NAMED: usize = KINDS.len() - 1;

/// Draws the stacks.
pub fn draw(
    spec: &Neurons,
    data: &Data,
    labels: &dyn Labels,
    context: &Context,
) -> Result<(Scene, Caption), FigureError> {
    checked_range(spec.range, false)?;
    let facets = Facets::of(&data.rows, "panels", spec.panels.as_deref(), labels)?;
    let weights = data.best_weights("neurons", &facets)?;
    let importance = Importance::of(data)?;
    let layers: Vec<Layer> =
        weights.iter().map(|(row, weights)| Layer::of(weights, spec.threshold, &importance.of_row(*row))).collect();
    let n_neurons = layers[0].stacks.len();
    if layers.iter().any(|layer| layer.stacks.len() != n_neurons) {
        let why = "its panels are of models of different width; draw one width with `where`".to_owned();
        return Err(FigureError::NothingToDraw { at: "neurons".to_owned(), why });
    }
    let n_features = weights.iter().map(|(_, weights)| weights.n_features()).max().unwrap_or(0);
    let untied = weights.iter().any(|(_, weights)| weights.v.is_some());
    let width = width_for(spec.width, layers.len(), 2);
    let bar = (spec.colour == StackColour::Superposition).then(superposition_bar);
    let block = Block {
        most_columns: if width == Width::OneColumn { 2 } else { 4 },
        aspect: if layers.len() == 1 { 0.6 } else { 0.9 },
        titles: facets.titles.clone(),
        x: Axis { spacing: Spacing::Linear, low: -0.6, high: n_neurons as f64 - 0.4, marks: Marks::At(Vec::new()) },
        x_label: Rich::plain("neuron, by importance of its largest feature"),
        y: vec![y_axis(spec, &layers)],
        y_label: Rich::label(if untied { "input weight |W_{ji}|, largest set to 1" } else { "weight W_{ji}" }),
        bar: bar.clone(),
        ..Block::default()
    };
    let legend = legend(spec, &layers, n_features);
    let mut layout = Parts { width, legend, blocks: vec![block] }.lay_out();
    for (panel, layer) in layout.panels.iter().zip(&layers) {
        layer.draw(&mut layout.scene, panel, &|part: &Part| match (&bar, part.superposition) {
            (Some(bar), Some(value)) => bar.colour(value),
            (Some(_), None) => theme::HATCH,
            (None, _) => feature_colour(part.feature, n_features),
        });
    }
    let caption = caption(spec, untied, &layers, data, &facets, labels, context);
    Ok((layout.finish(), caption))
}

/// A column of numbers.
type Numbers<'a> = &'a [Option<f64>];

/// Importances of features by cell; where rows have none, features count in their order.
struct Importance<'a> {
    columns: Option<(Numbers<'a>, Numbers<'a>)>,
    owners: Vec<Option<usize>>,
}

impl<'a> Importance<'a> {
    fn of(data: &'a Data) -> Result<Importance<'a>, FigureError> {
        let none = Importance { columns: None, owners: Vec::new() };
        let Some(table) = data.find(SideTable::Features) else { return Ok(none) };
        match (table.find("feature"), table.find("importance")) {
            (Some(Column::Number(feature)), Some(Column::Number(importance))) => {
                Ok(Importance { columns: Some((feature, importance)), owners: data.owners("neurons", table)? })
            }
            _ => Ok(none),
        }
    }

    fn of_row(&self, row: usize) -> Vec<(usize, f64)> {
        let Some((feature, importance)) = self.columns else { return Vec::new() };
        let own = (0..self.owners.len()).filter(|at| self.owners[*at] == Some(row));
        own.filter_map(|at| Some((feature[at]?.max(0.0) as usize, importance[at]?))).collect()
    }
}

/// One feature's share of a stack.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    feature: usize,
    height: f64,
    superposition: Option<f64>,
}

/// One neuron.
#[derive(Clone, Debug, PartialEq)]
struct Stack {
    neuron: usize,
    /// By falling |height|.
    parts: Vec<Part>,
    /// Features that are in it.
    n_features: usize,
}

/// The neurons of one model, in the order in which they are drawn.
#[derive(Clone, Debug, PartialEq)]
struct Layer {
    stacks: Vec<Stack>,
}

impl Layer {
    fn of(weights: &ToyWeights, threshold: Option<f64>, importance: &[(usize, f64)]) -> Layer {
        let shares = Shares::of(&weights.gram());
        let important = |feature: usize| {
            importance.iter().find(|(known, _)| *known == feature).map_or(0.0, |(_, importance)| *importance)
        };
        let mut stacks: Vec<Stack> = (0..weights.w.columns)
            .map(|neuron| {
                let heights = heights(weights, neuron);
                let mut parts: Vec<Part> = (0..weights.n_features())
                    .map(|feature| Part {
                        feature,
                        height: heights[feature],
                        superposition: shares.superposition[feature],
                    })
                    .collect();
                // Stable: of equals the first feature.
                parts.sort_by(|a, b| b.height.abs().total_cmp(&a.height.abs()));
                Stack { neuron, parts, n_features: features_in(weights, neuron, threshold) }
            })
            .collect();
        stacks.sort_by(|a, b| {
            let (one, other) = (a.parts[0].feature, b.parts[0].feature);
            important(other).total_cmp(&important(one)).then(one.cmp(&other)).then(a.neuron.cmp(&b.neuron))
        });
        Layer { stacks }
    }

    fn draw(&self, scene: &mut Scene, panel: &Panel, colour: &dyn Fn(&Part) -> Rgb) {
        let point_high = panel.rect.height() / (panel.y.high - panel.y.low);
        for (slot, stack) in self.stacks.iter().enumerate() {
            let sides = (slot as f64 - STACK / 2.0, slot as f64 + STACK / 2.0);
            for sign in [1.0, -1.0] {
                let mut level = 0.0;
                let mut rest = 0.0;
                for part in stack.parts.iter().filter(|part| part.height * sign > 0.0) {
                    if part.height.abs() * point_high < LEAST {
                        rest += part.height;
                        continue;
                    }
                    block(scene, panel, sides, (level, level + part.height), colour(part));
                    level += part.height;
                }
                if rest != 0.0 {
                    block(scene, panel, sides, (level, level + rest), theme::HATCH);
                }
            }
        }
        let (from, to) = (panel.point(panel.x.low, 0.0), panel.point(panel.x.high, 0.0));
        scene.line(from, to, theme::HAIRLINE, theme::INK);
        let slot = panel.rect.width() / (self.stacks.len() as f64 + 0.2);
        let radius = (slot * 0.3).clamp(0.5, theme::DOT);
        for (slot, stack) in self.stacks.iter().enumerate() {
            let [x, _] = panel.point(slot as f64, 0.0);
            let centre = [x, panel.rect.top + 2.6 * theme::DOT];
            let fill = kind_colour(stack.n_features);
            scene.add(Shape::Disc { centre, radius, fill, rim: Some((0.25, theme::INK)), opacity: 1.0 });
        }
    }

    /// Ends of the highest and the lowest stack.
    fn reach(&self) -> (f64, f64) {
        let sum = |stack: &Stack, sign: f64| {
            stack.parts.iter().map(|part| part.height).filter(|height| height * sign > 0.0).sum::<f64>()
        };
        let ends = |sign: f64| self.stacks.iter().map(move |stack| sum(stack, sign));
        (ends(-1.0).fold(0.0, f64::min), ends(1.0).fold(0.0, f64::max))
    }
}

/// A part of a stack, with a hair of paper at its end.
fn block(scene: &mut Scene, panel: &Panel, (left, right): (f64, f64), (from, to): (f64, f64), fill: Rgb) {
    let (a, b) = (panel.point(left, from), panel.point(right, to));
    let rect = Rect::new(a[0], a[1].min(b[1]), b[0], a[1].max(b[1]));
    scene.add_inside(panel.rect, Shape::Block { rect, fill });
    if rect.height() > 1.5 {
        let lines = vec![vec![[rect.left, b[1]], [rect.right, b[1]]]];
        scene.add_inside(panel.rect, Shape::Lines { lines, width: 0.25, colour: theme::PAPER, dash: None });
    }
}

/// What a neuron's stack holds of each feature.
fn heights(weights: &ToyWeights, neuron: usize) -> Vec<f64> {
    let own: Vec<f64> = (0..weights.n_features()).map(|feature| weights.w.at(feature, neuron)).collect();
    if weights.v.is_none() {
        return own;
    }
    let most = own.iter().map(|weight| weight.abs()).fold(0.0, f64::max);
    own.iter().map(|weight| if most > 0.0 { weight.abs() / most } else { 0.0 }).collect()
}

/// How many features are in a neuron.
fn features_in(weights: &ToyWeights, neuron: usize, threshold: Option<f64>) -> usize {
    let features = 0..weights.n_features();
    match &weights.v {
        None => features.filter(|i| weights.w.at(*i, neuron) > threshold.unwrap_or(IN_TIED)).count(),
        Some(v) => {
            let products: Vec<f64> = features.map(|i| (weights.w.at(i, neuron) * v.at(i, neuron)).abs()).collect();
            let most = products.iter().copied().fold(0.0, f64::max);
            products.iter().filter(|product| **product > threshold.unwrap_or(IN_UNTIED) * most).count()
        }
    }
}

fn kind_colour(n_features: usize) -> Rgb {
    match n_features {
        0 => theme::PAPER,
        1 => KINDS[0],
        _ => KINDS[1],
    }
}

fn feature_colour(feature: usize, n_features: usize) -> Rgb {
    match n_features <= NAMED {
        true => KINDS[feature % NAMED],
        false => Ramp::Viridis.at(feature as f64 / (n_features - 1) as f64),
    }
}

/// Superposition from 0 to 1, and more in the last colour.
fn superposition_bar() -> ColourBar {
    let marks = [(0.0, "0"), (0.5, "0.5"), (1.0, "≥1")].map(|(at, words)| (at, Rich::plain(words))).to_vec();
    ColourBar {
        ramp: Ramp::Viridis,
        axis: Axis { marks: Marks::At(marks), ..colour_bar::axis([0.0, 1.0], Spacing::Linear, false) },
        label: Rich::plain("superposition of the feature"),
    }
}

fn y_axis(spec: &Neurons, layers: &[Layer]) -> Axis {
    let (low, high) = layers
        .iter()
        .map(Layer::reach)
        .fold((0.0, 0.0), |(low, high): (f64, f64), (own_low, own_high)| (low.min(own_low), high.max(own_high)));
    let span = (high - low).max(1e-9);
    let rim = if low < 0.0 { BELOW * span } else { 0.0 };
    let [low, high] = spec.range.unwrap_or([low - rim, high + ABOVE * span]);
    Axis::of_range(low, high, Spacing::Linear, 0.0, Marks::Round { whole: false })
}

fn legend(spec: &Neurons, layers: &[Layer], n_features: usize) -> Legend {
    let mut legend = Legend::default();
    // How many features are in a neuron, two standing for more.
    let kinds: Vec<usize> =
        layers.iter().flat_map(|layer| &layer.stacks).map(|stack| stack.n_features.min(2)).collect();
    for (n, words) in [(1, "monosemantic neuron"), (2, "polysemantic neuron"), (0, "neuron without a feature")] {
        if kinds.contains(&n) {
            legend.push(Sample::Ringed(kind_colour(n)), Rich::plain(words));
        }
    }
    if spec.colour == StackColour::Feature && n_features <= NAMED {
        legend.heading(&Rich::plain("feature"));
        for feature in 0..n_features {
            legend.push(Sample::Colour(feature_colour(feature, n_features)), Rich::plain(&feature.to_string()));
        }
    }
    legend
}

fn caption(
    spec: &Neurons,
    untied: bool,
    layers: &[Layer],
    data: &Data,
    facets: &Facets,
    labels: &dyn Labels,
    context: &Context,
) -> Caption {
    let mut caption = Caption::default();
    caption.say(match untied {
        true => "Neurons: input weights |W_ji|, stacked by feature, each neuron scaled so that its greatest is 1",
        false => "Neurons: weights W_ji, stacked by feature, negative ones below the axis",
    });
    caption.say("Stacks stand in the order of the importance of their largest feature, then of its number");
    caption.say(match spec.colour {
        StackColour::Superposition => {
            "Colour: superposition_i of the feature, viridis from 0 to 1 and more; grey for features of norm below 0.1 and \
             for parts too short to be seen"
        }
        StackColour::Feature => "Colour: the feature",
    });
    let rule = match (untied, spec.threshold) {
        (false, threshold) => format!("W_ji is above {}", in_words(threshold.unwrap_or(IN_TIED))),
        (true, threshold) => {
            format!("|W_ji V_ij| is above {} of the neuron's greatest", in_words(threshold.unwrap_or(IN_UNTIED)))
        }
    };
    let count = |layer: &Layer| layer.stacks.iter().filter(|stack| stack.n_features == 1).count().to_string();
    let counts: Vec<String> = layers.iter().map(count).collect();
    caption.say(format!(
        "Dots: a neuron is monosemantic where {rule} for one feature alone; there are {} of {}",
        counts.join(", "),
        layers[0].stacks.len()
    ));
    if let Some(panels) = &spec.panels {
        caption.column("Panels", panels, &labels.describe(panels));
    }
    caption.reduction(context, &[]);
    caption.best_of(data.most_rows(facets));
    caption
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::weights::Grid;

    fn tied(values: &[f64], d_hidden: usize) -> ToyWeights {
        let w = Grid { rows: values.len() / d_hidden, columns: d_hidden, values: values.to_vec() };
        ToyWeights { w, ..ToyWeights::default() }
    }

    #[test]
    fn neurons_stand_by_the_importance_of_their_largest_feature_and_count_what_is_in_them() {
        // Neuron 0 holds features 1 and 2, neuron 1 holds feature 0 alone.
        let weights = tied(&[0.2, 1.0, 0.9, -0.5, 0.4, 0.0], 2);
        let layer = Layer::of(&weights, None, &[]);
        assert_eq!(
            layer.stacks.iter().map(|stack| (stack.neuron, stack.n_features)).collect::<Vec<_>>(),
            [(1, 1), (0, 2)]
        );
        let by_importance = Layer::of(&weights, None, &[(0, 0.1), (1, 0.9)]);
        assert_eq!(by_importance.stacks[0].neuron, 0);
        assert_eq!(layer.reach(), (-0.5, 1.5));
    }

    #[test]
    fn an_untied_model_is_scaled_and_judged_by_its_products() {
        let v = Grid { rows: 2, columns: 1, values: vec![1.0, 0.01] };
        let weights = ToyWeights { v: Some(v), ..tied(&[-4.0, 2.0], 1) };
        assert_eq!(heights(&weights, 0), [1.0, 0.5]);
        // Products 4 and 0.02: the second is below a tenth of the first.
        assert_eq!(features_in(&weights, 0, None), 1);
        assert_eq!(features_in(&weights, 0, Some(0.001)), 2);
    }
}
