//! Conditions as steps of a stack machine, read by descent:
//!
//! ```text
//! or:      and ("or" and)*                     value:    number, 'text', true, false, path, "path", (or)
//! and:     not ("and" not)*                    unary:    "-" unary | value
//! not:     "not" not | compared                product:  unary (("*" | "/" | "%") unary)*
//! compared: sum (("=" | "!=" | "<" | "<=" | ">" | ">=") sum | "not"? "in" (value, ..) | "is" "not"? "null")?
//!                                              sum:      product (("+" | "-") product)*
//! ```

use super::words::{Word, words};
use super::{Comparison, Condition, Step, Wrong};

/// Deepest nesting of brackets, `not` and minus signs.
const MOST_DEPTH: usize = 64;

/// What is left of a text, and the steps that were made of what stands before.
pub struct Reader {
    words: Vec<(Word, usize)>,
    next: usize,
    /// Bytes of the text.
    end: usize,
    depth: usize,
    paths: Vec<(String, usize)>,
    steps: Vec<(Step, usize)>,
}

impl Reader {
    /// Splits a text into words.
    ///
    /// # Errors
    /// The first byte that begins no word.
    pub fn of(text: &str) -> Result<Reader, Wrong> {
        Ok(Reader { words: words(text)?, next: 0, end: text.len(), depth: 0, paths: vec![], steps: vec![] })
    }

    /// Reads all of it as one condition.
    ///
    /// # Errors
    /// The first word that does not fit.
    pub fn whole(mut self) -> Result<Condition, Wrong> {
        self.or()?;
        match self.peek() {
            None => Ok(Condition { paths: self.paths, steps: self.steps }),
            Some(word) => Err(self.unexpected(&format!("{} does not go on the condition", word.shown()))),
        }
    }

    fn peek(&self) -> Option<&Word> {
        self.words.get(self.next).map(|(word, _)| word)
    }

    fn at(&self) -> usize {
        self.words.get(self.next).map_or(self.end, |(_, at)| *at)
    }

    fn unexpected(&self, message: &str) -> Wrong {
        Wrong { at: self.at(), message: message.to_owned() }
    }

    /// Takes the next word if it is this word of the language.
    fn takes(&mut self, keyword: &str) -> bool {
        let is = matches!(self.peek(), Some(Word::Plain(word)) if word.eq_ignore_ascii_case(keyword));
        self.next += is as usize;
        is
    }

    /// Takes the next sign if it is one of these.
    fn takes_sign(&mut self, wanted: &[&str]) -> Option<&'static str> {
        match self.peek() {
            Some(Word::Sign(sign)) if wanted.contains(sign) => {
                let sign = *sign;
                self.next += 1;
                Some(sign)
            }
            _ => None,
        }
    }

    fn push(&mut self, step: Step, at: usize) {
        self.steps.push((step, at));
    }

    fn deeper(&mut self, read: impl FnOnce(&mut Reader) -> Result<(), Wrong>) -> Result<(), Wrong> {
        if self.depth == MOST_DEPTH {
            return Err(self.unexpected(&format!("nested deeper than {MOST_DEPTH}")));
        }
        self.depth += 1;
        read(self)?;
        self.depth -= 1;
        Ok(())
    }

    fn or(&mut self) -> Result<(), Wrong> {
        self.and()?;
        loop {
            let at = self.at();
            if !self.takes("or") {
                return Ok(());
            }
            self.and()?;
            self.push(Step::Or, at);
        }
    }

    fn and(&mut self) -> Result<(), Wrong> {
        self.not()?;
        loop {
            let at = self.at();
            if !self.takes("and") {
                return Ok(());
            }
            self.not()?;
            self.push(Step::And, at);
        }
    }

    fn not(&mut self) -> Result<(), Wrong> {
        let at = self.at();
        if !self.takes("not") {
            return self.compared();
        }
        self.deeper(Reader::not)?;
        self.push(Step::Not, at);
        Ok(())
    }

    fn compared(&mut self) -> Result<(), Wrong> {
        self.sum()?;
        let at = self.at();
        if let Some(sign) = self.takes_sign(&["=", "==", "!=", "<>", "<", "<=", ">", ">="]) {
            self.sum()?;
            self.push(Step::Compare(Comparison::of(sign).expect("one of those above")), at);
        } else if self.takes("is") {
            let not = self.takes("not");
            if !self.takes("null") {
                return Err(self.unexpected("`is` asks for `null` or `not null`"));
            }
            self.push(Step::IsNull, at);
            if not {
                self.push(Step::Not, at);
            }
        } else if self.takes("in") {
            self.list(at)?;
        } else if self.takes("not") {
            if !self.takes("in") {
                return Err(self.unexpected("`not` stands before a condition, or before `in`"));
            }
            self.list(at)?;
            self.push(Step::Not, at);
        }
        Ok(())
    }

    fn list(&mut self, at: usize) -> Result<(), Wrong> {
        let mut count = 0;
        if self.takes_sign(&["("]).is_none() {
            return Err(self.unexpected("`in` asks for a list, such as (1, 2)"));
        }
        loop {
            self.sum()?;
            count += 1;
            if self.takes_sign(&[","]).is_none() {
                break;
            }
        }
        self.closes()?;
        self.push(Step::In(count), at);
        Ok(())
    }

    fn closes(&mut self) -> Result<(), Wrong> {
        match self.takes_sign(&[")"]) {
            Some(_) => Ok(()),
            None => Err(self.unexpected("a closing bracket is missing")),
        }
    }

    fn sum(&mut self) -> Result<(), Wrong> {
        self.chain(&["+", "-"], Reader::product)
    }

    fn product(&mut self) -> Result<(), Wrong> {
        self.chain(&["*", "/", "%"], Reader::unary)
    }

    fn chain(&mut self, signs: &[&str], part: fn(&mut Reader) -> Result<(), Wrong>) -> Result<(), Wrong> {
        part(self)?;
        loop {
            let at = self.at();
            let Some(sign) = self.takes_sign(signs) else { return Ok(()) };
            part(self)?;
            self.push(Step::Arithmetic(sign.chars().next().expect("no sign is empty")), at);
        }
    }

    fn unary(&mut self) -> Result<(), Wrong> {
        let at = self.at();
        if self.takes_sign(&["-"]).is_none() {
            return self.value();
        }
        self.deeper(Reader::unary)?;
        self.push(Step::Negate, at);
        Ok(())
    }

    fn value(&mut self) -> Result<(), Wrong> {
        let at = self.at();
        if self.takes_sign(&["("]).is_some() {
            self.deeper(Reader::or)?;
            return self.closes();
        }
        let step = match self.peek().cloned() {
            Some(Word::Number(number)) => Step::Number(number),
            Some(Word::Text(text)) => Step::Text(text),
            Some(Word::Quoted(path)) => Step::Path(self.path(path, at)),
            Some(Word::Plain(word)) => match word.to_ascii_lowercase().as_str() {
                "true" => Step::Bool(true),
                "false" => Step::Bool(false),
                "and" | "or" | "not" | "in" | "is" | "null" => {
                    return Err(self.unexpected(&format!("`{word}` stands where a value is expected")));
                }
                _ => Step::Path(self.path(word, at)),
            },
            Some(word @ Word::Sign(_)) => {
                return Err(self.unexpected(&format!("{} stands where a value is expected", word.shown())));
            }
            None => return Err(self.unexpected("it ends where a value is expected")),
        };
        self.next += 1;
        if matches!(self.peek(), Some(Word::Sign("("))) {
            return Err(self.unexpected("conditions call no functions"));
        }
        self.push(step, at);
        Ok(())
    }

    /// The number of a path, which is new or was named before.
    fn path(&mut self, path: String, at: usize) -> usize {
        self.paths.iter().position(|(known, _)| *known == path).unwrap_or_else(|| {
            self.paths.push((path, at));
            self.paths.len() - 1
        })
    }
}
