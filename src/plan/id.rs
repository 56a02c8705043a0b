//! Names of cells by what they hold.

use std::fmt;
use std::str::FromStr;

use serde_json::Value as Json;

/// First 128 bits of the hash over everything that can change a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellId(pub [u8; 16]);

/// The digits of an id, on the stack: tables have as many as they have rows.
pub struct Digits([u8; 32]);

impl Digits {
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }
}

impl CellId {
    /// 32 hexadecimal digits in lower case.
    pub fn digits(&self) -> Digits {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut digits = [0; 32];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        Digits(digits)
    }
}

impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.digits().as_str())
    }
}

/// A text that is not 32 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a cell id: 32 hexadecimal digits in lower case are expected")]
pub struct NotACellId(pub String);

impl FromStr for CellId {
    type Err = NotACellId;

    fn from_str(text: &str) -> Result<Self, NotACellId> {
        let wrong = || NotACellId(text.to_string());
        let digits: &[u8; 32] = text.as_bytes().try_into().map_err(|_| wrong())?;
        let (mut bytes, mut seen) = ([0u8; 16], 0);
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = [pair[0], pair[1]].map(|digit| VALUES[usize::from(digit)]);
            *byte = high << 4 | low;
            seen |= high | low;
        }
        // Without a branch a digit: a table of a million rows has 32 million of them.
        if seen & NO_DIGIT == 0 { Ok(CellId(bytes)) } else { Err(wrong()) }
    }
}

/// Set in the value of a byte that is no digit.
const NO_DIGIT: u8 = 0x80;

/// The value of each byte as a lower-case hexadecimal digit.
const VALUES: [u8; 256] = {
    let mut values = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 16 {
        values[b"0123456789abcdef"[value] as usize] = value as u8;
        value += 1;
    }
    values
};

/// Hash of one part of a cell, fully resolved.
pub type PartHash = [u8; 32];

/// Version of the layout of the hash.
const CONTEXT: &str = "tegum 2026 cell id v1";

/// The id of a cell from the hashes of its parts, its seed, the versions of its algorithms and the arithmetic profile,
/// length-prefixed so that no two lists of fields run together.
pub fn cell_id(parts: &[PartHash], seed: u64, algorithms: &str, profile: &str) -> CellId {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    field(&(parts.len() as u64).to_le_bytes());
    for part in parts {
        field(part);
    }
    field(&seed.to_le_bytes());
    field(algorithms.as_bytes());
    field(profile.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    CellId(id)
}

/// Hash of a canonical description: keys sorted, numbers in shortest form.
pub fn part_hash(description: &Json) -> PartHash {
    let mut text = String::new();
    write_canonical(description, &mut text);
    *blake3::hash(text.as_bytes()).as_bytes()
}

/// JSON with sorted keys and no spaces.
pub fn write_canonical(value: &Json, out: &mut String) {
    match value {
        Json::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            out.push('{');
            for (n, key) in keys.into_iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                out.push_str(&Json::String(key.clone()).to_string());
                out.push(':');
                write_canonical(&map[key], out);
            }
            out.push('}');
        }
        Json::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

/// The first eight bytes as a number, in the order of ids.
fn start(id: &CellId) -> u64 {
    u64::from_be_bytes(*id.0.first_chunk().expect("an id has sixteen bytes"))
}

/// Where an id stands among sorted ones. Ids are hashes, so nearly evenly spread: the search begins where the id would stand if they were
/// quite even, some sqrt(n) places off, and reads a few lines of memory where halving a million ids reads twelve. For other ids it
/// is a galloping search.
pub fn position(sorted: &[CellId], sought: &CellId) -> Option<usize> {
    let len = sorted.len();
    let guess = ((u128::from(start(sought)) * len as u128) >> 64) as usize;
    let mut step = 1 + len.isqrt() / 2;
    // Invariant: what is sought stands in `low..high` if anywhere.
    let (mut low, mut high) = (guess, guess);
    if sorted.get(guess).is_some_and(|id| id <= sought) {
        while high < len && sorted[high] <= *sought {
            low = high;
            high = (high + step).min(len);
            step *= 2;
        }
    } else {
        while low > 0 && (low == high || sorted[low] > *sought) {
            high = low;
            low = low.saturating_sub(step);
            step *= 2;
        }
    }
    sorted[low..high].binary_search(sought).ok().map(|at| low + at)
}

/// The first two cells with one id, the smallest such id first. Ids are compared by their first eight bytes, which take half the memory
/// and no places; the rest of them only where two agree in these.
pub fn equal_ids(ids: &[CellId]) -> Option<[usize; 2]> {
    use rayon::prelude::*;
    let mut starts: Vec<u64> = ids.par_iter().map(start).collect();
    starts.par_sort_unstable();
    let shared: Vec<u64> = starts.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    drop(starts);
    if shared.is_empty() {
        return None;
    }
    let mut like: Vec<(CellId, usize)> =
        ids.iter().copied().zip(0..).filter(|(id, _)| shared.binary_search(&start(id)).is_ok()).collect();
    like.sort_unstable();
    like.windows(2).find(|pair| pair[0].0 == pair[1].0).map(|pair| [pair[0].1, pair[1].1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_cell_id_survives_its_text_form() {
        let id = CellId([0, 1, 2, 3, 250, 251, 252, 253, 254, 255, 16, 17, 18, 19, 20, 21]);
        assert_eq!(id.to_string(), "00010203fafbfcfdfeff101112131415");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn text_that_is_not_a_cell_id_is_refused() {
        for text in ["", "00", "zz010203fafbfcfdfeff101112131415", "00010203FAFBFCFDFEFF101112131415"] {
            assert!(text.parse::<CellId>().is_err(), "{text}");
        }
        let digits = "00010203fafbfcfdfeff101112131415";
        for at in 0..32 {
            for other in (0..128u8).filter(|byte| !b"0123456789abcdef".contains(byte)) {
                let mut text = digits.as_bytes().to_vec();
                text[at] = other;
                let text = String::from_utf8(text).expect("ASCII");
                assert!(text.parse::<CellId>().is_err(), "{text}");
            }
        }
        assert!("é010203fafbfcfdfeff10111213141".parse::<CellId>().is_err());
    }

    #[test]
    fn the_order_of_keys_does_not_change_a_hash_and_any_value_does() {
        assert_eq!(part_hash(&json!({"a": 1, "b": [2.5]})), part_hash(&json!({"b": [2.5], "a": 1})));
        assert_ne!(part_hash(&json!({"a": 1, "b": [2.5]})), part_hash(&json!({"a": 1, "b": [2.25]})));
    }

    #[test]
    fn every_field_of_an_id_counts() {
        let parts = [[1; 32], [2; 32]];
        let id = cell_id(&parts, 3, "a1", "cpu");
        for other in [
            cell_id(&parts[..1], 3, "a1", "cpu"),
            cell_id(&[parts[1], parts[0]], 3, "a1", "cpu"),
            cell_id(&parts, 4, "a1", "cpu"),
            cell_id(&parts, 3, "a2", "cpu"),
            cell_id(&parts, 3, "a1c", "pu"),
        ] {
            assert_ne!(id, other);
        }
        assert_eq!(id.to_string().len(), 32);
    }

    #[test]
    fn ids_are_found_however_they_are_spread() {
        let numbered = |number: u64| {
            let mut bytes = [7; 16];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            CellId(bytes)
        };
        let spread = |number: u64| CellId(*blake3::hash(&number.to_le_bytes()).as_bytes().first_chunk().expect("32"));
        for count in [0, 1, 2, 3, 100, 1000] {
            let even: Vec<CellId> = (0..count).map(spread).collect();
            let low: Vec<CellId> = (0..count).map(|n| numbered(2 * n + 1)).collect();
            let high: Vec<CellId> = (0..count).map(|n| numbered(u64::MAX - 2 * n - 1)).collect();
            for mut ids in [even, low, high] {
                ids.sort_unstable();
                let found = |id: &CellId| assert_eq!(position(&ids, id), ids.binary_search(id).ok(), "{id} of {count}");
                ids.iter().for_each(found);
                (0..2 * count + 3)
                    .flat_map(|n| [numbered(n), numbered(u64::MAX - n), spread(n + count)])
                    .for_each(|id| found(&id));
            }
        }
    }

    #[test]
    fn equal_ids_are_found_and_ids_that_only_begin_alike_are_not() {
        let id = |first: u8, last: u8| {
            let mut bytes = [7; 16];
            (bytes[0], bytes[15]) = (first, last);
            CellId(bytes)
        };
        assert_eq!(equal_ids(&[]), None);
        assert_eq!(equal_ids(&[id(1, 1), id(1, 2), id(2, 1)]), None);
        assert_eq!(equal_ids(&[id(3, 1), id(1, 1), id(1, 2), id(3, 1), id(1, 2)]), Some([2, 4]));
    }
}
