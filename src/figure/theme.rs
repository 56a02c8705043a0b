//! Sizes of everything drawn, once. Lengths are points (1/72 inch) unless a name says otherwise; figures come out at
//! their printed size, so 8 pt here is 8 pt on the page.

use super::colour::Rgb;

/// Points in a millimetre.
pub const POINTS_PER_MM: f64 = 72.0 / 25.4;
/// Width of one column of a paper, mm.
pub const ONE_COLUMN_MM: f64 = 85.0;
/// Width of two columns of a paper, mm.
pub const TWO_COLUMNS_MM: f64 = 178.0;
/// Resolution of PNG files, pixels per inch.
pub const DPI: f64 = 300.0;
/// Pixels in a point.
pub const PIXELS_PER_POINT: f64 = DPI / 72.0;

/// Labels, panel titles, legends.
pub const TEXT: f64 = 8.0;
/// Numbers and names at ticks.
pub const TICK_TEXT: f64 = 7.0;
/// Data lines.
pub const LINE: f64 = 0.8;
/// Frames and ticks: thinner than data.
pub const FRAME: f64 = 0.6;
/// Minor ticks.
pub const HAIRLINE: f64 = 0.4;
/// Theory lines: the white line, and the dark halo under it.
pub const OVERLAY: f64 = 1.0;
/// Full width of the halo.
pub const HALO: f64 = 2.2;

/// Empty rim of a figure.
pub const RIM: f64 = 2.0;
/// Length of a labelled tick.
pub const TICK: f64 = 2.6;
/// Length of a minor tick.
pub const MINOR_TICK: f64 = 1.5;
/// Between a tick and its label.
pub const TICK_GAP: f64 = 1.6;
/// Between tick labels and the axis label.
pub const LABEL_GAP: f64 = 3.0;
/// Between a panel and its title.
pub const TITLE_GAP: f64 = 3.0;
/// Least space between neighbouring panels.
pub const PANEL_GAP: f64 = 8.0;
/// Least space between two tick labels side by side.
pub const TICK_APART: f64 = 3.0;
/// From baseline to baseline, as a multiple of the text size.
pub const LEADING: f64 = 1.2;
/// Width of a colour bar.
pub const BAR: f64 = 7.0;
/// Between the panels and the colour bar.
pub const BAR_GAP: f64 = 7.0;
/// Radius of a data point.
pub const DOT: f64 = 1.5;

/// Frames, ticks and text.
pub const INK: Rgb = Rgb(0x1a, 0x1a, 0x1a);
/// Paper.
pub const PAPER: Rgb = Rgb(0xff, 0xff, 0xff);
/// Lines that must not draw the eye.
pub const FAINT: Rgb = Rgb(0xdc, 0xdc, 0xdc);
/// Ground of a cell without a value.
pub const MISSING: Rgb = Rgb(0xf3, 0xf3, 0xf3);
/// Reference lines.
pub const REFERENCE: Rgb = Rgb(0x80, 0x80, 0x80);
/// Hatching of a cell without a value.
pub const HATCH: Rgb = Rgb(0xb4, 0xb4, 0xb4);
/// Distance between hatch lines, measured along an axis.
pub const HATCH_STEP: f64 = 3.0;

/// How wide a figure is on the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// One column, 85 mm.
    OneColumn,
    /// Across two columns, 178 mm.
    TwoColumns,
}

impl Width {
    /// Width in points.
    pub fn points(self) -> f64 {
        POINTS_PER_MM
            * match self {
                Width::OneColumn => ONE_COLUMN_MM,
                Width::TwoColumns => TWO_COLUMNS_MM,
            }
    }
}
