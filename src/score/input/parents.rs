//! The hierarchy: a JSON object {child: parent}, features by index, as `{"1": 0, "2": 0}`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

use super::entries::Entries;
use super::{InputError, Problem, open};

/// More than any tree of features that can be scored needs.
const LIMIT: u64 = 16 << 20;

/// What can be wrong with the hierarchy.
#[derive(Debug, thiserror::Error)]
pub enum ParentsProblem {
    #[error("not an object {{child: parent}} of whole numbers: {0}")]
    NotAMap(#[from] serde_json::Error),
    #[error("{0} bytes are more than the {LIMIT} allowed")]
    Long(u64),
    #[error("the child {0:?} is not a feature's index in plain decimal form")]
    NotAnIndex(String),
    #[error("feature {feature} is not among the {n_features} of the truth (0 to {})", n_features - 1)]
    OutOfRange { feature: u64, n_features: usize },
    #[error("feature {0} is its own ancestor")]
    Cycle(usize),
}

/// Reads {child: parent} for a truth of `n_features`: every index in range, no cycle.
pub fn read(path: &Path, n_features: usize) -> Result<BTreeMap<usize, usize>, InputError> {
    let wrong = |problem| InputError::File { path: path.to_owned(), problem };
    let (file, length) = open(path).map_err(wrong)?;
    let wrong_parents = |problem| InputError::Parents { path: path.to_owned(), problem };
    if length > LIMIT {
        return Err(wrong_parents(ParentsProblem::Long(length)));
    }
    let mut text = vec![];
    file.take(LIMIT).read_to_end(&mut text).map_err(|error| wrong(Problem::Unreadable(error)))?;
    parse(&text, n_features).map_err(wrong_parents)
}

fn parse(text: &[u8], n_features: usize) -> Result<BTreeMap<usize, usize>, ParentsProblem> {
    let Entries(entries) = serde_json::from_slice::<Entries<u64>>(text)?;
    let in_range = |feature: u64| {
        let index = usize::try_from(feature).ok().filter(|&index| index < n_features);
        index.ok_or(ParentsProblem::OutOfRange { feature, n_features })
    };
    let mut parents = BTreeMap::new();
    for (child, parent) in entries {
        // The text must be the number's own: "01" and "1" would be two keys for one child.
        let number = child.parse::<u64>().ok().filter(|number| number.to_string() == child);
        let number = number.ok_or_else(|| ParentsProblem::NotAnIndex(child.chars().take(60).collect()))?;
        parents.insert(in_range(number)?, in_range(parent)?);
    }
    match cyclic(&parents) {
        Some(feature) => Err(ParentsProblem::Cycle(feature)),
        None => Ok(parents),
    }
}

/// A feature that is its own ancestor.
fn cyclic(parents: &BTreeMap<usize, usize>) -> Option<usize> {
    // Features known to lead to a root.
    let mut grounded = BTreeSet::new();
    for &start in parents.keys() {
        let (mut path, mut feature) = (BTreeSet::from([start]), start);
        while let Some(&parent) = parents.get(&feature).filter(|parent| !grounded.contains(*parent)) {
            if !path.insert(parent) {
                return Some(parent);
            }
            feature = parent;
        }
        grounded.append(&mut path);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        parse(text.as_bytes(), 6).expect_err("a bad hierarchy").to_string()
    }

    #[test]
    fn a_forest_is_read() {
        let parents = parse(br#"{"1": 0, "2": 0, "3": 1, "5": 4}"#, 6).expect("a forest");
        assert_eq!(parents, BTreeMap::from([(1, 0), (2, 0), (3, 1), (5, 4)]));
        assert_eq!(parse(b"{}", 6).expect("no pairs"), BTreeMap::new());
    }

    #[test]
    fn a_hierarchy_that_is_none_is_refused() {
        assert!(message("[1, 2]").contains("not an object"));
        assert!(message(r#"{"1": -1}"#).contains("not an object"));
        assert!(message(r#"{"1": 0.5}"#).contains("not an object"));
        assert!(message(r#"{"1": 0"#).contains("not an object"));
        assert!(message(r#"{"1": 0, "1": 2}"#).contains("\"1\" is there twice"));
        assert!(message(r#"{"01": 0}"#).contains("plain decimal"));
        assert!(message(r#"{"a": 0}"#).contains("plain decimal"));
        assert!(message(r#"{"6": 0}"#).contains("feature 6 is not among the 6"));
        assert!(message(r#"{"1": 6}"#).contains("feature 6 is not among the 6"));
        assert!(message(r#"{"1": 99999999999}"#).contains("feature 99999999999"));
    }

    #[test]
    fn a_cycle_is_found_wherever_it_is() {
        assert!(message(r#"{"1": 1}"#).contains("feature 1 is its own ancestor"));
        assert!(message(r#"{"1": 2, "2": 1}"#).contains("feature 1 is"));
        // 0 leads into the cycle 3, 4, 5 and is not part of it.
        assert!(message(r#"{"0": 3, "3": 4, "4": 5, "5": 3, "2": 1}"#).contains("feature 3 is"));
    }
}
