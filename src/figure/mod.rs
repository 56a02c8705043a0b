//! Rows to pictures. Nothing here trains or scores: a figure reads rows, tables beside them and kept weights, and writes
//! images with a caption beside them.
//!
//! The way of a figure: `spec` says what is shown; `sources` and `frame` turn data frames into plain columns (`data`);
//! one module for each kind sorts them into panels; `layout` gives every part its place in points; the result is a
//! `scene`, a list of shapes, which `raster` and `png` make into pixels and `svg` into outlines. Both images come from
//! the same scene, text included, so they agree to the pixel, and equal rows give equal bytes.
//!
//! Figures come out at their printed size (85 or 178 mm wide, 300 dpi) with the sizes of `theme`.

use std::path::{Path, PathBuf};

mod axis;
mod bars;
mod caption;
mod colour;
mod colour_bar;
mod contour;
mod curve;
mod data;
mod error;
mod font;
mod frame;
mod graph;
mod heat;
mod layout;
mod legend;
mod look;
mod marks;
mod matrix;
mod network;
mod neurons;
mod notes;
mod output;
mod overlay;
mod pairs;
mod panel;
mod panels;
mod phase_diagram;
mod png;
mod raster;
mod reference;
mod scatter;
mod scene;
mod sources;
mod spec;
mod svg;
mod text;
mod theme;
mod ticks;
mod trace;
mod vectors;
mod weights;

pub use caption::{Context, TheoryLine};
pub use error::FigureError;
pub use frame::evaluated;
pub use look::{Amount, ColumnLook, HouseLabels, Labels};
pub use output::Format;
pub use sources::{Sources, Weights};
pub use spec::{FigureSpec, SideTable, contour_column, is_expression};

use caption::Caption;
use scene::Scene;
use sources::Data;

/// Draws a figure and writes it into `folder`: one image for each format and a caption, `<name>.txt`. Returns the paths
/// of the files, images first.
///
/// Phase diagrams show the mean of a number over the rows that fall on one place (the most frequent of kinds), curves
/// and bars show the spread over seeds; what is drawn of single cells is drawn of the row of lowest loss. Errors if a
/// column, a side table or weights are missing or of the wrong type, if there is nothing to draw, or if a file cannot be
/// written; nothing is written unless the figure can be drawn.
pub fn draw(
    spec: &FigureSpec,
    sources: &Sources,
    labels: &dyn Labels,
    context: &Context,
    folder: &Path,
    formats: &[Format],
) -> Result<Vec<PathBuf>, FigureError> {
    let data = Data::of(spec, sources, &context.swept)?;
    let (scene, caption) = compose(spec, &data, labels, context)?;
    output::write(&scene, &caption, context, &spec.file_name(), folder, formats)
}

/// The figure as a scene with its title and description, and its caption.
fn compose(
    spec: &FigureSpec,
    data: &Data,
    labels: &dyn Labels,
    context: &Context,
) -> Result<(Scene, Caption), FigureError> {
    if data.rows.height == 0 {
        let why = match spec.filter() {
            Some(filter) => format!("no row meets `where: {filter}`"),
            None => "there are no rows".to_owned(),
        };
        return Err(FigureError::NothingToDraw { at: spec.file_name(), why });
    }
    let (mut scene, mut caption) = match spec {
        FigureSpec::PhaseDiagram(spec) => phase_diagram::draw(spec, &data.rows, labels, context)?,
        FigureSpec::Curve(spec) => curve::draw(spec, &data.rows, labels, context)?,
        FigureSpec::Scatter(spec) => scatter::draw(spec, data, labels, context)?,
        FigureSpec::Bars(spec) => bars::draw(spec, &data.rows, labels, context)?,
        FigureSpec::Vectors(spec) => vectors::draw(spec, data, labels, context)?,
        FigureSpec::Matrix(spec) => matrix::draw(spec, data, labels, context)?,
        FigureSpec::Graph(spec) => graph::draw(spec, data, labels, context)?,
        FigureSpec::Neurons(spec) => neurons::draw(spec, data, labels, context)?,
        FigureSpec::Trace(spec) => trace::draw(spec, data, labels, context)?,
    };
    if let Some(filter) = spec.filter() {
        caption.say(format!("Only rows where {filter}"));
    }
    scene.title = match context.experiment.as_str() {
        "" => spec.file_name(),
        experiment => format!("{experiment}: {}", spec.file_name()),
    };
    scene.description = caption.description();
    Ok((scene, caption))
}

#[cfg(test)]
mod extent;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_kinds;
