//! What is wrong with an experiment file, where, and what to do: `file:line:col: message`, the line, a caret, a hint.

use std::fmt;

/// A place in the source: line and column from 1, columns counted in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Place {
    pub line: u32,
    pub column: u32,
    /// Characters the caret underlines; 0 and 1 are both one caret.
    pub length: u32,
}

impl Place {
    /// Where an error about a file as a whole stands.
    pub const START: Place = Place { line: 1, column: 1, length: 1 };
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Diagnostic {
    pub place: Place,
    pub message: String,
    pub help: Option<String>,
}

/// Errors listed for one file before the rest is only counted.
const MOST: usize = 20;

/// Characters shown of a message and of its help: both may quote the file.
const MESSAGE: usize = 1_000;
const HELP: usize = 8_000;

/// Everything found wrong with one file, in source order.
#[derive(Clone, Debug)]
pub struct SpecError {
    pub file: String,
    pub source: String,
    pub diagnostics: Vec<Diagnostic>,
}

impl std::error::Error for SpecError {}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, diagnostic) in self.diagnostics.iter().take(MOST).enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            self.show(diagnostic, f)?;
        }
        match self.diagnostics.len() {
            len if len > MOST => write!(f, "\n{}: {} more errors are not shown", self.file, len - MOST),
            _ => Ok(()),
        }
    }
}

impl SpecError {
    fn show(&self, diagnostic: &Diagnostic, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Place { line, column, length } = diagnostic.place;
        if line == 0 {
            writeln!(f, "{}: {}", escaped(&self.file), shown(&diagnostic.message, MESSAGE))?;
        } else {
            writeln!(f, "{}:{line}:{column}: {}", escaped(&self.file), shown(&diagnostic.message, MESSAGE))?;
            // A file that could not be read has no line to show.
            if let Some(text) = self.source.lines().nth(line as usize - 1) {
                let (text, column) = window(text, column as usize);
                let gutter = line.to_string();
                writeln!(f, " {gutter} | {}", escaped(&text))?;
                let room = text.chars().count().saturating_sub(column.saturating_sub(1)).max(1);
                let carets = "^".repeat((length.max(1) as usize).min(room));
                // What is escaped before the caret takes more room than it has characters.
                let before: String = text.chars().take(column.saturating_sub(1)).collect();
                let before = escaped(&before).chars().count().max(column.saturating_sub(1));
                writeln!(f, " {} | {}{carets}", " ".repeat(gutter.len()), " ".repeat(before))?;
            }
        }
        match &diagnostic.help {
            Some(help) => writeln!(f, "   help: {}", shown(help, HELP)),
            None => Ok(()),
        }
    }
}

/// A long line cut to what surrounds the column, and the column within it.
fn window(text: &str, column: usize) -> (String, usize) {
    const WIDTH: usize = 120;
    if text.chars().nth(WIDTH).is_none() {
        return (text.to_owned(), column);
    }
    let start = column.saturating_sub(WIDTH / 2);
    (text.chars().skip(start).take(WIDTH).collect(), column - start)
}

/// A text for a message: cut where it is very long, and escaped.
fn shown(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}... ({} characters more)", escaped(&text[..end]), text[end..].chars().count()),
        None => escaped(text),
    }
}

/// Marks that change the direction of text, or have no width: what is shown would not be what is there.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Control characters and invisible marks made visible, so that a text from a file cannot drive the terminal or look like
/// another.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push(' '),
            c if c.is_control() && c != '\n' || is_invisible(c) => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

/// A text of the file, over however many lines, as one line.
pub fn one_line(text: &str) -> String {
    escaped(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The nearest of the allowed words, if one is near: case and `-`/`_` are forgiven, then edits up to a third of the word.
pub fn nearest<'a>(word: &str, allowed: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The distance takes time by the product of the lengths, and no word is that long.
    if word.len() > 100 {
        return None;
    }
    let plain = |s: &str| s.to_lowercase().replace('-', "_");
    let wanted = plain(word);
    let (distance, best) = allowed
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&wanted, &plain(candidate)), candidate))
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= 1.max(wanted.chars().count().max(best.chars().count()) / 3)).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(source: &str, place: Place, message: &str) -> String {
        let diagnostics = vec![Diagnostic { place, message: message.into(), help: Some("do this".into()) }];
        SpecError { file: "a.yaml".into(), source: source.into(), diagnostics }.to_string()
    }

    #[test]
    fn an_error_shows_file_line_column_the_line_a_caret_and_help() {
        let shown = error("x: 1\nwidht: 3\n", Place { line: 2, column: 1, length: 5 }, "unknown key");
        assert_eq!(shown, "a.yaml:2:1: unknown key\n 2 | widht: 3\n   | ^^^^^\n   help: do this\n");
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let source = format!("{}BAD{}", "a".repeat(500), "b".repeat(500));
        let shown = error(&source, Place { line: 1, column: 501, length: 3 }, "m");
        let lines: Vec<&str> = shown.lines().collect();
        let at = lines[2].find('^').unwrap();
        assert_eq!(&lines[1][at..at + 3], "BAD");
        assert!(lines[1].len() < 140);
    }

    #[test]
    fn control_characters_are_escaped() {
        assert!(error("a: \u{1b}[31m", Place { line: 1, column: 1, length: 1 }, "m\u{7}").contains("\\u{1b}[31m"));
    }

    #[test]
    fn marks_that_turn_text_round_are_escaped() {
        let told = error("a: \u{202e}x", Place { line: 1, column: 5, length: 1 }, "\u{2066}m\u{200b}");
        assert!(told.starts_with("a.yaml:1:5: \\u{2066}m\\u{200b}\n 1 | a: \\u{202e}x\n   |            ^\n"), "{told}");
    }

    #[test]
    fn a_message_that_quotes_a_large_scalar_is_cut() {
        let told = error("a: b", Place { line: 1, column: 4, length: 1 }, &"x".repeat(1_000_000));
        assert!(told.len() < 2_000 && told.contains("... (999000 characters more)"));
    }

    #[test]
    fn an_error_about_a_file_that_has_no_text_stands_at_its_start() {
        assert_eq!(error("", Place::START, "no such file"), "a.yaml:1:1: no such file\n   help: do this\n");
    }

    #[test]
    fn nearest_forgives_case_dashes_and_small_slips_only() {
        let allowed = ["d_hidden", "model", "init"];
        assert_eq!(nearest("D-Hidden", allowed), Some("d_hidden"));
        assert_eq!(nearest("modle", allowed), Some("model"));
        assert_eq!(nearest("zebra", allowed), None);
    }
}
