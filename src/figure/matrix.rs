//! Heat maps of kept weights: the overlaps W_i . W_j of a toy model's features with its bias beside them and, below, a
//! bar for each feature (Elhage et al. 2022, "Demonstrating superposition"); the weights themselves; an autoencoder's
//! encoder and decoder against the toy model's features.

use super::axis::{Axis, Marks, Spacing};
use super::caption::{Caption, Context};
use super::colour::Ramp;
use super::colour_bar::{self, ColourBar};
use super::error::FigureError;
use super::heat;
use super::layout::{Block, Panel, Parts};
use super::legend::Legend;
use super::look::Labels;
use super::panels::{Facets, checked_range, width_for};
use super::scene::{Rect, Scene, Shape};
use super::sources::Data;
use super::spec::{Matrix, MatrixShow};
use super::text::Rich;
use super::theme::{self, Width};
use super::ticks::in_words;
use super::weights::{Grid, Shares, ToyWeights};

/// Between a matrix and its bias, and width of the bias, as shares of the matrix.
const BIAS_GAP: f64 = 0.04;
const BIAS_WIDTH: f64 = 0.05;
/// Least and greatest height of a map over its width; between them cells are square.
const ASPECTS: [f64; 2] = [0.45, 1.6];
/// Rows less high than this, in points, are filled by their bars.
const LEAST_ROW: f64 = 1.8;
/// Thickness of a bar, as a share of its row.
const BAR: f64 = 0.84;
/// Room beyond the longest bar, as a share of it.
const RIM: f64 = 0.06;

/// Draws the maps.
pub fn draw(
    spec: &Matrix,
    data: &Data,
    labels: &dyn Labels,
    context: &Context,
) -> Result<(Scene, Caption), FigureError> {
    checked_range(spec.range, false)?;
    let facets = Facets::of(&data.rows, "panels", spec.facet.as_deref(), labels)?;
    let weights = data.best_weights("matrix", &facets)?;
    let (shown, titles) = panels(spec, &facets);
    let maps: Vec<Map> = (weights.iter())
        .flat_map(|(_, weights)| shown.iter().map(move |show| Map::of(*show, spec.bias, weights)))
        .collect::<Result<_, _>>()?;
    let (rows, columns) = (maps[0].cells.rows, maps[0].cells.columns);
    if maps.iter().any(|map| (map.cells.rows, map.cells.columns) != (rows, columns)) {
        let why = "its panels are of models of different size; draw one size with `where`".to_owned();
        return Err(FigureError::NothingToDraw { at: "matrix".to_owned(), why });
    }
    let width = width_for(spec.width, maps.len(), 2);
    let bar = bar_of(spec, &maps);
    let with_bias = maps.iter().any(|map| map.bias.is_some());
    let top = map_block(spec, (rows, columns), with_bias, titles, width);
    let aspect = top.aspect;
    let mut blocks = vec![Block { bar: Some(bar.clone()), ..top }];
    let shares: Vec<Shares> = weights.iter().map(|(_, weights)| Shares::of(&weights.gram())).collect();
    let with_bars = with_bars(spec);
    if with_bars {
        blocks.push(bars_block(&shares, aspect, width));
    }
    let mut layout = Parts { width, legend: Legend::default(), blocks }.lay_out();
    for (number, map) in maps.iter().enumerate() {
        let panel = &layout.panels[number];
        map.draw(&mut layout.scene, panel, &bar);
        if with_bars {
            draw_bars(&mut layout.scene, &layout.panels[maps.len() + number], &shares[number]);
        }
    }
    let caption = caption(spec, &bar, with_bars, data, &facets, labels, context);
    Ok((layout.finish(), caption))
}

/// What the panels of one facet show, and the titles of all panels.
fn panels(spec: &Matrix, facets: &Facets) -> (Vec<MatrixShow>, Vec<Rich>) {
    if spec.show != MatrixShow::EncoderDecoder {
        return (vec![spec.show], facets.titles.clone());
    }
    let title = |of: &Rich, part: &str| match of.is_empty() {
        true => Rich::plain(part),
        false => of.clone().then(&Rich::plain(&format!(": {part}"))),
    };
    let both = facets.titles.iter().flat_map(|of| [title(of, "encoder"), title(of, "decoder")]);
    (vec![MatrixShow::Encoder, MatrixShow::Decoder], both.collect())
}

/// Whether bars of the features stand below the maps.
fn with_bars(spec: &Matrix) -> bool {
    spec.bars && spec.show == MatrixShow::WtW
}

/// What one panel shows.
struct Map {
    cells: Grid,
    bias: Option<Grid>,
}

impl Map {
    fn of(show: MatrixShow, bias: bool, weights: &ToyWeights) -> Result<Map, FigureError> {
        let coder = |coder: &Option<Grid>, name: &str| {
            let missing = || FigureError::NoWeights {
                at: "matrix".to_owned(),
                why: format!("no {name} of an autoencoder was kept for a panel; pick rows that have one with `where`"),
            };
            let order = matched(weights.decoder.as_ref().ok_or_else(missing)?, &weights.w);
            let cosines = cosines(coder.as_ref().ok_or_else(missing)?, &weights.w);
            Ok(Grid::from_fn(cosines.rows, cosines.columns, |row, column| cosines.at(order[row], column)))
        };
        let w = &weights.w;
        let cells = match show {
            MatrixShow::WtW => weights.gram(),
            MatrixShow::W => Grid::from_fn(w.columns, w.rows, |neuron, feature| w.at(feature, neuron)),
            MatrixShow::Encoder => coder(&weights.encoder, "encoder")?,
            MatrixShow::Decoder | MatrixShow::EncoderDecoder => coder(&weights.decoder, "decoder")?,
        };
        let with_bias = bias && show == MatrixShow::WtW && !weights.b.is_empty();
        let bias = with_bias.then(|| Grid { rows: weights.b.len(), columns: 1, values: weights.b.clone() });
        Ok(Map { cells, bias })
    }

    fn draw(&self, scene: &mut Scene, panel: &Panel, bar: &ColourBar) {
        heat::draw(scene, panel, &self.cells, (-0.5, 1.0), bar);
        if let Some(bias) = &self.bias {
            let n = self.cells.columns as f64;
            heat::draw(scene, panel, bias, (n - 0.5 + n * BIAS_GAP, bias_width(n)), bar);
        }
    }
}

/// Width of the bias in cells: one, or what can still be seen beside many.
fn bias_width(n: f64) -> f64 {
    (n * BIAS_WIDTH).max(1.0)
}

/// Cosines of the rows of one matrix with those of another; 0 where a row is 0.
fn cosines(rows: &Grid, others: &Grid) -> Grid {
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let norms =
        |grid: &Grid| -> Vec<f64> { (0..grid.rows).map(|i| product(grid.row(i), grid.row(i)).sqrt()).collect() };
    let (own, theirs) = (norms(rows), norms(others));
    Grid::from_fn(rows.rows, others.rows, |i, j| match own[i] * theirs[j] {
        0.0 => 0.0,
        norm => product(rows.row(i), others.row(j)) / norm,
    })
}

/// Rows of a decoder in the order of the features they match: pairs of greatest cosine take each other first; what is left
/// over follows in its own order. The cosine has its sign: the opposite of a feature may be another feature.
fn matched(decoder: &Grid, truth: &Grid) -> Vec<usize> {
    let cosines = cosines(decoder, truth);
    let mut pairs: Vec<(usize, usize)> =
        (0..cosines.rows).flat_map(|latent| (0..cosines.columns).map(move |feature| (latent, feature))).collect();
    let likeness = |(latent, feature): &(usize, usize)| cosines.at(*latent, *feature);
    // A stable sort: of equals the first latent and feature.
    pairs.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
    let mut latent_of = vec![None; cosines.columns];
    let mut taken = vec![false; cosines.rows];
    for (latent, feature) in pairs {
        if latent_of[feature].is_none() && !taken[latent] {
            latent_of[feature] = Some(latent);
            taken[latent] = true;
        }
    }
    let left = (0..cosines.rows).filter(|latent| !taken[*latent]);
    latent_of.into_iter().flatten().chain(left).collect()
}

fn bar_of(spec: &Matrix, maps: &[Map]) -> ColourBar {
    let label = match (&spec.show, spec.bias) {
        (MatrixShow::WtW, true) => "W_{i} · W_{j} and bias b_{i}",
        (MatrixShow::WtW, false) => "W_{i} · W_{j}",
        (MatrixShow::W, _) => "weight W",
        (MatrixShow::Encoder, _) => "cosine, encoder and feature",
        (MatrixShow::Decoder, _) => "cosine, decoder and feature",
        (MatrixShow::EncoderDecoder, _) => "cosine with the feature",
    };
    let values = maps.iter().flat_map(|map| {
        let bias = map.bias.iter().flat_map(|bias| bias.values.iter());
        map.cells.values.iter().chain(bias).copied()
    });
    heat::signed_bar(values, spec.range, if spec.show == MatrixShow::W { 0.1 } else { 1.0 }, label)
}

fn map_block(
    spec: &Matrix,
    (rows, columns): (usize, usize),
    with_bias: bool,
    titles: Vec<Rich>,
    width: Width,
) -> Block {
    let n = columns as f64;
    let beyond = if with_bias { n * BIAS_GAP + bias_width(n) } else { 0.0 };
    let mut x = heat::axis_across(columns, beyond);
    if let (true, Marks::At(marks)) = (with_bias, &mut x.marks) {
        // The letter takes the place of a number that would stand too close to it.
        marks.retain(|(at, _)| *at < n * (1.0 - 2.5 * BIAS_WIDTH));
        marks.push((n - 0.5 + n * BIAS_GAP + bias_width(n) / 2.0, Rich::label("b")));
    }
    let (x_label, y_label) = match spec.show {
        MatrixShow::WtW => ("feature j", "feature i"),
        MatrixShow::W => ("feature", "neuron"),
        MatrixShow::Encoder | MatrixShow::Decoder | MatrixShow::EncoderDecoder => ("feature", "latent"),
    };
    Block {
        most_columns: most_columns(width, with_bars(spec), titles.len()),
        aspect: (rows as f64 / n).clamp(ASPECTS[0], ASPECTS[1]) / (1.0 + beyond / n),
        titles,
        x,
        x_label: Rich::plain(x_label),
        y: vec![heat::axis_down(rows)],
        y_label: Rich::plain(y_label),
        framed: false,
        ..Block::default()
    }
}

fn most_columns(width: Width, bars: bool, panels: usize) -> usize {
    match (width, bars) {
        (Width::OneColumn, false) => 2,
        (Width::TwoColumns, false) => 4,
        // Bars stand below their matrix.
        (_, true) => panels,
    }
}

fn bars_block(shares: &[Shares], aspect: f64, width: Width) -> Block {
    let longest = shares.iter().flat_map(|shares| shares.norm.iter().copied()).fold(0.0, f64::max);
    let high = if longest > 0.0 { longest * (1.0 + RIM) } else { 1.0 };
    let marks = [(0.0, "0"), (0.5, "0.5"), (1.0, "≥1")].map(|(at, words)| (at, Rich::plain(words))).to_vec();
    Block {
        most_columns: most_columns(width, true, shares.len()),
        aspect,
        titles: vec![Rich::default(); shares.len()],
        x: Axis::of_range(0.0, high, Spacing::Linear, 0.0, Marks::Round { whole: false }),
        x_label: Rich::label("norm |W_{i}|"),
        y: vec![heat::axis_down(shares[0].norm.len())],
        y_label: Rich::plain("feature i"),
        bar: Some(ColourBar {
            ramp: Ramp::Viridis,
            axis: Axis { marks: Marks::At(marks), ..colour_bar::axis([0.0, 1.0], Spacing::Linear, false) },
            label: Rich::plain("superposition"),
        }),
        ..Block::default()
    }
}

/// A bar for each feature, in the row of its number.
fn draw_bars(scene: &mut Scene, panel: &Panel, shares: &Shares) {
    // Gaps of less than a pixel or two would come and go.
    let thick = if panel.rect.height() / shares.norm.len() as f64 > LEAST_ROW { BAR } else { 1.0 };
    for (i, (norm, superposition)) in shares.norm.iter().zip(&shares.superposition).enumerate() {
        let (from, to) = (panel.point(0.0, i as f64 - thick / 2.0), panel.point(*norm, i as f64 + thick / 2.0));
        let fill = superposition.map_or(theme::HATCH, |value| Ramp::Viridis.at(value));
        scene.add_inside(panel.rect, Shape::Block { rect: Rect::new(from[0], from[1], to[0], to[1]), fill });
    }
}

fn caption(
    spec: &Matrix,
    bar: &ColourBar,
    with_bars: bool,
    data: &Data,
    facets: &Facets,
    labels: &dyn Labels,
    context: &Context,
) -> Caption {
    let mut caption = Caption::default();
    caption.say(match spec.show {
        MatrixShow::WtW => "Overlaps W_i . W_j of the features of the toy model, from kept weights",
        MatrixShow::W => "Weights of the toy model: neurons down, features across",
        MatrixShow::Encoder => {
            "Cosines of the encoder's rows with the true features; latents stand in the order of the features that \
             their decoder rows match, greatest cosine first"
        }
        MatrixShow::Decoder => {
            "Cosines of the decoder's rows with the true features; latents stand in the order of the features they match, \
             greatest cosine first"
        }
        MatrixShow::EncoderDecoder => {
            "Cosines of the encoder's rows, and beside them of the decoder's, with the true features; latents stand in the \
             order of the features that their decoder rows match, greatest cosine first"
        }
    });
    if spec.bias && spec.show == MatrixShow::WtW {
        caption.say("Narrow column: the bias b_i, in the same colours");
    }
    let (low, high) = (in_words(bar.axis.low), in_words(bar.axis.high));
    caption.say(format!("Colours: blue-white-red from {low} to {high}; values outside take the end colours"));
    if with_bars {
        caption.say(
            "Bars: |W_i|, coloured in viridis by superposition_i, the sum over j other than i of (W_i . W_j)^2 / |W_i|^2, \
             from 0 to 1 and more; grey below a norm of 0.1",
        );
    }
    if let Some(panels) = &spec.facet {
        caption.column("Panels", panels, &labels.describe(panels));
    }
    caption.reduction(context, &[]);
    caption.best_of(data.most_rows(facets));
    caption
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latents_stand_in_the_order_of_their_features_and_the_rest_after_them() {
        let truth = Grid { rows: 2, columns: 2, values: vec![1.0, 0.0, 0.0, 1.0] };
        let decoder = Grid { rows: 3, columns: 2, values: vec![0.1, 2.0, 0.6, 0.8, -3.0, 0.1] };
        // The third row is opposite to feature 0, so the second takes it.
        assert_eq!(matched(&decoder, &truth), [1, 0, 2]);
        let cosines = cosines(&decoder, &truth);
        assert!((cosines.at(1, 0) - 0.6).abs() < 1e-12 && (cosines.at(1, 1) - 0.8).abs() < 1e-12);
    }
}
