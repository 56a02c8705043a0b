//! Reads glyph outlines and widths out of a TrueType file, as much of the format as DejaVu Sans uses.
//!
//! Text in figures is drawn from outlines, in PNG and SVG alike, so that both have exactly the same extents and an SVG
//! needs no font where it is viewed. Format: Apple, "TrueType Reference Manual", tables head, maxp, cmap, hhea, hmtx,
//! loca, glyf, kern.

use std::sync::LazyLock;

/// DejaVu Sans, the font of every figure.
// The bytes are compiled in and a test below reads every glyph the figures can ask for, so parsing cannot fail here.
pub static DEJAVU_SANS: LazyLock<Font> =
    LazyLock::new(|| Font::parse(dejavu::sans::regular()).expect("DejaVu Sans, compiled in, is a TrueType font"));

/// One step along an outline; coordinates are font units, y upwards.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Start a contour.
    Move([f64; 2]),
    /// Straight to a point.
    Line([f64; 2]),
    /// Quadratic curve: control point, end point.
    Curve([f64; 2], [f64; 2]),
}

/// Number of a glyph in its font.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GlyphId(pub u16);

/// A TrueType font over bytes that live as long as the program.
pub struct Font {
    bytes: &'static [u8],
    glyf: usize,
    loca: usize,
    long_loca: bool,
    hmtx: usize,
    n_wide: usize,
    n_glyphs: usize,
    units_per_em: f64,
    cmap: Vec<Segment>,
    kerns: Vec<(u32, i16)>,
}

/// A closed contour as (point, is on the curve).
type Contour = Vec<([f64; 2], bool)>;

/// One segment of a format 4 character map.
struct Segment {
    start: u16,
    end: u16,
    delta: u16,
    /// Where the glyph numbers of this segment start, if it does not go by `delta`.
    offset: Option<usize>,
}

impl Font {
    /// Reads the tables; `None` if one that is needed is absent or cut short.
    pub fn parse(bytes: &'static [u8]) -> Option<Font> {
        let table = |tag: &[u8; 4]| -> Option<usize> {
            let n_tables = usize::from(u16_at(bytes, 4)?);
            (0..n_tables)
                .map(|i| 12 + 16 * i)
                .find(|&record| bytes.get(record..record + 4) == Some(tag))
                .and_then(|record| u32_at(bytes, record + 8))
                .map(|offset| offset as usize)
        };
        let head = table(b"head")?;
        Some(Font {
            bytes,
            glyf: table(b"glyf")?,
            loca: table(b"loca")?,
            long_loca: i16_at(bytes, head + 50)? == 1,
            hmtx: table(b"hmtx")?,
            n_wide: usize::from(u16_at(bytes, table(b"hhea")? + 34)?),
            n_glyphs: usize::from(u16_at(bytes, table(b"maxp")? + 4)?),
            units_per_em: f64::from(u16_at(bytes, head + 18)?),
            cmap: read_cmap(bytes, table(b"cmap")?)?,
            kerns: table(b"kern").map_or(Some(Vec::new()), |kern| read_kerns(bytes, kern))?,
        })
    }

    /// Font units in one em: divide by it and multiply by the text size.
    pub fn units_per_em(&self) -> f64 {
        self.units_per_em
    }

    /// The glyph of a character; glyph 0, an empty box, where the font has none.
    pub fn glyph(&self, character: char) -> GlyphId {
        let Ok(code) = u16::try_from(u32::from(character)) else { return GlyphId(0) };
        let Some(segment) = self.cmap.iter().find(|segment| segment.end >= code) else { return GlyphId(0) };
        if segment.start > code {
            return GlyphId(0);
        }
        GlyphId(match segment.offset {
            None => code.wrapping_add(segment.delta),
            Some(offset) => match u16_at(self.bytes, offset + 2 * usize::from(code - segment.start)) {
                None | Some(0) => 0,
                Some(glyph) => glyph.wrapping_add(segment.delta),
            },
        })
    }

    /// How far the pen moves after a glyph, font units.
    pub fn advance(&self, glyph: GlyphId) -> f64 {
        let record = usize::from(glyph.0).min(self.n_wide.saturating_sub(1));
        u16_at(self.bytes, self.hmtx + 4 * record).map_or(0.0, f64::from)
    }

    /// Correction of the distance between two neighbours, font units.
    pub fn kern(&self, left: GlyphId, right: GlyphId) -> f64 {
        let pair = u32::from(left.0) << 16 | u32::from(right.0);
        self.kerns.binary_search_by_key(&pair, |(key, _)| *key).map_or(0.0, |at| f64::from(self.kerns[at].1))
    }

    /// The outline of a glyph, empty for a space.
    pub fn outline(&self, glyph: GlyphId) -> Vec<Step> {
        let mut steps = Vec::new();
        // Parts of parts exist in the format; DejaVu nests two deep. The depth bound stops a file that names itself.
        if self.append_outline(glyph, [1.0, 0.0, 0.0, 1.0, 0.0, 0.0], 4, &mut steps).is_none() {
            steps.clear();
        }
        steps
    }

    /// Where the data of a glyph starts, `None` if it is out of the file or has no outline.
    fn glyph_start(&self, glyph: GlyphId) -> Option<usize> {
        let index = usize::from(glyph.0);
        if index >= self.n_glyphs {
            return None;
        }
        let offset = |i: usize| match self.long_loca {
            true => u32_at(self.bytes, self.loca + 4 * i).map(|offset| offset as usize),
            false => u16_at(self.bytes, self.loca + 2 * i).map(|half| 2 * usize::from(half)),
        };
        let (start, end) = (offset(index)?, offset(index + 1)?);
        (start < end).then_some(self.glyf + start)
    }

    /// Appends a glyph under the affine map [a b c d e f]: x' = a x + c y + e, y' = b x + d y + f.
    fn append_outline(&self, glyph: GlyphId, map: [f64; 6], depth: usize, steps: &mut Vec<Step>) -> Option<()> {
        let Some(start) = self.glyph_start(glyph) else { return Some(()) };
        let n_contours = i16_at(self.bytes, start)?;
        if n_contours >= 0 {
            for contour in self.simple_contours(start, n_contours as usize)? {
                append_contour(&contour, map, steps);
            }
            return Some(());
        }
        self.append_parts(start + 10, map, depth.checked_sub(1)?, steps)
    }

    /// A composite glyph: other glyphs, each moved and scaled.
    fn append_parts(&self, mut at: usize, map: [f64; 6], depth: usize, steps: &mut Vec<Step>) -> Option<()> {
        const WORDS: u16 = 0x01;
        const OFFSETS: u16 = 0x02;
        const SCALE: u16 = 0x08;
        const MORE: u16 = 0x20;
        const TWO_SCALES: u16 = 0x40;
        const MATRIX: u16 = 0x80;
        loop {
            let (flags, part) = (u16_at(self.bytes, at)?, u16_at(self.bytes, at + 2)?);
            at += 4;
            let (dx, dy) = if flags & WORDS != 0 {
                at += 4;
                (f64::from(i16_at(self.bytes, at - 4)?), f64::from(i16_at(self.bytes, at - 2)?))
            } else {
                at += 2;
                (f64::from(*self.bytes.get(at - 2)? as i8), f64::from(*self.bytes.get(at - 1)? as i8))
            };
            let (dx, dy) = if flags & OFFSETS != 0 { (dx, dy) } else { (0.0, 0.0) };
            let n_scales = match flags {
                _ if flags & SCALE != 0 => 1,
                _ if flags & TWO_SCALES != 0 => 2,
                _ if flags & MATRIX != 0 => 4,
                _ => 0,
            };
            let scales = (0..n_scales)
                .map(|i| i16_at(self.bytes, at + 2 * i).map(|fixed| f64::from(fixed) / 16384.0))
                .collect::<Option<Vec<f64>>>()?;
            at += 2 * n_scales;
            let inner = match scales[..] {
                [s] => [s, 0.0, 0.0, s],
                [x, y] => [x, 0.0, 0.0, y],
                [a, b, c, d] => [a, b, c, d],
                _ => [1.0, 0.0, 0.0, 1.0],
            };
            let [a, b, c, d, e, f] = map;
            let composed = [
                a * inner[0] + c * inner[1],
                b * inner[0] + d * inner[1],
                a * inner[2] + c * inner[3],
                b * inner[2] + d * inner[3],
                a * dx + c * dy + e,
                b * dx + d * dy + f,
            ];
            self.append_outline(GlyphId(part), composed, depth, steps)?;
            if flags & MORE == 0 {
                return Some(());
            }
        }
    }

    /// The contours of a simple glyph.
    fn simple_contours(&self, start: usize, n_contours: usize) -> Option<Vec<Contour>> {
        let bytes = self.bytes;
        let ends = (0..n_contours)
            .map(|i| u16_at(bytes, start + 10 + 2 * i).map(usize::from))
            .collect::<Option<Vec<usize>>>()?;
        let n_points = ends.last().map_or(0, |last| last + 1);
        let mut at = start + 10 + 2 * n_contours;
        at += 2 + usize::from(u16_at(bytes, at)?);
        let mut flags = Vec::with_capacity(n_points);
        while flags.len() < n_points {
            let flag = *bytes.get(at)?;
            at += 1;
            flags.push(flag);
            if flag & 0x08 != 0 {
                let repeats = usize::from(*bytes.get(at)?);
                at += 1;
                flags.extend(std::iter::repeat_n(flag, repeats));
            }
        }
        let mut axis = |short: u8, same: u8| -> Option<Vec<f64>> {
            let mut value = 0i32;
            let mut values = Vec::with_capacity(n_points);
            for flag in &flags[..n_points] {
                if flag & short != 0 {
                    let step = i32::from(*bytes.get(at)?);
                    at += 1;
                    value += if flag & same != 0 { step } else { -step };
                } else if flag & same == 0 {
                    value += i32::from(i16_at(bytes, at)?);
                    at += 2;
                }
                values.push(f64::from(value));
            }
            Some(values)
        };
        let xs = axis(0x02, 0x10)?;
        let ys = axis(0x04, 0x20)?;
        let mut contours = Vec::with_capacity(n_contours);
        let mut first = 0;
        for end in ends {
            contours.push((first..=end).map(|i| ([xs[i], ys[i]], flags[i] & 1 != 0)).collect());
            first = end + 1;
        }
        Some(contours)
    }
}

/// Turns one contour of on- and off-curve points into steps; between two off-curve points lies an implied middle one.
fn append_contour(points: &[([f64; 2], bool)], map: [f64; 6], steps: &mut Vec<Step>) {
    let [a, b, c, d, e, f] = map;
    let moved: Vec<([f64; 2], bool)> =
        points.iter().map(|&([x, y], on)| ([a * x + c * y + e, b * x + d * y + f], on)).collect();
    let middle = |p: [f64; 2], q: [f64; 2]| [(p[0] + q[0]) / 2.0, (p[1] + q[1]) / 2.0];
    let n = moved.len();
    if n < 2 {
        return;
    }
    let (start, skip) = match moved.iter().position(|(_, on)| *on) {
        Some(first) => (moved[first].0, first + 1),
        None => (middle(moved[n - 1].0, moved[0].0), 0),
    };
    steps.push(Step::Move(start));
    let mut control: Option<[f64; 2]> = None;
    for i in 0..n {
        let (point, on) = moved[(skip + i) % n];
        match (control, on) {
            (None, true) => steps.push(Step::Line(point)),
            (None, false) => control = Some(point),
            (Some(bend), true) => {
                steps.push(Step::Curve(bend, point));
                control = None;
            }
            (Some(bend), false) => {
                steps.push(Step::Curve(bend, middle(bend, point)));
                control = Some(point);
            }
        }
    }
    if let Some(bend) = control {
        steps.push(Step::Curve(bend, start));
    }
}

/// The Unicode character map of the basic plane (format 4).
fn read_cmap(bytes: &[u8], cmap: usize) -> Option<Vec<Segment>> {
    let n_tables = usize::from(u16_at(bytes, cmap + 2)?);
    let table = (0..n_tables)
        .filter_map(|i| u32_at(bytes, cmap + 4 + 8 * i + 4).map(|offset| cmap + offset as usize))
        .find(|&table| u16_at(bytes, table) == Some(4))?;
    let n_segments = usize::from(u16_at(bytes, table + 6)?) / 2;
    let (ends, starts) = (table + 14, table + 16 + 2 * n_segments);
    let (deltas, offsets) = (starts + 2 * n_segments, starts + 4 * n_segments);
    (0..n_segments)
        .map(|i| {
            let offset_at = offsets + 2 * i;
            let offset = usize::from(u16_at(bytes, offset_at)?);
            Some(Segment {
                start: u16_at(bytes, starts + 2 * i)?,
                end: u16_at(bytes, ends + 2 * i)?,
                delta: u16_at(bytes, deltas + 2 * i)?,
                offset: (offset != 0).then_some(offset_at + offset),
            })
        })
        .collect()
}

/// Kerning pairs of the first horizontal format 0 subtable, sorted by pair.
fn read_kerns(bytes: &[u8], kern: usize) -> Option<Vec<(u32, i16)>> {
    let subtable = kern + 4;
    if u16_at(bytes, kern + 2)? == 0 || u16_at(bytes, subtable + 4)? != 1 {
        return Some(Vec::new());
    }
    let n_pairs = usize::from(u16_at(bytes, subtable + 6)?);
    (0..n_pairs)
        .map(|i| {
            let record = subtable + 14 + 6 * i;
            Some((u32_at(bytes, record)?, i16_at(bytes, record + 4)?))
        })
        .collect()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn i16_at(bytes: &[u8], at: usize) -> Option<i16> {
    Some(i16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Extent of an outline's end points: left, bottom, right, top.
    fn extent(character: char) -> [f64; 4] {
        let font = &*DEJAVU_SANS;
        let mut extent = [f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY];
        for step in font.outline(font.glyph(character)) {
            let (Step::Move([x, y]) | Step::Line([x, y]) | Step::Curve(_, [x, y])) = step;
            extent = [extent[0].min(x), extent[1].min(y), extent[2].max(x), extent[3].max(y)];
        }
        extent
    }

    #[test]
    fn every_printable_latin_and_mathematical_character_used_has_an_outline() {
        let font = &*DEJAVU_SANS;
        let extra = "−×·±≤≥≈°→αβγδελμρστφψωΔΣλ²³‖ŴᵀΩäöüß";
        for character in ('!'..='~').chain(extra.chars()) {
            assert_ne!(font.glyph(character), GlyphId(0), "{character}");
            assert!(!font.outline(font.glyph(character)).is_empty(), "{character}");
        }
        assert!(font.outline(font.glyph(' ')).is_empty());
    }

    #[test]
    fn capital_h_has_the_published_cap_height_and_stands_on_the_baseline() {
        // DejaVu Sans: 2048 units per em, cap height 1493 (OS/2 table of the font).
        assert_eq!(DEJAVU_SANS.units_per_em(), 2048.0);
        let [_, bottom, _, top] = extent('H');
        assert_eq!((bottom, top), (0.0, 1493.0));
    }

    #[test]
    fn a_composite_glyph_is_its_letter_with_the_accent_above() {
        let (plain, accented) = (extent('a'), extent('ä'));
        assert!(accented[3] > plain[3] + 100.0);
        assert!((accented[0] - plain[0]).abs() < 1.0 && (accented[1] - plain[1]).abs() < 1.0);
    }

    #[test]
    fn digits_are_equally_wide_and_a_pair_like_av_is_drawn_closer() {
        let font = &*DEJAVU_SANS;
        let zero = font.advance(font.glyph('0'));
        assert!(('1'..='9').all(|digit| font.advance(font.glyph(digit)) == zero));
        assert!(font.kern(font.glyph('A'), font.glyph('V')) < 0.0);
        assert_eq!(font.kern(font.glyph('1'), font.glyph('1')), 0.0);
    }

    #[test]
    fn a_character_the_font_lacks_becomes_the_empty_box() {
        assert_eq!(DEJAVU_SANS.glyph('漢'), GlyphId(0));
        assert_eq!(DEJAVU_SANS.glyph('🦀'), GlyphId(0));
        assert!(!DEJAVU_SANS.outline(GlyphId(0)).is_empty());
    }

    #[test]
    fn a_file_cut_short_is_refused_not_read_past_its_end() {
        let whole = dejavu::sans::regular();
        for length in [0, 4, 11, 12, 200, 300] {
            assert!(Font::parse(&whole[..length]).is_none(), "{length}");
        }
    }
}
