//! Which cell it was: cells that were being computed when something panicked, or when the process died, are computed again in
//! smaller and smaller groups, until one fails alone. That one gets two more chances and is then left out.
//!
//! Rows do not depend on how cells are grouped, so nothing else changes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How often a cell may fail alone before it is left out.
pub const ATTEMPTS: usize = 3;

/// Plan indices, as (first, count).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cells(Vec<(usize, usize)>);

impl Cells {
    /// Ascending indices.
    pub fn of(indices: &[usize]) -> Cells {
        let runs = indices.chunk_by(|a, b| a + 1 == *b);
        Cells(runs.map(|run| (run[0], run.len())).collect())
    }

    /// The indices, ascending.
    pub fn indices(&self) -> impl Iterator<Item = usize> {
        self.0.iter().flat_map(|&(first, count)| first..first + count)
    }
}

/// How computing a cell alone ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The words of a panic, or the signal that ended the process.
    pub reason: String,
    /// The last lines of stderr of a process that ended.
    pub stderr: Vec<String>,
}

impl From<String> for Attempt {
    fn from(reason: String) -> Self {
        Attempt { reason, stderr: vec![] }
    }
}

/// What blaming cells came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blamed {
    /// There was nobody to blame.
    Nobody,
    /// One of several: they are computed in two groups.
    Split,
    /// This one, alone, for the n-th time: it gets another chance.
    Again(usize, usize),
    /// This one, once too often: it is left out.
    Failed(usize),
}

/// Cells under suspicion.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspects {
    /// Groups to compute by themselves, the next one last.
    queue: Vec<Cells>,
    /// Why cells failed alone, each time.
    attempts: BTreeMap<usize, Vec<Attempt>>,
    /// The same of cells that are left out.
    failed: BTreeMap<usize, Vec<Attempt>>,
}

impl Suspects {
    /// The next group to compute by itself, ascending.
    pub fn next_group(&mut self) -> Option<Vec<usize>> {
        self.queue.pop().map(|cells| cells.indices().collect())
    }

    /// Cells that are in a group.
    pub fn queued(&self) -> impl Iterator<Item = usize> {
        self.queue.iter().flat_map(Cells::indices)
    }

    /// Cells that are in a group, or left out: not to be computed with others.
    pub fn held(&self) -> impl Iterator<Item = usize> {
        self.queued().chain(self.failed.keys().copied())
    }

    /// Cells that are left out, with each attempt.
    pub fn failed(&self) -> &BTreeMap<usize, Vec<Attempt>> {
        &self.failed
    }

    /// Cells (ascending) that were being computed together when something went wrong. Stems, which share a toy model, stay whole
    /// while there are several.
    pub fn blame(&mut self, cells: &[usize], how: &Attempt, same_stem: impl Fn(usize, usize) -> bool) -> Blamed {
        match cells {
            [] => Blamed::Nobody,
            &[cell] => {
                let attempts = self.attempts.entry(cell).or_default();
                attempts.push(how.clone());
                let count = attempts.len();
                if count < ATTEMPTS {
                    self.queue.push(Cells::of(&[cell]));
                    return Blamed::Again(cell, count);
                }
                let attempts = std::mem::take(attempts);
                self.attempts.remove(&cell);
                self.failed.insert(cell, attempts);
                Blamed::Failed(cell)
            }
            cells => {
                let middle = cells.len() / 2;
                let borders = (1..cells.len()).filter(|at| !same_stem(cells[at - 1], cells[*at]));
                let border = borders.min_by_key(|at| at.abs_diff(middle)).unwrap_or(middle);
                let (one, other) = cells.split_at(border);
                self.queue.extend([Cells::of(other), Cells::of(one)]);
                Blamed::Split
            }
        }
    }
}

/// The words of a panic.
pub fn words(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str).or_else(|| payload.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("without words"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn how(reason: &str) -> Attempt {
        reason.to_owned().into()
    }

    /// Computes groups until none is left, `bad` cells failing every group they are in; how many groups it took.
    fn hunt(all: &[usize], bad: &[usize], stem: usize) -> (Suspects, Vec<usize>, usize) {
        let (mut suspects, mut done, mut groups) = (Suspects::default(), vec![], 0);
        let mut group = Some(all.to_vec());
        while let Some(cells) = group {
            groups += 1;
            if cells.iter().any(|cell| bad.contains(cell)) {
                // As it comes back from the other process.
                let text = serde_json::to_string(&suspects).expect("it is plain");
                suspects = serde_json::from_str(&text).expect("its own text");
                suspects.blame(&cells, &how("it died"), |a, b| a / stem == b / stem);
            } else {
                done.extend(cells);
            }
            group = suspects.next_group();
        }
        done.sort_unstable();
        (suspects, done, groups)
    }

    #[test]
    fn one_bad_cell_among_a_thousand_is_found_by_halving_and_all_others_are_computed() {
        let all: Vec<usize> = (0..1024).collect();
        for bad in [0, 511, 700, 1023] {
            let (suspects, done, groups) = hunt(&all, &[bad], 4);
            assert_eq!(suspects.failed().keys().copied().collect::<Vec<_>>(), [bad]);
            assert_eq!(suspects.failed()[&bad].len(), ATTEMPTS);
            assert_eq!(done, all.iter().copied().filter(|cell| *cell != bad).collect::<Vec<_>>());
            assert!(groups <= 1 + 2 * 10 + ATTEMPTS, "{groups}");
        }
    }

    #[test]
    fn several_bad_cells_in_lists_with_gaps_are_found() {
        let all: Vec<usize> = (0..300).filter(|cell| cell % 7 != 3).collect();
        let bad = [5, 6, 99, 299];
        let (suspects, done, _) = hunt(&all, &bad, 3);
        assert_eq!(suspects.failed().keys().copied().collect::<Vec<_>>(), bad);
        assert_eq!(done.len() + bad.len(), all.len());
    }

    #[test]
    fn stems_stay_whole_while_there_are_several() {
        let mut suspects = Suspects::default();
        // Stems of 3: the border nearest to the middle, 4, is at 3.
        suspects.blame(&[0, 1, 2, 3, 4, 5, 6, 7], &how("x"), |a, b| a / 3 == b / 3);
        assert_eq!(suspects.next_group(), Some(vec![0, 1, 2]));
        suspects.blame(&[0, 1, 2], &how("x"), |_, _| true);
        assert_eq!(suspects.next_group(), Some(vec![0]), "one stem is split by its cells");
        assert_eq!(suspects.held().collect::<Vec<_>>(), [3, 4, 5, 6, 7, 1, 2]);
    }

    #[test]
    fn a_cell_that_fails_twice_and_then_not_is_not_left_out() {
        let mut suspects = Suspects::default();
        assert_eq!(suspects.blame(&[7], &how("a"), |_, _| true), Blamed::Again(7, 1));
        assert_eq!(suspects.next_group(), Some(vec![7]));
        assert_eq!(suspects.blame(&[7], &how("b"), |_, _| true), Blamed::Again(7, 2));
        assert_eq!((suspects.next_group(), suspects.next_group()), (Some(vec![7]), None));
        assert!(suspects.failed().is_empty());
        assert_eq!(suspects.blame(&[], &how("c"), |_, _| true), Blamed::Nobody);
    }
}
