//! `figures`: what is drawn from rows, side tables and kept weights.
//!
//! These sections are the only description of a figure: `crate::figure` draws from them as they are read.

use serde_json::{Value as Json, json};

use super::kind::{
    Choice, Flag, Interval, Kind, ListOf, Maybe, Name, NonNegative, Number, OneOrMore, Reader, Shape, Text,
};
use super::kind::{choice, record};
use super::node::{Node, Value};

choice! {
    /// A figure.
    pub enum FigureSection as "figure" {
        /// Cells of two axes, coloured by a column.
        phase_diagram => PhaseDiagram(PhaseDiagramSection as PhaseDiagramSection),
        /// Lines over one column.
        curve => Curve(CurveSection as CurveSection),
        /// A dot for each row, feature or sample.
        scatter => Scatter(ScatterSection as ScatterSection),
        /// Bars of several columns.
        bars => Bars(BarsSection as BarsSection),
        /// Directions of two-dimensional models.
        vectors => Vectors(VectorsFigureSection as VectorsFigureSection),
        /// Heat maps of weights.
        matrix => Matrix(MatrixSection as MatrixSection),
        /// Features as nodes, their overlaps as edges.
        graph => Graph(GraphSection as GraphSection),
        /// Weights of each neuron, stacked.
        neurons => Neurons(NeuronsSection as NeuronsSection),
        /// Lines along training.
        trace => Trace(TraceFigureSection as TraceFigureSection),
    }
}

record! {
    /// A phase diagram.
    pub struct PhaseDiagramSection as "phase_diagram" {
        /// Name of its files; none: made from its kind and columns.
        name: Option<String> as Maybe<Name> = "none",
        /// Column along x.
        x: String as Text = required "data.firing_probability",
        /// Column along y.
        y: String as Text = required "toy.d_hidden",
        /// Column that colours the cells.
        colour: String as Text = required "mcc",
        /// A second panel with the same axes and legend, coloured by this column, such as theory beside what was trained.
        beside: Option<String> as Maybe<Text> = "none",
        /// Column with one panel for each value.
        facet: Option<String> as Maybe<Text> = "none",
        /// Lines over the cells: columns (`mcc = 0.5, 0.9` gives levels) or curves known in closed form, by name.
        contours: Vec<String> as ListOf<Text> = "[]",
        /// Scale of x.
        x_scale: ScaleSection as ScaleSection = "auto",
        /// Scale of y.
        y_scale: ScaleSection as ScaleSection = "auto",
        /// Scale of the colours.
        colour_scale: ScaleSection as ScaleSection = "auto",
        /// Label of x instead of the column's.
        x_label: Option<String> as Maybe<Text> = "none",
        /// Label of y instead of the column's.
        y_label: Option<String> as Maybe<Text> = "none",
        /// Label of the colours instead of the column's.
        colour_label: Option<String> as Maybe<Text> = "none",
        /// Range of the colours.
        range: Option<[f64; 2]> as Maybe<Interval> = "none",
        /// Rows to draw, a polars SQL condition.
        filter("where"): Option<String> as Maybe<Text> = "none",
        /// What it does with seeds.
        seeds: SeedsSection as SeedsSection = "auto",
        /// Width on the page.
        width: WidthSection as WidthSection = "auto",
    }
}

record! {
    /// Lines with bands. Columns may be SQL expressions over rows.
    pub struct CurveSection as "curve" {
        /// Name of its files; none: made from its kind and columns.
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
        /// Lines across at values of y: numbers, or `{at: 0.5, label: 1/2}`.
        lines: Vec<LineSection> as ListOf<LineSection> = "[]",
        /// Upright lines at values of x, likewise.
        x_lines: Vec<LineSection> as ListOf<LineSection> = "[]",
        /// Curves known in closed form, by name.
        theory: Vec<String> as ListOf<Text> = "[]",
        /// What stands below x; none: what the column is called.
        x_label: Option<String> as Maybe<Text> = "none",
        /// What stands beside y; none: what the column is called.
        y_label: Option<String> as Maybe<Text> = "none",
        /// Scale of x.
        x_scale: ScaleSection as ScaleSection = "auto",
        /// Scale of y.
        y_scale: ScaleSection as ScaleSection = "auto",
        /// Range of y.
        range: Option<[f64; 2]> as Maybe<Interval> = "none",
        /// Rows to draw, a polars SQL condition.
        filter("where"): Option<String> as Maybe<Text> = "none",
        /// What it does with seeds.
        seeds: SeedsSection as SeedsSection = "auto",
        /// Width on the page.
        width: WidthSection as WidthSection = "auto",
    }
}

record! {
    /// A dot for each row, feature or sample. Columns may be SQL expressions over rows.
    pub struct ScatterSection as "scatter" {
        /// Name of its files; none: made from its kind and columns.
        name: Option<String> as Maybe<Name> = "none",
        /// Column of the rows along x.
        x: String as Text = required "data.firing_probability",
        /// What stands upwards: a column of the rows, or `features.`, `samples.`, `snapshots.` or `trace.` before a column of that
        /// table; several share the panel, a colour each.
        y: Vec<String> as OneOrMore<Text> = required "features.dimensionality",
        /// Column that colours the dots, of the table of y or of the rows; for a single y.
        colour: Option<String> as Maybe<Text> = "none",
        /// Column with one panel for each value.
        panels: Option<String> as Maybe<Text> = "none",
        /// Lines across at values of y: numbers, or `{at: 0.5, label: 1/2}`.
        lines: Vec<LineSection> as ListOf<LineSection> = "[]",
        /// Upright lines at values of x, likewise.
        x_lines: Vec<LineSection> as ListOf<LineSection> = "[]",
        /// Curves known in closed form, by name.
        theory: Vec<String> as ListOf<Text> = "[]",
        /// What stands below x; none: what the column is called.
        x_label: Option<String> as Maybe<Text> = "none",
        /// What stands beside y; none: what the column is called.
        y_label: Option<String> as Maybe<Text> = "none",
        /// Scale of x.
        x_scale: ScaleSection as ScaleSection = "auto",
        /// Scale of y.
        y_scale: ScaleSection as ScaleSection = "auto",
        /// Scale of the colours.
        colour_scale: ScaleSection as ScaleSection = "auto",
        /// Range of y.
        range: Option<[f64; 2]> as Maybe<Interval> = "none",
        /// Range of the colours.
        colour_range: Option<[f64; 2]> as Maybe<Interval> = "none",
        /// Rows to draw, a polars SQL condition.
        filter("where"): Option<String> as Maybe<Text> = "none",
        /// What it does with seeds.
        seeds: SeedsSection as SeedsSection = "auto",
        /// Width on the page.
        width: WidthSection as WidthSection = "auto",
    }
}

record! {
    /// Bars of several columns.
    pub struct BarsSection as "bars" {
        /// Name of its files; none: made from its kind and columns.
        name: Option<String> as Maybe<Name> = "none",
        /// Columns, one cluster of bars each, or one panel each where there is an x.
        y: Vec<String> as OneOrMore<Text> = required "[mcc, f1]",
        /// Column whose values stand below the bars.
        x: Option<String> as Maybe<Text> = "none",
        /// Column with one bar for each value.
        group: Option<String> as Maybe<Text> = "none",
        /// What the whiskers show.
        band: BandSection as BandSection = "seeds",
        /// Range of y.
        range: Option<[f64; 2]> as Maybe<Interval> = "none",
        /// Rows to draw, a polars SQL condition.
        filter("where"): Option<String> as Maybe<Text> = "none",
        /// What it does with seeds.
        seeds: SeedsSection as SeedsSection = "auto",
        /// Width on the page.
        width: WidthSection as WidthSection = "auto",
    }
}

record! {
    /// Directions W_i of models with d_hidden = 2, in one orientation for all panels.
    pub struct VectorsFigureSection as "vectors" {
        /// Name of its files; none: made from its kind and columns.
        name: Option<String> as Maybe<Name> = "none",
        /// Column with one panel for each value; of several rows of a panel the one of lowest loss is drawn.
        panels: Option<String> as Maybe<Text> = "none",
        /// Draws all rows of a panel over each other.
        overlay: bool as Flag = "false",
        /// Column that colours the directions: of the table `features` or, with `overlay`, of the rows; `feature`: a colour each.
        colour: String as Text = "importance",
        /// Draws the hidden vectors of the training set (table `samples`) in a second row of panels.
        samples: bool as Flag = "false",
        /// Range of the colours.
        range: Option<[f64; 2]> as Maybe<Interval> = "none",
        /// Rows to draw, a polars SQL condition.
        filter("where"): Option<String> as Maybe<Text> = "none",
        /// What it does with seeds.
        seeds: SeedsSection as SeedsSection = "auto",
        /// Width on the page.
        width: WidthSection as WidthSection = "auto",
    }
}

record! {
    /// Heat maps of kept weights, one for each panel, blue-white-red around 0.
    pub struct MatrixSection as "matrix" {
        /// Name of its files; none: made from its kind and columns.
        name: Option<String> as Maybe<Name> = "none",
        /// What the heat maps show.
        show: MatrixShowSection as MatrixShowSection = "wtw",
        /// A column of the bias b beside each map of toy weights.
        bias: bool as Flag = "true",
        /// A bar of length |W_i| for each feature, coloured by its superposition, in a second row of panels.
        bars: bool as Flag = "false",
        /// Column with one panel for each value; of several rows of a panel the one of lowest loss is drawn.
        facet: Option<String> as Maybe<Text> = "none",
        /// Range of the colours; around 0 where it is left out.
        range: Option<[f64; 2]> as Maybe<Interval> = "none",
        /// Rows to draw, a polars SQL condition.
        filter("where"): Option<String> as Maybe<Text> = "none",
        /// What it does with seeds.
        seeds: SeedsSection as SeedsSection = "auto",
        /// Width on the page.
        width: WidthSection as WidthSection = "auto",
    }
}

record! {
    /// Represented features as nodes, joined where they overlap; from kept weights.
    pub struct GraphSection as "graph" {
        /// Name of its files; none: made from its kind and columns.
        name: Option<String> as Maybe<Name> = "none",
        /// Column with one panel for each value; of several rows of a panel the one of lowest loss is drawn.
        panels: Option<String> as Maybe<Text> = "none",
        /// Overlaps |W_i . W_j| above this are edges.
        threshold: f64 as NonNegative = "0.2",
        /// What colours the nodes.
        colour: NodeColourSection as NodeColourSection = "size",
        /// Rows to draw, a polars SQL condition.
        filter("where"): Option<String> as Maybe<Text> = "none",
        /// What it does with seeds.
        seeds: SeedsSection as SeedsSection = "auto",
        /// Width on the page.
        width: WidthSection as WidthSection = "auto",
    }
}

record! {
    /// Weights of each neuron, stacked by feature; from kept weights.
    pub struct NeuronsSection as "neurons" {
        /// Name of its files; none: made from its kind and columns.
        name: Option<String> as Maybe<Name> = "none",
        /// Column with one panel for each value; of several rows of a panel the one of lowest loss is drawn.
        panels: Option<String> as Maybe<Text> = "none",
        /// What colours the features.
        colour: StackColourSection as StackColourSection = "superposition",
        /// A feature is in a neuron where its weight is above this: 0.3 of a tied model, and of an untied one 0.1 of the
        /// neuron's greatest product of input and output weight.
        threshold: Option<f64> as Maybe<NonNegative> = "none",
        /// Range of y.
        range: Option<[f64; 2]> as Maybe<Interval> = "none",
        /// Rows to draw, a polars SQL condition.
        filter("where"): Option<String> as Maybe<Text> = "none",
        /// What it does with seeds.
        seeds: SeedsSection as SeedsSection = "auto",
        /// Width on the page.
        width: WidthSection as WidthSection = "auto",
    }
}

record! {
    /// Lines along training.
    pub struct TraceFigureSection as "trace" {
        /// Name of its files; none: made from its kind and columns.
        name: Option<String> as Maybe<Name> = "none",
        /// Columns of the table `trace`, or `snapshots.` before a column of that table for a line for each feature; several are
        /// stacked over one x.
        y: Vec<String> as OneOrMore<Text> = required "loss",
        /// Which model's training.
        model: TraceModelSection as TraceModelSection = "auto",
        /// Column of the rows with one colour for each value.
        group: Option<String> as Maybe<Text> = "none",
        /// Column with one column of panels for each value.
        panels: Option<String> as Maybe<Text> = "none",
        /// Lines across the panels of features at values of y: numbers, or `{at: 0.5, label: 1/2}`.
        lines: Vec<LineSection> as ListOf<LineSection> = "[]",
        /// Scale of x.
        x_scale: ScaleSection as ScaleSection = "auto",
        /// Scale of y.
        y_scale: ScaleSection as ScaleSection = "auto",
        /// Range of the panels of features.
        range: Option<[f64; 2]> as Maybe<Interval> = "none",
        /// Rows to draw, a polars SQL condition.
        filter("where"): Option<String> as Maybe<Text> = "none",
        /// What it does with seeds.
        seeds: SeedsSection as SeedsSection = "auto",
        /// Width on the page.
        width: WidthSection as WidthSection = "auto",
    }
}

choice! {
    /// What a figure does with seeds.
    pub enum SeedsSection as "seeds" {
        /// What `reduce` of the experiment says.
        auto => Auto,
        /// Every seed is a row.
        all => All,
        /// Numbers are averaged; words keep the most frequent.
        mean => Mean,
        /// The seed of lowest toy loss speaks.
        lowest_loss => LowestLoss,
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
        /// 95 % bootstrap interval of the mean over seeds; the caption names pairs that cannot be told apart.
        bootstrap => Bootstrap,
    }
}

choice! {
    /// What a heat map shows.
    pub enum MatrixShowSection as "show" {
        /// W^T W: the overlaps W_i . W_j of the features of a toy model.
        wtw => WtW,
        /// The toy model's weights: neurons down, features across.
        w => W,
        /// Cosines of an autoencoder's encoder rows with the true features, latents in the order of the features they match.
        encoder => Encoder,
        /// Cosines of its decoder rows with the true features, likewise.
        decoder => Decoder,
        /// Both, side by side.
        encoder_decoder => EncoderDecoder,
    }
}

choice! {
    /// What colours the nodes of a graph.
    pub enum NodeColourSection as "colour" {
        /// How many features the node's component has.
        size => Size,
        /// The feature's dimensionality D_i.
        dimensionality => Dimensionality,
    }
}

choice! {
    /// What colours the parts of a stack.
    pub enum StackColourSection as "colour" {
        /// The feature's superposition, from 0 to 1 and more.
        superposition => Superposition,
        /// A colour for each feature.
        feature => Feature,
    }
}

choice! {
    /// Which model's training.
    pub enum TraceModelSection as "model" {
        /// The toy model's where it was trained, else the autoencoder's.
        auto => Auto,
        /// The toy model's.
        toy => Toy,
        /// The sparse autoencoder's.
        sae => Sae,
    }
}

/// Refuses settings of figures that nothing would be drawn by; `node` is the list of them.
pub fn check(figures: &[FigureSection], node: &Node, reader: &mut Reader) {
    let Value::List(items) = &node.value else { return };
    for (figure, node) in figures.iter().zip(items) {
        let mut idle = |key: &str, why: &str, help: &str| {
            if let Some(written) = node.at([figure.key(), key]).filter(|written| written.is_given()) {
                let message = format!("`{key}` has no effect {why}");
                reader.error(written.place, message, Some(format!("leave it out, or {help}")));
            }
        };
        match figure {
            FigureSection::Scatter(s) if s.colour.is_none() => {
                for key in ["colour_scale", "colour_range"] {
                    idle(key, "without `colour`", "give the column that colours the dots");
                }
            }
            FigureSection::Matrix(s) if s.show != MatrixShowSection::WtW => {
                for key in ["bias", "bars"] {
                    idle(key, &format!("with `show: {}`", s.show.key()), "draw `show: wtw`");
                }
            }
            FigureSection::Trace(s) => {
                let of_features = s.y.iter().filter(|y| y.starts_with("snapshots.")).count();
                if of_features == s.y.len() {
                    idle("y_scale", "on panels of features, which are linear", "add a column of `trace` to `y`");
                }
                if of_features == 0 {
                    for key in ["lines", "range"] {
                        let help = "add a column of `snapshots` to `y`, such as `snapshots.norm`";
                        idle(key, "without a panel of features", help);
                    }
                }
            }
            _ => {}
        }
    }
}

impl Copy for BandSection {}
impl Copy for MatrixShowSection {}
impl Copy for ScaleSection {}
impl Copy for WidthSection {}

/// A line at a value of an axis, with words beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct LineSection {
    /// Value.
    pub at: f64,
    /// Words at its end.
    pub label: Option<String>,
}

record! {
    /// A line at a value of an axis.
    pub struct WrittenLine as "lines" {
        /// Where it is.
        at: f64 as Number = required "0.5",
        /// What stands beside it; none: nothing.
        label: Option<String> as Maybe<Text> = "none",
    }
}

impl Kind for LineSection {
    type Out = LineSection;
    fn read(node: &Node, reader: &mut Reader) -> Option<LineSection> {
        if let Value::Scalar { .. } = node.value {
            return Some(LineSection { at: Number::read(node, reader)?, label: None });
        }
        let WrittenLine { at, label } = WrittenLine::read(node, reader)?;
        Some(LineSection { at, label })
    }
    fn shape() -> Shape {
        let doc = "a number, or `{at: 0.5, label: 1/2}`";
        Shape::Choice(Choice { doc, bare: vec![Number::shape(), WrittenLine::shape()], options: vec![] })
    }
    fn canonical(out: &LineSection) -> Json {
        json!({ "at": out.at, "label": out.label })
    }
}
