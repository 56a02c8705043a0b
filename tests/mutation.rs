//! Ten thousand random edits of each kind, of the shipped experiments: none panics, and none is accepted with something in it that nobody
//! reads. A key that is not known must be refused wherever it stands; a value that is changed must be refused or be seen in the
//! canonical form.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use tegum::plan::{Plan, Versions, canonical_text};
use tegum::random::{Draws, Stream};
use tegum::spec::kind::Kind;
use tegum::spec::node::{self, Node, Value};
use tegum::spec::{Document, Experiment};

use super::specs::experiments;

/// A shipped experiment, its text and its tree.
struct Seed {
    name: String,
    text: String,
    root: Node,
    document: Document,
    /// Places of what an axis replaces: its values are not read.
    replaced: HashSet<(u32, u32)>,
}

fn seeds() -> Vec<Seed> {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments");
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path).expect("an experiment is text");
        let name = path.display().to_string();
        let root = node::parse(&name, &text).unwrap_or_else(|e| panic!("{e}"));
        let document = Document::read(&name, &text).unwrap_or_else(|e| panic!("{e}"));
        let mut replaced = HashSet::new();
        for target in document.targets.iter().flatten().flatten() {
            let node = target.part.node(&root).and_then(|node| node.at(target.path.iter().map(String::as_str)));
            node.into_iter().for_each(|node| places(node, &mut replaced));
        }
        Seed { name, text, root, document, replaced }
    };
    experiments().iter().filter(|path| path.starts_with(&shipped)).map(|path| read(path)).collect()
}

fn places(node: &Node, found: &mut HashSet<(u32, u32)>) {
    found.insert((node.place.line, node.place.column));
    match &node.value {
        Value::Map(entries) => entries.iter().for_each(|(_, node)| places(node, found)),
        Value::List(items) => items.iter().for_each(|node| places(node, found)),
        Value::Null | Value::Scalar { .. } => {}
    }
}

/// Plans with more cells than this are not laid out: what they read was read before.
const LAID_OUT: u128 = 500;

/// The checked experiment, planned too if asked, or what is wrong with it; a panic is an error of the test, with the text that made it.
fn read(text: &str, plan: bool) -> Result<Document, String> {
    let read = catch_unwind(AssertUnwindSafe(|| {
        let document = Document::read("x.yaml", text).map_err(|e| e.to_string())?;
        if !plan {
            return Ok(document);
        }
        let versions = Versions { algorithms: "a1", profile: "p" };
        match Plan::new(document.clone(), &versions, LAID_OUT) {
            Err(error) if !error.to_string().contains("; at most 500") => Err(error.to_string()),
            _ => Ok(document),
        }
    }));
    let read = read.unwrap_or_else(|_| panic!("this panics:\n{text}"));
    if let Err(error) = &read {
        assert!(
            error.starts_with("x.yaml:") && error.as_bytes()[7].is_ascii_digit(),
            "no place in {error}\nof\n{text}"
        );
    }
    read
}

/// All that decides what is run, drawn and expected.
fn canonical(document: &Document) -> String {
    let values = |nodes: &[Node]| nodes.iter().map(canonical_text).collect::<Vec<_>>();
    let axes: Vec<String> = (document.axes.iter())
        .map(|axis| {
            let paths: Vec<_> = axis.paths.iter().map(|p| (&p.path, values(&p.values))).collect();
            format!("{paths:?} {:?}", axis.label.as_ref().map(|label| (&label.column, values(&label.values))))
        })
        .collect();
    let Experiment { figures, expect, sae, baselines, .. } = &document.experiment;
    // Names are not part of what a cell is, but of its row.
    let names: Vec<&String> = sae.iter().map(|e| &e.name).chain(baselines.iter().map(|e| &e.name)).collect();
    format!("{} {axes:?} {figures:?} {expect:?} {names:?}", Experiment::canonical(&document.experiment))
}

fn pick<'a, T>(draws: &mut Draws, from: &'a [T]) -> &'a T {
    &from[draws.below(from.len() as u32) as usize]
}

/// Byte of a place in a text.
fn byte_of(text: &str, line: u32, column: u32) -> usize {
    let start: usize = text.split_inclusive('\n').take(line as usize - 1).map(str::len).sum();
    start + text[start..].char_indices().nth(column as usize - 1).map_or(0, |(at, _)| at)
}

fn maps<'a>(node: &'a Node, found: &mut Vec<&'a Node>) {
    match &node.value {
        Value::Map(entries) => {
            if !entries.is_empty() {
                found.push(node);
            }
            entries.iter().for_each(|(_, node)| maps(node, found));
        }
        Value::List(items) => items.iter().for_each(|node| maps(node, found)),
        _ => {}
    }
}

fn scalars<'a>(node: &'a Node, found: &mut Vec<&'a Node>) {
    match &node.value {
        Value::Map(entries) => entries.iter().for_each(|(_, node)| scalars(node, found)),
        Value::List(items) => items.iter().for_each(|node| scalars(node, found)),
        Value::Scalar { .. } => found.push(node),
        Value::Null => {}
    }
}

/// Edits of each kind, `TEGUM_EDITS` if that is set.
fn edits() -> u64 {
    std::env::var("TEGUM_EDITS").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000)
}

#[test]
fn an_unknown_key_is_refused_wherever_it_stands() {
    let seeds = seeds();
    for edit in 0..edits() {
        let mut draws = Draws::new(1, Stream::Bootstrap, edit);
        let seed = pick(&mut draws, &seeds);
        let mut all = vec![];
        maps(&seed.root, &mut all);
        let map = pick(&mut draws, &all);
        let Value::Map(entries) = &map.value else { continue };
        let (key, _) = pick(&mut draws, entries);
        if seed.replaced.contains(&(map.place.line, map.place.column)) {
            continue;
        }
        let at = byte_of(&seed.text, key.place.line, key.place.column);
        if !seed.text[at..].trim_start_matches(['"', '\'']).starts_with(&key.text) {
            // Behind an alias the text stands elsewhere.
            continue;
        }
        let flow = seed.text[byte_of(&seed.text, map.place.line, map.place.column)..].starts_with('{');
        let indent = " ".repeat(key.place.column as usize - 1);
        let inserted = if flow { "zzz_unknown: 1, ".to_owned() } else { format!("zzz_unknown: 1\n{indent}") };
        let text = format!("{}{inserted}{}", &seed.text[..at], &seed.text[at..]);
        if let Ok(accepted) = read(&text, true) {
            // The names of labels are the user's own.
            let label = canonical(&accepted).contains("label.zzz_unknown");
            assert!(label, "an unknown key at {}:{} of {} is ignored", key.place.line, key.place.column, seed.name);
        }
    }
}

#[test]
fn a_changed_value_is_refused_or_changes_the_canonical_form() {
    let (seeds, mut ignored) = (seeds(), Vec::new());
    for edit in 0..edits() {
        let mut draws = Draws::new(2, Stream::Bootstrap, edit);
        let seed = pick(&mut draws, &seeds);
        let mut all = vec![];
        scalars(&seed.root, &mut all);
        let place = pick(&mut draws, &all).place;
        let at = byte_of(&seed.text, place.line, place.column);
        let end =
            at + seed.text[at..].char_indices().nth(place.length as usize).map_or(seed.text.len() - at, |(n, _)| n);
        let old = &seed.text[at..end];
        let replaced = seed.replaced.contains(&(place.line, place.column));
        if replaced || old.is_empty() || old.contains('\n') || old.starts_with(['*', '&', '|', '>']) {
            continue;
        }
        let new = match (old.parse::<f64>(), draws.below(3)) {
            // The points that these leave where they are get another.
            (Ok(v), 0) => format!("{}", if v == -1.0 { 3.0 } else { v * 2.0 + 1.0 }),
            (Ok(v), 1) => format!("{}", if v == 0.25 { 3.0 } else { v / 2.0 + 0.125 }),
            (Ok(_), _) => "word".to_owned(),
            _ if old == "true" => "false".to_owned(),
            _ if old == "false" => "true".to_owned(),
            _ if old.starts_with(['"', '\'']) && old.len() > 1 => {
                format!("{}z{}", &old[..old.len() - 1], &old[old.len() - 1..])
            }
            (_, 0) => "7".to_owned(),
            _ => format!("{old}z"),
        };
        let text = format!("{}{new}{}", &seed.text[..at], &seed.text[end..]);
        if let Ok(accepted) = read(&text, edit % 4 == 0) {
            let same = canonical(&accepted) == canonical(&seed.document);
            if same {
                ignored.push(format!("{old} -> {new} at {}:{} of {}", place.line, place.column, seed.name));
            }
        }
    }
    assert!(ignored.is_empty(), "{ignored:#?}");
}

#[test]
fn random_edits_of_the_text_neither_panic_nor_lack_a_place() {
    let seeds = seeds();
    let tokens = [
        "0",
        "-1",
        "1e9",
        ".nan",
        "null",
        "[]",
        "{}",
        "\"\"",
        "~",
        "1e-50",
        "true",
        "x",
        "4294967296",
        "131071",
        "[1,[2]]",
        "{a: 1}",
        "\"8\"",
        "0x10",
        "*a",
        "&a 1",
        "!t",
        "9007199254740992",
        "1e300",
        "16777216",
        "\u{202e}",
        "- ",
        "? ",
        "---",
        "<<: *a",
        "|",
        ">-",
        "# ",
        "é",
        "\t",
        "\0",
        "'",
        "\"",
        "{",
        "[",
        "}",
        "]",
        ":",
        ",",
        "\n",
        "\n  ",
    ];
    for edit in 0..edits() {
        let mut draws = Draws::new(3, Stream::Bootstrap, edit);
        let mut text = pick(&mut draws, &seeds).text.clone();
        for _ in 0..1 + draws.below(3) {
            let mut at = draws.below(text.len().max(1) as u32) as usize;
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            let mut end = (at + 1 + draws.below(12) as usize).min(text.len());
            while !text.is_char_boundary(end) {
                end += 1;
            }
            match draws.below(4) {
                0 => drop(text.drain(at..end)),
                1 => text.insert_str(at, pick::<&str>(&mut draws, &tokens)),
                2 => text.replace_range(at..end, pick::<&str>(&mut draws, &tokens)),
                _ => {
                    let lines: Vec<&str> = text.lines().collect();
                    let line = lines.get(draws.below(lines.len().max(1) as u32) as usize).map_or("", |line| *line);
                    text.insert_str(at, &format!("\n{line}\n"));
                }
            }
        }
        let _ = read(&text, edit % 4 == 0);
    }
}
