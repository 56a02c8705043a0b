//! NumPy's `.npy` (NEP 1, `numpy/lib/format.py`): a matrix of f32 or f64, either byte order, either memory order.

use std::fs::File;
use std::io::{BufReader, Read};

use ndarray::{Array2, ShapeBuilder};

use super::layout::NumberType;
use super::{Matrix, Problem, shown};

/// A header of a plain matrix has about a hundred bytes; NumPy itself refuses more than 10,000.
const HEADER_LIMIT: u64 = 65_536;

/// Reads a file of `length` bytes.
///
/// # Errors
/// Where the header is not that of a matrix of f32 or f64, or its claims and the file's length differ: this is known
/// before anything of the claimed size is allocated.
pub fn read(file: impl Read, length: u64) -> Result<Matrix, Problem> {
    let mut file = BufReader::new(file);
    let (header, start) = read_header(&mut file, length)?;
    let header = Header::parse(&header)?;
    let number = header.number()?;
    let (rows, columns) = header.matrix()?;
    let overflow = || Problem::Overflow(header.shape_text());
    let count = rows.checked_mul(columns).ok_or_else(overflow)?;
    let promised = count.checked_mul(number.size).and_then(|bytes| bytes.checked_add(start)).ok_or_else(overflow)?;
    if promised != length {
        return Err(Problem::WrongLength { promised, found: length });
    }
    // All three fit: their product is at most the length of a file that is there, or one of them is 0.
    let size = |size: u64| usize::try_from(size).map_err(|_| overflow());
    let shape = (size(rows)?, size(columns)?).set_f(header.fortran_order);
    let count = size(count)?;
    let wrong_shape = |error: ndarray::ShapeError| Problem::BadHeader(error.to_string());
    Ok(match (number.size, number.big_endian) {
        (4, false) => {
            let values = numbers(&mut file, count, f32::from_le_bytes)?;
            Matrix::F32(Array2::from_shape_vec(shape, values).map_err(wrong_shape)?)
        }
        (4, true) => {
            let values = numbers(&mut file, count, f32::from_be_bytes)?;
            Matrix::F32(Array2::from_shape_vec(shape, values).map_err(wrong_shape)?)
        }
        (_, false) => {
            let values = numbers(&mut file, count, f64::from_le_bytes)?;
            Matrix::F64(Array2::from_shape_vec(shape, values).map_err(wrong_shape)?)
        }
        (_, true) => {
            let values = numbers(&mut file, count, f64::from_be_bytes)?;
            Matrix::F64(Array2::from_shape_vec(shape, values).map_err(wrong_shape)?)
        }
    })
}

/// What a header says of a matrix of floating-point numbers.
pub struct Layout {
    /// (rows, columns)
    pub shape: (u64, u64),
    /// Byte where the numbers start.
    pub start: u64,
    pub number: NumberType,
    pub big_endian: bool,
    pub fortran_order: bool,
}

/// The layout of a file of `length` bytes, half precision included.
///
/// # Errors
/// As [`read`].
pub fn layout(file: File, length: u64) -> Result<Layout, Problem> {
    let (header, start) = read_header(&mut BufReader::new(file), length)?;
    let header = Header::parse(&header)?;
    let (number, big_endian) = match header.descr.as_str() {
        "<f2" => (NumberType::F16, false),
        ">f2" => (NumberType::F16, true),
        _ => {
            let Number { size, big_endian } = header.number()?;
            (if size == 4 { NumberType::F32 } else { NumberType::F64 }, big_endian)
        }
    };
    let shape = header.matrix()?;
    let overflow = || Problem::Overflow(header.shape_text());
    let bytes = shape.0.checked_mul(shape.1).and_then(|count| count.checked_mul(number.size()));
    let promised = bytes.and_then(|bytes| bytes.checked_add(start)).ok_or_else(overflow)?;
    if promised != length {
        return Err(Problem::WrongLength { promised, found: length });
    }
    Ok(Layout { shape, start, number, big_endian, fortran_order: header.fortran_order })
}

/// The next `count` numbers of `N` bytes.
pub fn numbers<T, const N: usize>(
    file: &mut impl Read,
    count: usize,
    decode: fn([u8; N]) -> T,
) -> Result<Vec<T>, Problem> {
    const CHUNK: usize = 8192;
    let mut values = Vec::with_capacity(count);
    let mut bytes = vec![0u8; CHUNK * N];
    while values.len() < count {
        let part = &mut bytes[..CHUNK.min(count - values.len()) * N];
        file.read_exact(part)?;
        values.extend(part.as_chunks::<N>().0.iter().map(|&number| decode(number)));
    }
    Ok(values)
}

/// The header's text and where the data starts.
fn read_header(file: &mut impl Read, length: u64) -> Result<(String, u64), Problem> {
    const MAGIC: &[u8] = b"\x93NUMPY";
    let mut start = [0u8; 8];
    if length < 10 {
        return Err(Problem::WrongFormat(".npy"));
    }
    file.read_exact(&mut start)?;
    if &start[..6] != MAGIC {
        return Err(Problem::WrongFormat(".npy"));
    }
    let (header_length, preamble) = match start[6] {
        1 => {
            let mut size = [0u8; 2];
            file.read_exact(&mut size)?;
            (u64::from(u16::from_le_bytes(size)), 10)
        }
        2 | 3 => {
            let mut size = [0u8; 4];
            file.read_exact(&mut size)?;
            (u64::from(u32::from_le_bytes(size)), 12)
        }
        version => return Err(Problem::BadHeader(format!("version {version} of the format"))),
    };
    if header_length > HEADER_LIMIT {
        return Err(Problem::LongHeader { found: header_length, limit: HEADER_LIMIT });
    }
    if preamble + header_length > length {
        return Err(Problem::WrongLength { promised: preamble + header_length, found: length });
    }
    // At most HEADER_LIMIT bytes.
    let mut header = vec![0u8; header_length as usize];
    file.read_exact(&mut header)?;
    let text = String::from_utf8(header).map_err(|_| Problem::BadHeader("it is not text".into()))?;
    Ok((text, preamble + header_length))
}

/// How one number is stored.
struct Number {
    size: u64,
    big_endian: bool,
}

/// `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`
#[derive(Debug, PartialEq)]
struct Header {
    descr: String,
    fortran_order: bool,
    /// As written, sign included.
    shape: Vec<String>,
}

impl Header {
    fn parse(text: &str) -> Result<Header, Problem> {
        let mut rest = Cursor { text, place: 0 };
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        rest.expect('{')?;
        while !rest.take('}') {
            let key = rest.string()?;
            rest.expect(':')?;
            let repeated = match key {
                "descr" => descr.replace(rest.descr()?).is_some(),
                "fortran_order" => fortran_order.replace(rest.boolean()?).is_some(),
                "shape" => shape.replace(rest.tuple()?).is_some(),
                other => return Err(Problem::BadHeader(format!("unknown key {}", shorten(other)))),
            };
            if repeated {
                return Err(Problem::BadHeader(format!("{key} is there twice")));
            }
            if !rest.take(',') {
                rest.expect('}')?;
                break;
            }
        }
        rest.end()?;
        let missing = |key: &str| Problem::BadHeader(format!("{key} is missing"));
        Ok(Header {
            descr: descr.ok_or_else(|| missing("descr"))?,
            fortran_order: fortran_order.ok_or_else(|| missing("fortran_order"))?,
            shape: shape.ok_or_else(|| missing("shape"))?,
        })
    }

    fn number(&self) -> Result<Number, Problem> {
        match self.descr.as_str() {
            "<f4" => Ok(Number { size: 4, big_endian: false }),
            ">f4" => Ok(Number { size: 4, big_endian: true }),
            "<f8" => Ok(Number { size: 8, big_endian: false }),
            ">f8" => Ok(Number { size: 8, big_endian: true }),
            other if other.trim_start_matches(['|', '<', '>', '=']).starts_with('O') => Err(Problem::Objects),
            other => Err(Problem::WrongType(shorten(other))),
        }
    }

    fn matrix(&self) -> Result<(u64, u64), Problem> {
        if self.shape.iter().any(|size| size.starts_with('-')) {
            return Err(Problem::NegativeSize(self.shape_text()));
        }
        let [rows, columns] = self.shape.as_slice() else { return Err(Problem::NotAMatrix(self.shape_text())) };
        // Digits alone: what does not parse is too large.
        let size = |text: &str| text.parse::<u64>().map_err(|_| Problem::Overflow(self.shape_text()));
        Ok((size(rows)?, size(columns)?))
    }

    fn shape_text(&self) -> String {
        format!("[{}]", shorten(&self.shape.join(", ")))
    }
}

fn shorten(text: &str) -> String {
    shown(text, 60)
}

/// Reads the few Python literals that a header is made of; anything else is an error, never evaluated.
struct Cursor<'a> {
    text: &'a str,
    place: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&mut self) -> &'a str {
        let rest = &self.text[self.place..];
        let trimmed = rest.trim_start();
        self.place += rest.len() - trimmed.len();
        trimmed
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.rest().starts_with(wanted);
        self.place += if found { wanted.len_utf8() } else { 0 };
        found
    }

    fn expect(&mut self, wanted: char) -> Result<(), Problem> {
        if self.take(wanted) { Ok(()) } else { Err(self.unexpected(&format!("{wanted:?}"))) }
    }

    fn unexpected(&mut self, wanted: &str) -> Problem {
        let found: String = self.rest().chars().take(20).collect();
        Problem::BadHeader(format!("{wanted} expected at byte {}, found {found:?}", self.place))
    }

    fn string(&mut self) -> Result<&'a str, Problem> {
        let rest = self.rest();
        let quote = rest.chars().next().filter(|quote| matches!(quote, '\'' | '"'));
        let Some(quote) = quote else { return Err(self.unexpected("a quoted name")) };
        match rest[1..].find([quote, '\\']).filter(|&end| rest[1 + end..].starts_with(quote)) {
            Some(end) => {
                self.place += end + 2;
                Ok(&rest[1..1 + end])
            }
            None => Err(self.unexpected("a quoted name")),
        }
    }

    /// A type name; a list of fields is a structured type.
    fn descr(&mut self) -> Result<String, Problem> {
        if self.rest().starts_with('[') {
            return Err(Problem::WrongType("of records (structured)".into()));
        }
        self.string().map(str::to_owned)
    }

    fn boolean(&mut self) -> Result<bool, Problem> {
        for (word, value) in [("True", true), ("False", false)] {
            if self.rest().starts_with(word) {
                self.place += word.len();
                return Ok(value);
            }
        }
        Err(self.unexpected("True or False"))
    }

    /// `()`, `(3,)`, `(3, 4)`: whole numbers, possibly negative.
    fn tuple(&mut self) -> Result<Vec<String>, Problem> {
        let mut numbers = vec![];
        self.expect('(')?;
        while !self.take(')') {
            let sign = if self.take('-') { "-" } else { "" };
            let digits = self.rest().len() - self.rest().trim_start_matches(|c: char| c.is_ascii_digit()).len();
            if digits == 0 {
                return Err(self.unexpected("a whole number"));
            }
            numbers.push(format!("{sign}{}", &self.rest()[..digits]));
            self.place += digits;
            if !self.take(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(numbers)
    }

    fn end(&mut self) -> Result<(), Problem> {
        if self.rest().is_empty() { Ok(()) } else { Err(self.unexpected("the end of the header")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_however_it_is_spaced() {
        let expected =
            Header { descr: "<f4".into(), fortran_order: false, shape: vec!["3".to_string(), "4".to_string()] };
        for text in [
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }      \n",
            "{\"shape\":(3,4),\"fortran_order\":False,\"descr\":\"<f4\"}",
            " { 'fortran_order' : False , 'descr' : '<f4' , 'shape' : ( 3 , 4 , ) } ",
        ] {
            assert_eq!(Header::parse(text).expect(text), expected);
        }
    }

    #[test]
    fn a_header_that_is_anything_else_is_refused() {
        for text in [
            "",
            "{",
            "{}",
            "{'descr': '<f4', 'fortran_order': False}",
            "{'descr': '<f4', 'fortran_order': 0, 'shape': (3, 4)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4)} x",
            "{'descr': '<f4', 'fortran_order': False, 'shape': [3, 4]}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3 4)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4L)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), 'shape': (3, 4)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (__import__('os').system('true'), 4)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), 'more': 1}",
            "{'descr: '<f4', 'fortran_order': False, 'shape': (3, 4)}",
            "{'descr': '<f\\x34', 'fortran_order': False, 'shape': (3, 4)}",
            "{'descr': '<f4, 'fortran_order': False",
            "{'é",
        ] {
            assert!(matches!(Header::parse(text), Err(Problem::BadHeader(_))), "{text}");
        }
    }
}
