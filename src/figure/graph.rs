//! The graph of a toy model's features: represented features are nodes, overlaps |W_i . W_j| above a threshold edges, one
//! panel for each value of a column (Elhage et al. 2022, "The geometry of superposition").

use super::axis::{Axis, Marks, Spacing};
use super::caption::{Caption, Context};
use super::colour::{KINDS, Ramp, Rgb};
use super::colour_bar::{self, ColourBar};
use super::error::FigureError;
use super::layout::{Block, Panel, Parts};
use super::legend::{Legend, Sample};
use super::look::Labels;
use super::network::{self, Edge};
use super::panels::{Facets, width_for};
use super::scene::{Point, Scene, Shape};
use super::sources::Data;
use super::spec::{Graph, NodeColour};
use super::text::Rich;
use super::theme::{self, Width};
use super::ticks::in_words;
use super::weights::{Shares, ToyWeights};
use crate::score::REPRESENTED;

/// Sizes of components that have a colour of their own; larger ones share the last.
const SIZES: usize = 7;
/// Radius of a node as a share of an edge's ideal length, and its least and greatest, in points.
const NODE: (f64, f64, f64) = (0.22, 0.6, 2.4);
/// Width of the weakest and the strongest edge.
const EDGE: (f64, f64) = (0.3, 1.1);
/// So many edges are drawn in full width.
const MANY: f64 = 200.0;
/// Dimensionalities of polytopes at the colour bar; 3/8 would touch 2/5.
const POLYTOPES: [(f64, &str); 7] =
    [(0.0, "0"), (0.25, "1/4"), (0.4, "2/5"), (0.5, "1/2"), (2.0 / 3.0, "2/3"), (0.75, "3/4"), (1.0, "1")];

/// Draws the graphs.
pub fn draw(
    spec: &Graph,
    data: &Data,
    labels: &dyn Labels,
    context: &Context,
) -> Result<(Scene, Caption), FigureError> {
    let facets = Facets::of(&data.rows, "panels", spec.panels.as_deref(), labels)?;
    let weights = data.best_weights("graph", &facets)?;
    let nets: Vec<Net> = weights.iter().map(|(_, weights)| Net::of(weights, spec.threshold)).collect();
    let width = width_for(spec.width, nets.len(), 2);
    let bar = (spec.colour == NodeColour::Dimensionality).then(|| ColourBar {
        ramp: Ramp::Viridis,
        axis: Axis {
            marks: Marks::At(POLYTOPES.map(|(at, words)| (at, Rich::plain(words))).to_vec()),
            ..colour_bar::axis([0.0, 1.0], Spacing::Linear, false)
        },
        label: Rich::label("feature dimensionality D_{i}"),
    });
    let mut legend = Legend::default();
    if bar.is_none() {
        legend.heading(&Rich::plain("features in component"));
        let mut sizes: Vec<usize> =
            nets.iter().flat_map(|net| net.sizes.iter().map(|size| (*size).min(SIZES))).collect();
        sizes.sort_unstable();
        sizes.dedup();
        for size in sizes {
            let words = if size == SIZES { format!("{size} or more") } else { size.to_string() };
            legend.push(Sample::Ringed(size_colour(size)), Rich::plain(&words));
        }
    }
    let block = Block {
        most_columns: if width == Width::OneColumn { 2 } else { 4 },
        titles: facets.titles.clone(),
        bar: bar.clone(),
        ..Block::default()
    };
    let mut layout = Parts { width, legend, blocks: vec![block] }.lay_out();
    let strongest = nets.iter().flat_map(|net| net.edges.iter().map(|edge| edge.2)).fold(0.0, f64::max);
    for (panel, net) in layout.panels.iter().zip(&nets) {
        net.draw(&mut layout.scene, panel, strongest, bar.as_ref());
    }
    let mut caption = Caption::default();
    caption.say(format!(
        "Graph. Nodes are features of norm {REPRESENTED} or more, lines join those with |W_i . W_j| above {}; the wider \
         and darker, the greater it is, up to {}. Places have no meaning: what hangs together stands together",
        in_words(spec.threshold),
        in_words(strongest)
    ));
    caption.say(match spec.colour {
        NodeColour::Size => "Colour: how many features hang together",
        NodeColour::Dimensionality => "Colour: feature dimensionality D_i, viridis from 0 to 1",
    });
    if let Some(panels) = &spec.panels {
        caption.column("Panels", panels, &labels.describe(panels));
    }
    caption.reduction(context, &[]);
    caption.best_of(data.most_rows(&facets));
    Ok((layout.finish(), caption))
}

fn size_colour(size: usize) -> Rgb {
    KINDS[(size.clamp(1, SIZES) - 1) % KINDS.len()]
}

/// The graph of one model; nodes are numbered anew, represented features alone.
struct Net {
    /// Strength |W_i . W_j|.
    edges: Vec<Edge>,
    places: Vec<Point>,
    /// Ideal length of an edge, as a share of the panel.
    unit: f64,
    /// Features in the component of each node.
    sizes: Vec<usize>,
    dimensionality: Vec<f64>,
}

impl Net {
    fn of(weights: &ToyWeights, threshold: f64) -> Net {
        let gram = weights.gram();
        let shares = Shares::of(&gram);
        let nodes = shares.represented();
        let pairs = (0..nodes.len()).flat_map(|a| (a + 1..nodes.len()).map(move |b| (a, b)));
        let edges: Vec<Edge> = pairs
            .map(|(a, b)| (a, b, gram.at(nodes[a], nodes[b]).abs()))
            .filter(|(_, _, strength)| *strength > threshold)
            .collect();
        let mut sizes = vec![1; nodes.len()];
        for members in network::components(nodes.len(), &edges) {
            members.iter().for_each(|node| sizes[*node] = members.len());
        }
        let springs: Vec<Edge> = edges.iter().map(|(a, b, strength)| (*a, *b, strength.min(1.0))).collect();
        let (places, unit) = network::places(nodes.len(), &springs);
        let dimensionality = nodes.iter().map(|node| shares.dimensionality[*node]).collect();
        Net { edges, places, unit, sizes, dimensionality }
    }

    fn draw(&self, scene: &mut Scene, panel: &Panel, strongest: f64, bar: Option<&ColourBar>) {
        let (share, least, most) = NODE;
        let radius = (share * self.unit * panel.rect.width()).clamp(least, most);
        let inset = radius + theme::FRAME;
        let at = |place: Point| {
            let (width, height) = (panel.rect.width() - 2.0 * inset, panel.rect.height() - 2.0 * inset);
            [panel.rect.left + inset + place[0] * width, panel.rect.bottom - inset - place[1] * height]
        };
        let mut edges: Vec<&Edge> = self.edges.iter().collect();
        // Strong ones over weak ones.
        edges.sort_by(|a, b| a.2.total_cmp(&b.2));
        // Of very many edges each is thinner, or they would hide the nodes.
        let thin = (MANY / edges.len().max(1) as f64).sqrt().clamp(0.3, 1.0);
        for (a, b, strength) in edges {
            let share = if strongest > 0.0 { strength / strongest } else { 1.0 };
            scene.add(Shape::Lines {
                lines: vec![vec![at(self.places[*a]), at(self.places[*b])]],
                width: thin * (EDGE.0 + (EDGE.1 - EDGE.0) * share),
                colour: theme::FAINT.towards(theme::INK, 0.15 + 0.75 * share),
                dash: None,
            });
        }
        for (node, place) in self.places.iter().enumerate() {
            let fill = bar.map_or_else(|| size_colour(self.sizes[node]), |bar| bar.colour(self.dimensionality[node]));
            scene.add(Shape::Disc { centre: at(*place), radius, fill, rim: Some((0.25, theme::INK)), opacity: 1.0 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::weights::Grid;

    #[test]
    fn two_digons_and_a_lone_feature_are_three_components() {
        let w = Grid {
            rows: 6,
            columns: 3,
            values: vec![1.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, -0.9, 0.0, 0.0, 0.0, 1.0, 0.1, 0.1, 0.1],
        };
        let net = Net::of(&ToyWeights { w, ..ToyWeights::default() }, 0.2);
        assert_eq!(net.sizes, [2, 2, 2, 2, 1], "the sixth is too short to be a node");
        assert_eq!(net.edges, [(0, 1, 1.0), (2, 3, 0.9)]);
        // An edge of exactly the threshold is none.
        let alone = Net::of(
            &ToyWeights { w: Grid { rows: 2, columns: 1, values: vec![1.0, 0.5] }, ..ToyWeights::default() },
            0.5,
        );
        assert!(alone.edges.is_empty());
    }
}
