//! Writes a scene as SVG.
//!
//! Text is drawn as outlines: each glyph is defined once and placed by reference, as matplotlib does, so the file looks
//! the same with or without the font and in programs that ignore embedded fonts. Every line of text carries its wording
//! as an `aria-label`, and the figure its title and description, so it can still be read aloud and searched.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::colour::Rgb;
use super::font::{DEJAVU_SANS, GlyphId, Step};
use super::scene::{Anchor, Item, Point, Rect, Scene, Shape, anchor_shift};
use super::text::Rich;
use super::theme;

/// The scene as one SVG document, printed size in mm, user units in points. Ids start with a short hash of the
/// title and description, so several figures can stand in one HTML page.
pub fn write(scene: &Scene) -> String {
    let mut writer =
        Writer { id: id_of(scene), body: String::new(), glyphs: BTreeMap::new(), clips: Vec::new(), n_gradients: 0 };
    for item in &scene.items {
        writer.item(item);
    }
    writer.document(scene)
}

struct Writer {
    id: String,
    body: String,
    glyphs: BTreeMap<GlyphId, String>,
    clips: Vec<Rect>,
    n_gradients: usize,
}

impl Writer {
    fn document(&self, scene: &Scene) -> String {
        let mm = |points: f64| coordinate(points / theme::POINTS_PER_MM);
        let (width, height) = (coordinate(scene.width), coordinate(scene.height));
        let mut document = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
        push(
            &mut document,
            format_args!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" width=\"{}mm\" \
             height=\"{}mm\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"{id}-title {id}-desc\">\n",
                mm(scene.width),
                mm(scene.height),
                id = self.id
            ),
        );
        push(&mut document, format_args!("<title id=\"{}-title\">{}</title>\n", self.id, escaped(&scene.title)));
        push(&mut document, format_args!("<desc id=\"{}-desc\">{}</desc>\n", self.id, escaped(&scene.description)));
        document.push_str("<defs>\n");
        for (number, rect) in self.clips.iter().enumerate() {
            push(
                &mut document,
                format_args!("<clipPath id=\"{}-c{number}\"><rect {}/></clipPath>\n", self.id, sides(rect)),
            );
        }
        for (glyph, path) in &self.glyphs {
            push(&mut document, format_args!("<path id=\"{}-g{}\" d=\"{path}\"/>\n", self.id, glyph.0));
        }
        document.push_str("</defs>\n");
        push(&mut document, format_args!("<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"));
        document.push_str(&self.body);
        document.push_str("</svg>\n");
        document
    }

    fn item(&mut self, item: &Item) {
        if let Some(clip) = item.clip {
            let number = self.clips.iter().position(|known| *known == clip).unwrap_or_else(|| {
                self.clips.push(clip);
                self.clips.len() - 1
            });
            push(&mut self.body, format_args!("<g clip-path=\"url(#{}-c{number})\">", self.id));
        }
        match &item.shape {
            Shape::Block { rect, fill } => push(
                &mut self.body,
                format_args!("<rect {} fill=\"{}\" shape-rendering=\"crispEdges\"/>", sides(rect), hex(*fill)),
            ),
            Shape::Gradient { rect, colours } => self.gradient(rect, colours),
            Shape::Area { points, fill, opacity } => {
                push(&mut self.body, format_args!("<path d=\"{}Z\" fill=\"{}\"", polyline(points), hex(*fill)));
                if *opacity < 1.0 {
                    push(&mut self.body, format_args!(" fill-opacity=\"{}\"", coordinate(*opacity)));
                }
                self.body.push_str("/>");
            }
            Shape::Lines { lines, width, colour, dash } => self.lines(lines, *width, *colour, *dash),
            Shape::Disc { centre, radius, fill, rim, opacity } => self.disc(*centre, *radius, *fill, *rim, *opacity),
            Shape::Text { at, anchor, size, colour, text, upright } => {
                self.text(*at, *anchor, *size, *colour, text, *upright);
            }
        }
        self.body.push_str(if item.clip.is_some() { "</g>\n" } else { "\n" });
    }

    fn lines(&mut self, lines: &[Vec<Point>], width: f64, colour: Rgb, dash: Option<(f64, f64)>) {
        let path: String = lines.iter().map(|line| polyline(line)).collect();
        push(
            &mut self.body,
            format_args!(
                "<path d=\"{path}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-linejoin=\"round\"",
                hex(colour),
                coordinate(width)
            ),
        );
        if let Some((on, off)) = dash {
            push(&mut self.body, format_args!(" stroke-dasharray=\"{} {}\"", coordinate(on), coordinate(off)));
        }
        self.body.push_str("/>");
    }

    fn disc(&mut self, [x, y]: Point, radius: f64, fill: Rgb, rim: Option<(f64, Rgb)>, opacity: f64) {
        push(
            &mut self.body,
            format_args!(
                "<circle cx=\"{}\" cy=\"{}\" r=\"{}\" fill=\"{}\"",
                coordinate(x),
                coordinate(y),
                coordinate(radius),
                hex(fill)
            ),
        );
        if opacity < 1.0 {
            push(&mut self.body, format_args!(" fill-opacity=\"{}\"", coordinate(opacity)));
        }
        if let Some((width, colour)) = rim {
            push(&mut self.body, format_args!(" stroke=\"{}\" stroke-width=\"{}\"", hex(colour), coordinate(width)));
        }
        self.body.push_str("/>");
    }

    /// One stop per colour would be long; every fourth reproduces the scale to a level or two of 255.
    fn gradient(&mut self, rect: &Rect, colours: &[Rgb]) {
        let id = format!("{}-r{}", self.id, self.n_gradients);
        self.n_gradients += 1;
        push(&mut self.body, format_args!("<linearGradient id=\"{id}\" x1=\"0\" y1=\"1\" x2=\"0\" y2=\"0\">"));
        let last = colours.len().saturating_sub(1);
        for (at, colour) in colours.iter().enumerate().filter(|(at, _)| at % 4 == 0 || *at == last) {
            let offset = at as f64 / last.max(1) as f64;
            push(&mut self.body, format_args!("<stop offset=\"{offset:.4}\" stop-color=\"{}\"/>", hex(*colour)));
        }
        push(&mut self.body, format_args!("</linearGradient><rect {} fill=\"url(#{id})\"/>", sides(rect)));
    }

    fn text(&mut self, [x, y]: Point, anchor: Anchor, size: f64, colour: Rgb, text: &Rich, upright: bool) {
        let font = &*DEJAVU_SANS;
        let (placed, width) = text.set();
        let start = anchor_shift(anchor, width * size);
        let turn = if upright { "" } else { " rotate(-90)" };
        push(
            &mut self.body,
            format_args!(
                "<g role=\"text\" aria-label=\"{}\" fill=\"{}\" transform=\"translate({} {}){turn}\">",
                escaped(&text.read()),
                hex(colour),
                coordinate(x),
                coordinate(y)
            ),
        );
        for glyph in placed {
            let path = self.glyphs.entry(glyph.glyph).or_insert_with(|| outline(&font.outline(glyph.glyph)));
            if path.is_empty() {
                continue;
            }
            let scale = glyph.size * size / font.units_per_em();
            push(
                &mut self.body,
                format_args!(
                    "<use xlink:href=\"#{}-g{}\" transform=\"matrix({:.6} 0 {:.6} {:.6} {} {})\"/>",
                    self.id,
                    glyph.glyph.0,
                    scale,
                    glyph.slant * scale,
                    -scale,
                    coordinate(start + glyph.x * size),
                    coordinate(-glyph.y * size)
                ),
            );
        }
        self.body.push_str("</g>");
    }
}

/// Writing to a `String` cannot fail; saying so once keeps it out of every line above.
fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(arguments);
}

/// A number with at most three decimals.
fn coordinate(value: f64) -> String {
    let text = format!("{value:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn sides(rect: &Rect) -> String {
    format!(
        "x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"",
        coordinate(rect.left),
        coordinate(rect.top),
        coordinate(rect.width()),
        coordinate(rect.height())
    )
}

fn polyline(points: &[Point]) -> String {
    let mut path = String::new();
    for (i, [x, y]) in points.iter().enumerate() {
        push(&mut path, format_args!("{}{} {}", if i == 0 { "M" } else { "L" }, coordinate(*x), coordinate(*y)));
    }
    path
}

/// A glyph's path in font units, y upwards.
fn outline(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Move([x, y]) => {
                let close = if path.is_empty() { "" } else { "Z" };
                push(&mut path, format_args!("{close}M{} {}", coordinate(*x), coordinate(*y)));
            }
            Step::Line([x, y]) => push(&mut path, format_args!("L{} {}", coordinate(*x), coordinate(*y))),
            Step::Curve([a, b], [x, y]) => push(
                &mut path,
                format_args!("Q{} {} {} {}", coordinate(*a), coordinate(*b), coordinate(*x), coordinate(*y)),
            ),
        }
    }
    if !path.is_empty() {
        path.push('Z');
    }
    path
}

fn hex(Rgb(red, green, blue): Rgb) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// Text that may stand between tags and inside double quotes; characters that XML 1.0 forbids are left out.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\u{9}' | '\u{a}' | '\u{d}' => safe.push(character),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {}
            _ => safe.push(character),
        }
    }
    safe
}

/// A short id for this figure: FNV-1a of its title and description.
fn id_of(scene: &Scene) -> String {
    let bytes = scene.title.bytes().chain(scene.description.bytes());
    let hash = bytes.fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("f{hash:08x}")
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Checks that every tag is closed in order and every attribute is quoted; returns the element names.
    pub fn elements(document: &str) -> Vec<String> {
        let mut open: Vec<String> = Vec::new();
        let mut names = Vec::new();
        let mut rest = document;
        while let Some(start) = rest.find('<') {
            assert!(!rest[..start].contains('>'), "a stray > in `{}`", &rest[..start]);
            let end = start + rest[start..].find('>').expect("every < has its >");
            let tag = &rest[start + 1..end];
            rest = &rest[end + 1..];
            if tag.starts_with('?') {
                continue;
            }
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop().as_deref(), Some(name));
                continue;
            }
            assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
            let name = tag.trim_end_matches('/').split_whitespace().next().expect("a tag has a name").to_owned();
            if !tag.ends_with('/') {
                open.push(name.clone());
            }
            names.push(name);
        }
        assert!(open.is_empty(), "unclosed: {open:?}");
        let mut entities = document;
        while let Some(at) = entities.find('&') {
            let entity = entities[at..].split_inclusive(';').next().unwrap_or("");
            assert!(["&amp;", "&lt;", "&gt;", "&quot;"].contains(&entity), "{entity}");
            entities = &entities[at + 1..];
        }
        names
    }

    fn sample() -> Scene {
        let mut scene = Scene::new(100.0, 60.0);
        scene.title = "a < b & \"c\"".to_owned();
        scene.description = "x\u{1} > y".to_owned();
        scene.text([50.0, 20.0], Anchor::Middle, 8.0, theme::INK, Rich::label("p<1 & 10^{-2}"));
        scene.text_upwards([20.0, 40.0], Anchor::Middle, 8.0, theme::INK, Rich::plain("width"));
        scene.add_inside(
            Rect::new(0.0, 0.0, 50.0, 50.0),
            Shape::Disc {
                centre: [10.0, 10.0],
                radius: 3.0,
                fill: theme::INK,
                rim: Some((0.5, theme::PAPER)),
                opacity: 1.0,
            },
        );
        scene.add(Shape::Gradient { rect: Rect::new(80.0, 5.0, 90.0, 50.0), colours: vec![theme::INK; 256] });
        scene
    }

    #[test]
    fn the_document_is_well_formed_and_carries_title_and_description() {
        let document = write(&sample());
        let names = elements(&document);
        assert_eq!(&names[..3], ["svg", "title", "desc"]);
        assert!(document.contains(">a &lt; b &amp; &quot;c&quot;</title>"));
        assert!(document.contains(">x &gt; y</desc>"));
        assert!(document.contains("aria-label=\"p&lt;1 &amp; 10^-2\""));
    }

    #[test]
    fn text_needs_no_font_where_the_figure_is_viewed() {
        let document = write(&sample());
        assert!(!document.contains("<text") && !document.contains("font-family"));
        assert!(elements(&document).contains(&"use".to_owned()));
    }

    #[test]
    fn every_reference_has_its_definition() {
        let document = write(&sample());
        let ids: Vec<&str> = document.split("id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let used = document.split("href=\"#").skip(1).filter_map(|rest| rest.split('"').next());
        let urls = document.split("url(#").skip(1).filter_map(|rest| rest.split(')').next());
        let mut n_references = 0;
        for reference in used.chain(urls) {
            assert!(ids.contains(&reference), "{reference}");
            n_references += 1;
        }
        assert!(n_references > 10);
    }

    #[test]
    fn the_printed_size_is_in_millimetres() {
        let scene = Scene::new(super::super::theme::Width::OneColumn.points(), 72.0);
        let document = write(&scene);
        assert!(document.contains("width=\"85mm\" height=\"25.4mm\" viewBox=\"0 0 240.945 72\""), "{document}");
    }
}
