//! Rows to pictures. Nothing here trains or scores: a figure reads rows, and the per-feature table where it draws
//! vectors, and writes images with a caption beside them.
//!
//! The way of a figure: `spec` says what is shown; `frame` turns data frames into plain columns (`data`); one of
//! `phase_diagram`, `curve`, `vectors`, `bars` sorts them into panels; `layout` gives every part its place in points;
//! the result is a `scene`, a list of shapes, which `raster` and `png` make into pixels and `svg` into outlines. Both
//! images come from the same scene, text included, so they agree to the pixel, and equal rows give equal bytes.
//!
//! Figures come out at their printed size (85 or 178 mm wide, 300 dpi) with the sizes of `theme`.

use std::path::{Path, PathBuf};

use polars::prelude::DataFrame;

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
mod layout;
mod legend;
mod look;
mod marks;
mod output;
mod overlay;
mod panels;
mod phase_diagram;
mod png;
mod raster;
mod scene;
mod spec;
mod svg;
mod text;
mod theme;
mod ticks;
mod vectors;

pub use axis::AxisScale;
pub use caption::{Context, TheoryLine};
pub use error::FigureError;
pub use look::{Amount, ColumnLook, HouseLabels, Labels};
pub use output::Format;
pub use spec::{Band, Bars, Curve, FigureSpec, PhaseDiagram, Vectors};
pub use theme::Width;

use caption::Caption;
use data::Table;
use scene::Scene;

/// Draws a figure and writes it into `folder`: one image for each format and a caption, `<name>.txt`. Returns the paths
/// of the files, images first.
///
/// `rows` has one row per cell, reduced over seeds or not: phase diagrams show the mean of a number over the rows that
/// fall on one place (the most frequent of kinds), curves and bars show the spread. `features` is the table with one row
/// per cell and feature (columns `cell`, `feature`, `w_0`, `w_1`, and those that colour may name); only `vectors` needs
/// it. Errors if a column is missing or of the wrong type, if there is nothing to draw, or if a file cannot be written;
/// nothing is written unless the figure can be drawn.
pub fn draw(
    spec: &FigureSpec,
    rows: &DataFrame,
    features: Option<&DataFrame>,
    labels: &dyn Labels,
    context: &Context,
    folder: &Path,
    formats: &[Format],
) -> Result<Vec<PathBuf>, FigureError> {
    let rows = frame::filtered(rows, spec.filter())?;
    let wanted: Vec<String> = spec
        .columns()
        .into_iter()
        .chain(context.swept.iter().cloned())
        .chain(["seed", "method"].map(str::to_owned))
        .collect();
    let table = frame::table(&rows, &wanted)?;
    let features = match (spec, features) {
        (FigureSpec::Vectors(vectors), Some(features)) => Some(frame::table(features, &vectors.feature_columns())?),
        _ => None,
    };
    let (scene, caption) = compose(spec, &table, features.as_ref(), labels, context)?;
    output::write(&scene, &caption, context, &spec.file_name(), folder, formats)
}

/// The figure as a scene with its title and description, and its caption.
fn compose(
    spec: &FigureSpec,
    table: &Table,
    features: Option<&Table>,
    labels: &dyn Labels,
    context: &Context,
) -> Result<(Scene, Caption), FigureError> {
    if table.height == 0 {
        let why = match spec.filter() {
            Some(filter) => format!("no row meets `where: {filter}`"),
            None => "there are no rows".to_owned(),
        };
        return Err(FigureError::NothingToDraw { at: spec.file_name(), why });
    }
    let (mut scene, caption) = match spec {
        FigureSpec::PhaseDiagram(spec) => phase_diagram::draw(spec, table, labels, context)?,
        FigureSpec::Curve(spec) => curve::draw(spec, table, labels, context)?,
        FigureSpec::Vectors(spec) => vectors::draw(spec, table, features, labels, context)?,
        FigureSpec::Bars(spec) => bars::draw(spec, table, labels, context)?,
    };
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
