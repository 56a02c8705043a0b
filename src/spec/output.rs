//! What is measured, kept, drawn and expected: `evaluate`, `save`, `reduce`, `figures`, `expect`.

use serde_json::{Value as Json, json};

use super::kind::{Flag, Interval, Kind, ListOf, Maybe, Name, NonNegative, Number, OneOrMore, Reader, Samples, Shape};
use super::kind::{Text, Whole, choice, record};
use super::node::Node;

record! {
    /// The samples on which scores are taken: the same for every method of a cell.
    pub struct EvaluateSection as "evaluate" {
        /// Fresh samples.
        samples: usize as Samples = "100000",
    }
}

record! {
    /// What is kept beside the scores.
    pub struct SaveSection as "save" {
        /// Which weights are kept.
        weights: WeightsSection as WeightsSection = "none",
        /// One row per cell and feature: norms, matched latents, directions of small models.
        features: bool as Flag = "true",
        /// Loss along training.
        trace: TraceSection as TraceSection = "{}",
    }
}

choice! {
    /// Which weights are kept.
    pub enum WeightsSection as "weights" {
        /// No weights.
        none => None,
        /// Of the seed with the lowest toy loss in each combination, among the seeds of a chunk (one of these is the best
        /// of all).
        best => Best,
        /// Of every cell.
        all => All,
    }
}

record! {
    /// Logging along training.
    pub struct TraceSection as "trace" {
        /// Every so many steps; 0: never.
        every: usize as Whole = "0",
    }
}

record! {
    /// What figures and expectations do with seeds.
    pub struct ReduceSection as "reduce" {
        /// Rule.
        seeds: ReduceRule as ReduceRule = "none",
    }
}

choice! {
    /// Rule for seeds.
    pub enum ReduceRule as "reduce" {
        /// Every seed is a row.
        none => None,
        /// Numbers are averaged; words keep the most frequent.
        mean => Mean,
        /// The seed of lowest toy loss speaks.
        lowest_loss => LowestLoss,
    }
}

choice! {
    /// A figure.
    pub enum FigureSection as "figure" {
        /// Cells of two axes, coloured by a column.
        phase_diagram => PhaseDiagram(PhaseDiagramSection as PhaseDiagramSection),
        /// Lines over one column.
        curve => Curve(CurveSection as CurveSection),
        /// Directions of two-dimensional models.
        vectors => Vectors(VectorsSection as VectorsFigureSection),
        /// Bars of several columns.
        bars => Bars(BarsSection as BarsSection),
    }
    later ["scatter", "matrix", "graph", "trace"]
}

/// [`VectorsSection`], under a name of its own.
pub type VectorsFigureSection = VectorsSection;

record! {
    /// A phase diagram.
    pub struct PhaseDiagramSection as "phase_diagram" {
        /// Name of its files; none: made from its columns.
        name: Option<String> as Maybe<Name> = "none",
        /// Column along x.
        x: String as Text = required "data.firing_probability",
        /// Column along y.
        y: String as Text = required "toy.d_hidden",
        /// Column that colours the cells.
        colour: String as Text = required "mcc",
        /// Column with one panel for each value.
        facet: Option<String> as Maybe<Text> = "none",
        /// Columns whose level lines are drawn over the cells.
        contours: Vec<String> as ListOf<Text> = "[]",
        /// Rows to draw, a polars SQL condition.
        filter("where"): Option<String> as Maybe<Text> = "none",
        /// Scale of x.
        x_scale: ScaleSection as ScaleSection = "auto",
        /// Scale of y.
        y_scale: ScaleSection as ScaleSection = "auto",
        /// Scale of the colours.
        colour_scale: ScaleSection as ScaleSection = "auto",
        /// Range of the colours.
        range: Option<[f64; 2]> as Maybe<Interval> = "none",
        /// Width on the page.
        width: WidthSection as WidthSection = "auto",
    }
}

record! {
    /// Lines with bands.
    pub struct CurveSection as "curve" {
        /// Name of its files; none: made from its columns.
        name: Option<String> as Maybe<Name> = "none",
        /// Column along x.
        x: String as Text = required "l0",
        /// Column along y; several give one panel each.
        y: Vec<String> as OneOrMore<Text> = required "fvu",
        /// Column with one line for each value.
        group: Option<String> as Maybe<Text> = "none",
        /// Column with one panel for each value; for a single y.
        facet: Option<String> as Maybe<Text> = "none",
        /// What the band shows.
        band: BandSection as BandSection = "none",
        /// Rows to draw, a polars SQL condition.
        filter("where"): Option<String> as Maybe<Text> = "none",
        /// Scale of x.
        x_scale: ScaleSection as ScaleSection = "auto",
        /// Scale of y.
        y_scale: ScaleSection as ScaleSection = "auto",
        /// Range of y.
        range: Option<[f64; 2]> as Maybe<Interval> = "none",
        /// Width on the page.
        width: WidthSection as WidthSection = "auto",
    }
}

record! {
    /// Directions W_i of models with d_hidden = 2.
    pub struct VectorsSection as "vectors" {
        /// Name of its files; none: made from its columns.
        name: Option<String> as Maybe<Name> = "none",
        /// Column with one panel for each value.
        panels: Option<String> as Maybe<Text> = "none",
        /// Column of the table `features` that colours the directions; `feature`: a colour each.
        colour: String as Text = "importance",
        /// Range of the colours.
        range: Option<[f64; 2]> as Maybe<Interval> = "none",
        /// Rows to draw, a polars SQL condition.
        filter("where"): Option<String> as Maybe<Text> = "none",
        /// Width on the page.
        width: WidthSection as WidthSection = "auto",
    }
}

record! {
    /// Bars of several columns.
    pub struct BarsSection as "bars" {
        /// Name of its files; none: made from its columns.
        name: Option<String> as Maybe<Name> = "none",
        /// Columns, one cluster of bars each, or one panel each where there is an x.
        y: Vec<String> as OneOrMore<Text> = required "[mcc, f1]",
        /// Column whose values stand below the bars.
        x: Option<String> as Maybe<Text> = "none",
        /// Column with one bar for each value.
        group: Option<String> as Maybe<Text> = "none",
        /// What the whiskers show.
        band: BandSection as BandSection = "seeds",
        /// Rows to draw, a polars SQL condition.
        filter("where"): Option<String> as Maybe<Text> = "none",
        /// Range of y.
        range: Option<[f64; 2]> as Maybe<Interval> = "none",
        /// Width on the page.
        width: WidthSection as WidthSection = "auto",
    }
}

choice! {
    /// Scale of an axis.
    pub enum ScaleSection as "scale" {
        /// Logarithmic where the values are closer to a geometric row than to an arithmetic one.
        auto => Auto,
        /// Logarithmic.
        log => Log,
        /// Linear.
        linear => Linear,
    }
}

choice! {
    /// Width of a figure.
    pub enum WidthSection as "width" {
        /// As many columns as its panels need.
        auto => Auto,
        /// One column of a page, 85 mm.
        one => One,
        /// Two columns, 178 mm.
        two => Two,
    }
}

choice! {
    /// What a band shows.
    pub enum BandSection as "band" {
        /// No band.
        none => None,
        /// From the least to the greatest seed.
        seeds => Seeds,
        /// One standard deviation over seeds to each side.
        sd => Sd,
    }
}

/// A gate: what should come out, with its source.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpectSection {
    pub claim: String,
    /// An expression over rows, polars SQL.
    pub value: String,
    /// Rows it is taken over, a polars SQL condition.
    pub filter: Option<String>,
    pub bound: Bound,
    pub source: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
    Between(f64, f64),
    Equals { value: f64, tolerance: f64 },
}

record! {
    /// A gate: what should come out, with its source.
    pub struct WrittenExpect as "expect" {
        /// What is claimed, in words.
        claim: String as Text = required "TopK finds every feature",
        /// An expression over rows, polars SQL; also spearman(x, y), largest_rise(x, y) and largest_fall(x, y).
        value: String as Text = required "avg(mcc)",
        /// Rows it is taken over, a polars SQL condition.
        filter("where"): Option<String> as Maybe<Text> = "none",
        /// The value is this or more.
        at_least: Option<f64> as Maybe<Number> = "none",
        /// The value is this or less.
        at_most: Option<f64> as Maybe<Number> = "none",
        /// The value lies in [low, high].
        between: Option<[f64; 2]> as Maybe<Interval> = "none",
        /// The value is this, within `tolerance`.
        equals: Option<f64> as Maybe<Number> = "none",
        /// Half-width of `equals`.
        tolerance: Option<f64> as Maybe<NonNegative> = "none",
        /// Where the number comes from.
        source: Option<String> as Maybe<Text> = "none",
    }
}

impl Kind for ExpectSection {
    type Out = ExpectSection;
    fn read(node: &Node, reader: &mut Reader) -> Option<ExpectSection> {
        let w = WrittenExpect::read(node, reader)?;
        let bounds = [
            w.at_least.map(Bound::AtLeast),
            w.at_most.map(Bound::AtMost),
            w.between.map(|[low, high]| Bound::Between(low, high)),
            w.equals.map(|value| Bound::Equals { value, tolerance: w.tolerance.unwrap_or(0.0) }),
        ];
        let mut given = bounds.into_iter().flatten();
        let (Some(bound), None) = (given.next(), given.next()) else {
            let message = "an expectation has exactly one of at_least, at_most, between, equals";
            reader.error(node.place, message, Some("for example `at_least: 0.9`".to_owned()));
            return None;
        };
        if let (Some(tolerance), None) = (node.get("tolerance"), node.get("equals")) {
            reader.error(tolerance.place, "`tolerance` belongs to `equals`", None);
            return None;
        }
        Some(ExpectSection { claim: w.claim, value: w.value, filter: w.filter, bound, source: w.source })
    }
    fn shape() -> Shape {
        WrittenExpect::shape()
    }
    fn canonical(out: &ExpectSection) -> Json {
        json!({ "claim": out.claim, "value": out.value })
    }
}
