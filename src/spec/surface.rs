//! What the parser says of a text that is no YAML, in words of use, with the place of the cause: of a quote that is not closed
//! the parser blames what follows.

use super::diagnostic::{Place, nearest};
use super::node::{BYTES, DEPTH, NODES};

/// Message, help and, where it is another than the parser's, place.
pub struct Said {
    pub message: String,
    pub help: Option<String>,
    pub place: Option<Place>,
}

/// The parser's words, and what to do about the frequent ones. `place` is where it stopped.
pub fn friendly(words: &str, source: &str, place: Option<Place>) -> Said {
    let message = words.split(" at line ").next().unwrap_or(words).lines().next().unwrap_or("").to_owned();
    let message = match message.strip_prefix("line ").and_then(|rest| rest.split_once(": ")) {
        Some((_, words)) => words.to_owned(),
        None => message,
    };
    let lower = message.to_lowercase();
    let has = |word: &str| lower.contains(word);
    let say = |message: String, help: &str| Said { message, help: Some(help.to_owned()), place: None };
    let aliases = if first_mark(source, '*').is_some() { "aliases expand to" } else { "this file holds" };
    if has("recursive references") {
        let name = place.and_then(|place| word_at(source, place)).unwrap_or_default();
        return say(
            format!("the alias {} stands inside its own anchor", format_args!("`{name}`")),
            "an anchor cannot hold itself: write the value out",
        );
    }
    if has("unknown anchor") || has("unknown alias") {
        return unknown_anchor(source, place);
    }
    if has("depth") || has("nesting") || has("recursion") {
        return say(format!("nesting deeper than {DEPTH}"), "an experiment needs six levels at most");
    }
    if has("scalarbytes") {
        return say(format!("{aliases} more than {BYTES} bytes of text"), "write the values out, or leave some out");
    }
    if has("budget") || has("alias") && (has("expan") || has("replay") || has("ratio") || has("limit")) {
        return say(format!("{aliases} more than {NODES} nodes"), "write the values out, or leave some out");
    }
    if has("multiple yaml documents") {
        let place = second_document(source);
        let help = Some("one file holds one experiment: remove the `---`".to_owned());
        return Said { message: "a second document starts here".to_owned(), help, place };
    }
    if let Some((opening, c)) = place.and_then(|place| unclosed(source, place)) {
        let what = if c == '"' || c == '\'' { "quote" } else { "bracket" };
        let message = format!("this {what} is not closed ({message})");
        let close = match c {
            '[' => "]",
            '{' => "}",
            '"' => "\"",
            _ => "'",
        };
        return Said { message, help: Some(format!("close it with {close}")), place: Some(opening) };
    }
    let help = if has("did not find expected key") || has("mapping values are not allowed") {
        Some("the keys of one mapping start in the same column; text that holds `: ` stands in quotes")
    } else if has("unexpected character") {
        Some("put the text in quotes")
    } else if has("escape") {
        Some("a backslash in double quotes is an escape: use single quotes")
    } else {
        None
    };
    Said { message, help: help.map(str::to_owned), place: None }
}

fn unknown_anchor(source: &str, place: Option<Place>) -> Said {
    let name = place.and_then(|place| word_at(source, place)).unwrap_or_default();
    let name = name.trim_start_matches('*');
    let anchors: Vec<String> = marks(source, '&').map(|(_, name)| name).collect();
    let help = match nearest(name, anchors.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `*{near}`?"),
        None if anchors.is_empty() => "this file has no anchors: write the value out".to_owned(),
        None => format!("anchors: {}", anchors.iter().take(20).map(|a| format!("&{a}")).collect::<Vec<_>>().join(", ")),
    };
    Said { message: format!("no anchor `&{name}` stands before this alias"), help: Some(help), place: None }
}

/// The word that begins at a place.
fn word_at(source: &str, place: Place) -> Option<String> {
    let line = source.lines().nth(place.line as usize - 1)?;
    let ends = |c: &char| c.is_whitespace() || ",[]{}".contains(*c);
    let word: String = line.chars().skip(place.column as usize - 1).take_while(|c| !ends(c)).take(100).collect();
    (!word.is_empty()).then_some(word)
}

/// Where values begin that start with this mark, and their names.
fn marks(source: &str, mark: char) -> impl Iterator<Item = (Place, String)> + '_ {
    value_starts(source).filter(move |(_, c)| *c == mark).filter_map(move |(place, _)| {
        word_at(source, place).map(|word| (place, word.trim_start_matches(mark).to_owned()))
    })
}

fn first_mark(source: &str, mark: char) -> Option<Place> {
    value_starts(source).find(|(_, c)| *c == mark).map(|(place, _)| place)
}

/// The first character of whatever may be a value, comments left out: what follows `:`, `-`, `[`, `{` or `,`, or begins a line.
/// Quoted texts are not looked into only where they close on their line.
fn value_starts(source: &str) -> impl Iterator<Item = (Place, char)> + '_ {
    source.lines().enumerate().flat_map(|(n, line)| {
        let (mut before, mut last, mut starts) = (' ', None, Vec::new());
        for (column, c) in line.chars().enumerate() {
            if c == '#' && before == ' ' {
                break;
            }
            let opens = last.is_none_or(|last| ":-[{,?".contains(last)) && (before == ' ' || "[{,".contains(before));
            if opens && !c.is_whitespace() {
                starts.push((Place { line: n as u32 + 1, column: column as u32 + 1, length: 1 }, c));
            }
            if !c.is_whitespace() {
                last = Some(c);
            }
            before = if c == '\t' { ' ' } else { c };
        }
        starts
    })
}

/// The bracket or quote that is open where the parser stopped, if it was opened on a line before, or the file ends there.
fn unclosed(source: &str, stopped: Place) -> Option<(Place, char)> {
    let mut open: Vec<(Place, char)> = Vec::new();
    let mut quote: Option<(Place, char)> = None;
    let (mut before, mut last, mut escaped) = (' ', None, false);
    let lines = source.lines().count() as u32;
    for (n, line) in source.lines().enumerate() {
        if n as u32 + 1 > stopped.line {
            break;
        }
        if quote.is_none() {
            (before, last) = (' ', None);
        }
        for (column, c) in line.chars().enumerate() {
            let place = Place { line: n as u32 + 1, column: column as u32 + 1, length: 1 };
            if (place.line, place.column) >= (stopped.line, stopped.column) && place.line < lines {
                break;
            }
            match quote {
                Some((_, '"')) if escaped => escaped = false,
                Some((_, '"')) if c == '\\' => escaped = true,
                Some((_, q)) if c == q => quote = None,
                Some(_) => {}
                None if c == '#' && before == ' ' => break,
                None => {
                    let value =
                        last.is_none_or(|last| ":-[{,?".contains(last)) && (before == ' ' || "[{,".contains(before));
                    match c {
                        '"' | '\'' if value => quote = Some((place, c)),
                        '[' | '{' if value || !open.is_empty() => open.push((place, c)),
                        ']' | '}' => drop(open.pop()),
                        _ => {}
                    }
                }
            }
            if !c.is_whitespace() {
                last = Some(c);
            }
            before = if c == '\t' { ' ' } else { c };
        }
    }
    let opening = quote.or(open.pop())?;
    (opening.0.line < stopped.line || stopped.line >= lines).then_some(opening)
}

/// The `---` that is not the first thing in the file.
fn second_document(source: &str) -> Option<Place> {
    let content = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let lines = source.lines().enumerate().skip_while(|(_, line)| !content(line)).skip(1);
    let mut marks = lines.filter(|(_, line)| line.starts_with("---"));
    marks.next().map(|(n, _)| Place { line: n as u32 + 1, column: 1, length: 3 })
}
