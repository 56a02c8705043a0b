//! Text in figures: short runs with symbols slanted and exponents raised, measured and broken into lines by the
//! outlines that are drawn, and numbers written as a paper writes them.

use super::font::{DEJAVU_SANS, GlyphId};

/// Size of a superscript or subscript relative to the text.
const SCRIPT_SIZE: f64 = 0.7;
/// How far a superscript is raised, in text sizes.
const SUPERSCRIPT_RISE: f64 = 0.36;
/// How far a subscript is lowered, in text sizes.
const SUBSCRIPT_DROP: f64 = 0.16;
/// Slant of a symbol: horizontal shift per height, the 11 degrees of DejaVu Sans Oblique.
const SLANT: f64 = 0.194;
/// Height of capitals and digits, in text sizes (cap height 1493 of 2048 units).
pub const CAP_HEIGHT: f64 = 0.729;
/// Depth of letters like p, in text sizes.
pub const DEPTH: f64 = 0.236;

/// How a run of characters is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Upright, on the baseline.
    Plain,
    /// Slanted, for one-letter mathematical symbols.
    Symbol,
    /// Smaller and raised.
    Superscript,
    /// Smaller and lowered.
    Subscript,
}

/// One glyph of a set line, in text sizes from the line's start, y upwards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placed {
    /// The glyph.
    pub glyph: GlyphId,
    /// Pen position.
    pub x: f64,
    /// Height of the glyph's baseline over the line's.
    pub y: f64,
    /// Size relative to the text.
    pub size: f64,
    /// Horizontal shift per height.
    pub slant: f64,
}

/// A line of text in runs of different style.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rich {
    runs: Vec<(Style, String)>,
}

impl Rich {
    /// Text in the plain style.
    pub fn plain(text: &str) -> Rich {
        Rich::default().with(Style::Plain, text)
    }

    /// A label as the caller writes it: `^{..}` raises, `_{..}` lowers, all else is plain.
    pub fn label(text: &str) -> Rich {
        let mut rich = Rich::default();
        let mut rest = text;
        while let Some((before, style, inside, after)) = next_script(rest) {
            rich = rich.with(Style::Plain, before).with(style, inside);
            rest = after;
        }
        rich.with(Style::Plain, rest)
    }

    /// This line with `text` appended in `style`.
    pub fn with(mut self, style: Style, text: &str) -> Rich {
        if text.is_empty() {
            return self;
        }
        match self.runs.last_mut() {
            Some((last, run)) if *last == style => run.push_str(text),
            _ => self.runs.push((style, text.to_owned())),
        }
        self
    }

    /// This line followed by another.
    pub fn then(self, other: &Rich) -> Rich {
        other.runs.iter().fold(self, |line, (style, text)| line.with(*style, text))
    }

    /// True where nothing would be drawn.
    pub fn is_empty(&self) -> bool {
        self.runs.iter().all(|(_, text)| text.trim().is_empty())
    }

    /// What the line reads without its styles: "10^-2", "x_i".
    pub fn read(&self) -> String {
        let run = |(style, text): &(Style, String)| match style {
            Style::Plain | Style::Symbol => text.clone(),
            Style::Superscript => format!("^{text}"),
            Style::Subscript => format!("_{text}"),
        };
        self.runs.iter().map(run).collect()
    }

    /// The glyphs of the line, placed, and its width, both in text sizes.
    pub fn set(&self) -> (Vec<Placed>, f64) {
        let font = &*DEJAVU_SANS;
        let mut placed = Vec::new();
        let mut pen = 0.0;
        for (style, text) in &self.runs {
            let (size, y, slant) = match style {
                Style::Plain => (1.0, 0.0, 0.0),
                Style::Symbol => (1.0, 0.0, SLANT),
                Style::Superscript => (SCRIPT_SIZE, SUPERSCRIPT_RISE, 0.0),
                Style::Subscript => (SCRIPT_SIZE, -SUBSCRIPT_DROP, 0.0),
            };
            let scale = size / font.units_per_em();
            let mut previous: Option<GlyphId> = None;
            for character in text.chars() {
                let glyph = font.glyph(character);
                pen += previous.map_or(0.0, |left| font.kern(left, glyph)) * scale;
                placed.push(Placed { glyph, x: pen, y, size, slant });
                pen += font.advance(glyph) * scale;
                previous = Some(glyph);
            }
        }
        (placed, pen)
    }

    /// Width in points at a text size.
    pub fn width(&self, size: f64) -> f64 {
        self.set().1 * size
    }

    /// Height over the baseline in points: that of capitals, or of the raised script where there is one.
    pub fn ascent(&self, size: f64) -> f64 {
        let raised = self.runs.iter().any(|(style, _)| *style == Style::Superscript);
        size * if raised { SUPERSCRIPT_RISE + SCRIPT_SIZE * CAP_HEIGHT } else { CAP_HEIGHT }
    }

    /// Breaks the line at spaces, and after `_` where a word alone is too wide, so that each line is at most `most`
    /// points wide if its parts allow, in as few lines as possible and these about equally long. A part that is
    /// too wide by itself is cut between characters.
    pub fn wrap(&self, size: f64, most: f64) -> Vec<Rich> {
        let lines = self.filled(size, most);
        // Narrower until one more line or a cut through a word would be needed; a point at a time is finer than the eye.
        let widest = self.pieces().iter().map(|piece| piece.trimmed().width(size)).fold(0.0, f64::max);
        let narrower = (1..most.min(1e4) as usize).map(|by| most - by as f64).take_while(|narrow| *narrow >= widest);
        let equal = narrower.map(|narrow| self.filled(size, narrow)).take_while(|other| other.len() == lines.len());
        equal.last().unwrap_or(lines)
    }

    /// Lines each as full as possible.
    fn filled(&self, size: f64, most: f64) -> Vec<Rich> {
        let mut lines = vec![Rich::default()];
        for piece in self.pieces().into_iter().flat_map(|piece| piece.cut(size, most)) {
            let line = lines.last().cloned().unwrap_or_default();
            let longer = line.clone().then(&piece);
            let fits = longer.trimmed().width(size) <= most;
            match lines.last_mut() {
                Some(last) if fits || line.is_empty() => *last = longer,
                _ => lines.push(piece),
            }
        }
        lines.into_iter().map(|line| line.trimmed()).filter(|line| !line.is_empty()).collect()
    }

    /// A part that is too wide for a line, cut between characters where that must be; else the part itself.
    fn cut(self, size: f64, most: f64) -> Vec<Rich> {
        if self.clone().trimmed().width(size) <= most {
            return vec![self];
        }
        let mut parts = vec![Rich::default()];
        for (style, text) in &self.runs {
            for character in text.chars() {
                let letter = character.to_string();
                let longer = parts.last().cloned().unwrap_or_default().with(*style, &letter);
                let fits = longer.width(size) <= most;
                match parts.last_mut() {
                    Some(last) if fits || last.is_empty() => *last = longer,
                    _ => parts.push(Rich::default().with(*style, &letter)),
                }
            }
        }
        parts
    }

    /// The unbreakable parts: a word with its trailing space, a part of a word that ends in `_`, `-` or `.`, a script.
    fn pieces(&self) -> Vec<Rich> {
        let mut pieces: Vec<Rich> = Vec::new();
        let mut open = false;
        for (style, text) in &self.runs {
            let parts: Vec<&str> = match style {
                Style::Plain => text.split_inclusive([' ', '_']).collect(),
                _ => vec![text],
            };
            for part in parts {
                match pieces.last_mut() {
                    Some(last) if open => *last = std::mem::take(last).with(*style, part),
                    _ => pieces.push(Rich::default().with(*style, part)),
                }
                open = !part.ends_with([' ', '_']);
            }
        }
        pieces
    }

    /// The line without spaces at its end.
    fn trimmed(&self) -> Rich {
        let mut line = self.clone();
        if let Some((_, text)) = line.runs.last_mut() {
            text.truncate(text.trim_end().len());
        }
        line
    }
}

/// Splits at the first `^{..}` or `_{..}`: before, style, inside, after.
fn next_script(text: &str) -> Option<(&str, Style, &str, &str)> {
    let raised = text.find("^{").map(|at| (at, Style::Superscript));
    let lowered = text.find("_{").map(|at| (at, Style::Subscript));
    let (at, style) = match (raised, lowered) {
        (Some(up), Some(down)) => {
            if up.0 < down.0 {
                up
            } else {
                down
            }
        }
        (up, down) => up.or(down)?,
    };
    let (inside, after) = text[at + 2..].split_once('}')?;
    Some((&text[..at], style, inside, after))
}

/// A number with a fixed count of decimals and a real minus sign; never "-0".
pub fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    match text.strip_prefix('-') {
        Some(digits) if digits.chars().all(|c| c == '0' || c == '.') => digits.to_owned(),
        Some(digits) => format!("\u{2212}{digits}"),
        None => text,
    }
}

/// 10 with a raised exponent.
pub fn power_of_ten(exponent: i32) -> Rich {
    Rich::plain("10").with(Style::Superscript, &fixed(f64::from(exponent), 0))
}

/// The decimal exponent of a number: 10^e <= |value| < 10^(e+1). Zero for zero.
pub fn exponent(value: f64) -> i32 {
    // Formatting is exact where a logarithm may round across a power of ten.
    if value == 0.0 || !value.is_finite() {
        return 0;
    }
    let text = format!("{value:e}");
    text.split_once('e').and_then(|(_, digits)| digits.parse().ok()).unwrap_or(0)
}

/// A value rounded to `digits` significant digits, written without needless zeros: 0.05, 12, 3.2×10⁻⁵.
pub fn number(value: f64, digits: usize) -> Rich {
    if value == 0.0 {
        return Rich::plain("0");
    }
    let rounded: f64 = format!("{value:.*e}", digits.max(1) - 1).parse().unwrap_or(value);
    let power = exponent(rounded);
    let whole = rounded.fract() == 0.0 && rounded.abs() < 1e6;
    if whole || (-3..5).contains(&power) {
        let decimals = (digits as i32 - 1 - power).max(0) as usize;
        return Rich::plain(&without_needless_zeros(fixed(rounded, decimals)));
    }
    // The exponent is split off the text, not divided out, so that 3e-5 stays 3.
    let text = format!("{rounded:.*e}", digits.max(1) - 1);
    let (mantissa, _) = text.split_once('e').unwrap_or((&text, ""));
    let mantissa = without_needless_zeros(mantissa.replace('-', "\u{2212}"));
    match mantissa.as_str() {
        "1" => power_of_ten(power),
        _ => Rich::plain(&format!("{mantissa}×")).then(&power_of_ten(power)),
    }
}

/// Drops zeros at the end of the decimals, and the point with the last of them.
pub fn without_needless_zeros(text: String) -> String {
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_a_paper_writes_them() {
        let cases = [
            (0.05, "0.05"),
            (1.0, "1"),
            (0.021867241, "0.022"),
            (0.1, "0.1"),
            (30.0, "30"),
            (1234.0, "1200"),
            (-0.5, "\u{2212}0.5"),
            (0.0, "0"),
            (3e-5, "3×10^\u{2212}5"),
            (1e-7, "10^\u{2212}7"),
            (2e7, "2×10^7"),
            (0.999, "1"),
            (0.001, "0.001"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value, 2).read(), text);
        }
        assert_eq!(number(1234.0, 4).read(), "1234");
    }

    #[test]
    fn exponents_are_right_at_powers_of_ten_and_just_below() {
        for power in -12..=12 {
            let value: f64 = format!("1e{power}").parse().unwrap();
            assert_eq!(exponent(value), power);
            assert_eq!(exponent(value * (1.0 - 1e-15)), power - 1);
        }
        assert_eq!(exponent(-250.0), 2);
        assert_eq!(exponent(0.0), 0);
    }

    #[test]
    fn minus_is_a_minus_sign_and_zero_has_none() {
        assert_eq!(fixed(-1.25, 2), "\u{2212}1.25");
        assert_eq!(fixed(-0.001, 1), "0.0");
    }

    #[test]
    fn a_line_is_as_wide_as_its_glyphs_and_scales_with_its_size() {
        // Digits of DejaVu Sans are 1303 of 2048 units wide.
        let digits = Rich::plain("000");
        assert!((digits.width(1.0) - 3.0 * 1303.0 / 2048.0).abs() < 1e-12);
        assert!((digits.width(8.0) - 8.0 * digits.width(1.0)).abs() < 1e-12);
        assert!((power_of_ten(2).width(1.0) - (2.0 + SCRIPT_SIZE) * 1303.0 / 2048.0).abs() < 1e-12);
        assert!(power_of_ten(2).ascent(8.0) > digits.ascent(8.0));
    }

    #[test]
    fn wrapping_keeps_every_word_and_obeys_the_width() {
        let label = Rich::plain("relative importance of the last feature ").with(Style::Symbol, "r");
        let lines = label.wrap(8.0, 100.0);
        assert!(lines.len() > 1);
        assert!(lines.iter().all(|line| line.width(8.0) <= 100.0));
        let joined: Vec<String> = lines.iter().map(Rich::read).collect();
        assert_eq!(joined.join(" "), label.read());
        assert_eq!(label.wrap(8.0, 1e9), vec![label]);
    }

    #[test]
    fn lines_are_about_equally_long() {
        let lines = Rich::plain("leakage of the child into the parent").wrap(8.0, 130.0);
        assert_eq!(lines.len(), 2);
        let widths: Vec<f64> = lines.iter().map(|line| line.width(8.0)).collect();
        // Uneven by less than the longest word that could have moved.
        assert!((widths[0] - widths[1]).abs() < Rich::plain("leakage ").width(8.0), "{widths:?}");
    }

    #[test]
    fn a_long_name_breaks_at_its_underscores() {
        let lines: Vec<String> = Rich::plain("explained_variance").wrap(8.0, 45.0).iter().map(Rich::read).collect();
        assert_eq!(lines, ["explained_", "variance"]);
    }

    #[test]
    fn a_word_too_long_for_a_line_is_cut() {
        let lines = Rich::plain("jumpreluwithaverylongname").wrap(8.0, 40.0);
        assert!(lines.len() > 2 && lines.iter().all(|line| line.width(8.0) <= 40.0));
        assert_eq!(lines.iter().map(Rich::read).collect::<String>(), "jumpreluwithaverylongname");
    }

    #[test]
    fn scripts_in_a_label_are_raised_and_lowered() {
        let label = Rich::label("norm of W_{i} (10^{-3})");
        assert_eq!(label.read(), "norm of W_i (10^-3)");
        assert_eq!(label.runs.len(), 5);
        assert_eq!(Rich::label("snake_case stays").runs.len(), 1);
        assert_eq!(Rich::label("open ^{brace").read(), "open ^{brace");
    }
}
