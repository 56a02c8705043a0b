//! What a worker says on stderr: passed on as it comes, and its last lines remembered, for the record of what it died of.

use std::collections::VecDeque;
use std::io::{Read, Write};

/// Lines that are remembered, and bytes of each.
const LINES: usize = 20;
const BYTES: usize = 400;

/// The end of a text that is heard piece by piece.
#[derive(Debug, Default)]
struct LastWords {
    /// Starts of whole lines.
    lines: VecDeque<Vec<u8>>,
    /// The start of the line that has no end yet.
    line: Vec<u8>,
}

impl LastWords {
    fn hear(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            // One byte more than is kept, so that a line that was cut is known.
            let room = (BYTES + 1).saturating_sub(self.line.len());
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if ended {
                let line = std::mem::take(&mut self.line);
                self.keep(line);
            }
        }
    }

    fn keep(&mut self, line: Vec<u8>) {
        if !line.is_empty() {
            self.lines.push_back(line);
        }
        if self.lines.len() > LINES {
            self.lines.pop_front();
        }
    }

    fn told(mut self) -> Vec<String> {
        let line = std::mem::take(&mut self.line);
        self.keep(line);
        self.lines.iter().map(|line| plain(line)).collect()
    }
}

/// A line without anything that does something to a terminal.
fn plain(line: &[u8]) -> String {
    let mut text = String::new();
    for character in String::from_utf8_lossy(&line[..line.len().min(BYTES)]).chars() {
        match character {
            '\t' => text.push(' '),
            control if control.is_control() => text.extend(control.escape_default()),
            other => text.push(other),
        }
    }
    if line.len() > BYTES {
        text.push_str("...");
    }
    text
}

/// Passes everything on until the end; returns the last lines. A reader that went away stops nothing.
pub fn pass_on(mut from: impl Read, mut to: impl Write) -> Vec<String> {
    let (mut words, mut buffer) = (LastWords::default(), [0; 8192]);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return words.told(),
            Ok(length) => {
                let bytes = buffer.get(..length).unwrap_or_default();
                let _ = to.write_all(bytes).and_then(|()| to.flush());
                words.hear(bytes);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return words.told(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes a few at a time.
    struct Slowly<'a>(&'a [u8], usize);

    impl Read for Slowly<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let length = self.1.min(self.0.len()).min(buffer.len());
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    #[test]
    fn everything_is_passed_on_and_the_last_lines_are_remembered_in_pieces_of_any_length() {
        let text: String = (0..50).map(|n| format!("line {n}\n\n")).collect::<String>() + "no end";
        for length in [1, 7, 10_000] {
            let mut heard = Vec::new();
            let last = pass_on(Slowly(text.as_bytes(), length), &mut heard);
            assert_eq!(heard, text.as_bytes());
            assert_eq!(last.len(), LINES);
            assert_eq!((last[0].as_str(), last[LINES - 1].as_str()), ("line 31", "no end"));
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_does_nothing_to_a_terminal() {
        let text = format!("\u{1b}[31mred\u{7}\t\u{e9}\n{}\n", "x".repeat(1_000_000));
        let last = pass_on(text.as_bytes(), std::io::sink());
        assert_eq!(last[0], "\\u{1b}[31mred\\u{7} \u{e9}");
        assert_eq!(last[1], format!("{}...", "x".repeat(BYTES)));
        assert_eq!(pass_on(&b"\xff\n"[..], std::io::sink()), ["\u{fffd}"]);
    }
}
