//! The one-to-one assignment of greatest total, exactly.
//!
//! [`solve`] takes a sparse graph: shortest augmenting paths after a greedy start (Jonker & Volgenant 1987, "A shortest
//! augmenting path algorithm for dense and sparse linear assignment problems"), in whole numbers. It leaves prices u of rows
//! and v of columns with u_r + v_c >= w_rc, equal on matched pairs, v >= 0, and v = 0 on columns left over: no assignment
//! within the graph is better.
//!
//! [`assign`] takes a dense table too large to solve whole: it solves the heaviest pairs of each row, then asks whether the
//! prices hold for all other pairs as well. Since v >= 0, a row whose price is above everything left out needs no further
//! look; the others are computed again, whole, and where a pair breaks its price the row gets more candidates and all is
//! solved again. So the result is the optimum over all pairs, with a proof in its prices.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rayon::prelude::*;

/// Pairs of a table that is solved whole.
const WHOLE: usize = 1 << 20;

/// Candidates that a row of a larger table starts with.
const FIRST: usize = 32;

/// A row whose prices do not hold gets so many times more candidates.
const MORE: usize = 4;

/// Rows computed together.
const BLOCK: usize = 64;

/// Pairs that break their prices most, added beside the next heaviest.
const WORST: usize = 8;

/// What a row loses by staying without a column: above any sum of weights that are below 2^82.
const ALONE: i128 = 1 << 108;

/// Passes of the greedy start over rows that have lost their column.
const PASSES: usize = 4;

/// A table of weights, `[rows, columns]`, rows no more than columns.
pub trait Table: Sync {
    /// (rows, columns)
    fn dim(&self) -> (usize, usize);
    /// What weights are made of, of some rows: `[rows.len(), columns]`.
    fn rows(&self, rows: &[usize]) -> Vec<f64>;
    /// The weight of a pair from that number: 0 to 2^82.
    fn weight(&self, row: usize, column: usize, number: f64) -> i128;
    /// The weight as f64, nearly: candidates are chosen by it.
    fn size(&self, row: usize, column: usize, number: f64) -> f64;
    /// No weight whose size is at most this is greater.
    fn weight_above(&self, size: f64) -> i128;
}

/// The column of each row.
pub fn assign(table: &impl Table) -> Vec<usize> {
    let (n_rows, n_columns) = table.dim();
    assign_from(table, if n_rows * n_columns <= WHOLE { n_columns } else { FIRST })
}

/// The same, rows starting with their `first` heaviest pairs.
fn assign_from(table: &impl Table, first: usize) -> Vec<usize> {
    let (n_rows, n_columns) = table.dim();
    debug_assert!(n_rows <= n_columns, "rows are the smaller side");
    let all: Vec<usize> = (0..n_rows).collect();
    let mut rows = of_blocks(table, &all, |row, numbers| Some(candidates(table, row, numbers, first, &[])));
    loop {
        let graph = Graph::new(&rows, n_columns);
        let solution = solve(&graph);
        let open = |&row: &usize| {
            let left_out = rows[row].left_out;
            left_out.is_some_and(|size| {
                solution.column_of[row] as usize >= n_columns || table.weight_above(size) > solution.u[row]
            })
        };
        let open: Vec<usize> = (0..n_rows).filter(open).collect();
        let wider = of_blocks(table, &open, |row, numbers| {
            let broken = broken(table, row, numbers, &solution);
            let count = MORE * rows[row].edges.len();
            (!broken.is_empty()).then(|| (row, candidates(table, row, numbers, count, &broken)))
        });
        if wider.is_empty() {
            return solution.column_of.iter().map(|&column| column as usize).collect();
        }
        wider.into_iter().for_each(|(row, candidates)| rows[row] = candidates);
    }
}

/// f of some rows with their numbers, blocks over threads, in order.
fn of_blocks<R: Send>(table: &impl Table, rows: &[usize], f: impl Fn(usize, &[f64]) -> Option<R> + Sync) -> Vec<R> {
    let n_columns = table.dim().1;
    let block = |rows: &[usize]| {
        let numbers = table.rows(rows);
        let of_row = |(&row, numbers)| f(row, numbers);
        rows.iter().zip(numbers.chunks_exact(n_columns)).filter_map(of_row).collect::<Vec<R>>()
    };
    rows.par_chunks(BLOCK).map(block).collect::<Vec<_>>().into_iter().flatten().collect()
}

/// The pairs of a row that take part.
struct Candidates {
    /// (column, weight), columns ascending.
    edges: Vec<(u32, i128)>,
    /// No pair left out has a greater size; None where all take part.
    left_out: Option<f64>,
}

/// The `count` pairs of greatest size, and those of `also`.
fn candidates(table: &impl Table, row: usize, numbers: &[f64], count: usize, also: &[u32]) -> Candidates {
    let edge = |column: u32| (column, table.weight(row, column as usize, numbers[column as usize]));
    if count >= numbers.len() {
        return Candidates { edges: (0..numbers.len() as u32).map(edge).collect(), left_out: None };
    }
    let size = |column: &u32| table.size(row, *column as usize, numbers[*column as usize]);
    let mut sized: Vec<(f64, u32)> = (0..numbers.len() as u32).map(|column| (size(&column), column)).collect();
    // Greatest first; of equal sizes the lower column.
    sized.select_nth_unstable_by(count, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let left_out = sized[count].0;
    let mut columns: Vec<u32> = sized[..count].iter().map(|pair| pair.1).chain(also.iter().copied()).collect();
    columns.sort_unstable();
    columns.dedup();
    Candidates { edges: columns.into_iter().map(edge).collect(), left_out: Some(left_out) }
}

/// Columns whose pair with the row weighs more than its prices, up to [`WORST`] of them, the worst.
fn broken(table: &impl Table, row: usize, numbers: &[f64], solution: &Solution) -> Vec<u32> {
    let mut worst: Vec<(i128, u32)> = vec![];
    for (column, &number) in numbers.iter().enumerate() {
        let excess = table.weight(row, column, number) - solution.u[row] - solution.v[column];
        if excess > 0 && (worst.len() < WORST || excess > worst[WORST - 1].0) {
            worst.push((excess, column as u32));
            worst.sort_by_key(|&(excess, column)| (Reverse(excess), column));
            worst.truncate(WORST);
        }
    }
    worst.into_iter().map(|pair| pair.1).collect()
}

/// Weighted pairs, row by row.
struct Graph {
    n_columns: usize,
    /// `[rows + 1]`
    starts: Vec<usize>,
    edges: Vec<(u32, i128)>,
}

impl Graph {
    fn new(rows: &[Candidates], n_columns: usize) -> Graph {
        let (mut starts, mut edges) = (vec![0], Vec::with_capacity(rows.iter().map(|row| row.edges.len()).sum()));
        for row in rows {
            edges.extend_from_slice(&row.edges);
            starts.push(edges.len());
        }
        Graph { n_columns, starts, edges }
    }

    fn n_rows(&self) -> usize {
        self.starts.len() - 1
    }

    fn of(&self, row: usize) -> &[(u32, i128)] {
        &self.edges[self.starts[row]..self.starts[row + 1]]
    }
}

/// An assignment with its prices.
struct Solution {
    /// `[rows]`; n_columns + row where a row stays alone.
    column_of: Vec<u32>,
    /// Prices of rows.
    u: Vec<i128>,
    /// Prices of columns, and of staying alone: `[n_columns + rows]`.
    v: Vec<i128>,
}

const NONE: u32 = u32::MAX;

/// The assignment of greatest total within the graph.
fn solve(graph: &Graph) -> Solution {
    let mut solver = Solver::new(graph);
    let mut free = solver.take_best();
    for _ in 0..PASSES {
        if free.is_empty() {
            break;
        }
        free = solver.outbid(&free);
    }
    let mut search = Search::new(solver.row_of.len());
    free.into_iter().for_each(|row| solver.augment(row, &mut search));
    Solution { column_of: solver.column_of, u: solver.u, v: solver.v }
}

struct Solver<'a> {
    graph: &'a Graph,
    column_of: Vec<u32>,
    /// `[n_columns + rows]`
    row_of: Vec<u32>,
    u: Vec<i128>,
    v: Vec<i128>,
}

/// Memory of a search, used again.
struct Search {
    /// Length of the shortest path to each column; `i128::MAX` where none is known.
    distance: Vec<i128>,
    /// The row before each column on it.
    before: Vec<u32>,
    /// Columns with a distance.
    met: Vec<u32>,
    /// Columns whose distance is final, in order.
    done: Vec<u32>,
    open: BinaryHeap<Reverse<(i128, u32)>>,
}

impl Search {
    fn new(columns: usize) -> Search {
        let (distance, before) = (vec![i128::MAX; columns], vec![NONE; columns]);
        Search { distance, before, met: vec![], done: vec![], open: BinaryHeap::new() }
    }
}

impl<'a> Solver<'a> {
    fn new(graph: &'a Graph) -> Solver<'a> {
        let (rows, columns) = (graph.n_rows(), graph.n_columns + graph.n_rows());
        Solver {
            graph,
            column_of: vec![NONE; rows],
            row_of: vec![NONE; columns],
            u: vec![0; rows],
            v: vec![0; columns],
        }
    }

    /// Every pair of a row, the one of staying alone last.
    fn edges(&self, row: usize) -> impl Iterator<Item = (u32, i128)> + use<'a> {
        let graph = self.graph;
        graph.of(row).iter().copied().chain([((graph.n_columns + row) as u32, -ALONE)])
    }

    fn join(&mut self, row: usize, column: u32) {
        self.column_of[row] = column;
        self.row_of[column as usize] = row as u32;
    }

    /// Prices of columns are 0, those of rows their greatest weight; the first row that wants a column has it. Rows left over.
    fn take_best(&mut self) -> Vec<usize> {
        let mut free = vec![];
        for row in 0..self.graph.n_rows() {
            let mut best = (-ALONE, (self.graph.n_columns + row) as u32);
            for &(column, weight) in self.graph.of(row) {
                if weight > best.0 {
                    best = (weight, column);
                }
            }
            self.u[row] = best.0;
            if self.row_of[best.1 as usize] == NONE {
                self.join(row, best.1);
            } else {
                free.push(row);
            }
        }
        free
    }

    /// Each free row takes its best column at a price that makes its second best as good. Rows without a column afterwards.
    fn outbid(&mut self, free: &[usize]) -> Vec<usize> {
        let mut left = vec![];
        for &row in free {
            // Every row has its pair of staying alone, so a best and, for rows of candidates, a second best.
            let (mut first, mut second) = ((i128::MIN, NONE), (i128::MIN, NONE));
            for (column, weight) in self.edges(row) {
                let value = weight - self.v[column as usize];
                if value > first.0 {
                    (second, first) = (first, (value, column));
                } else if value > second.0 {
                    second = (value, column);
                }
            }
            let is_free = |column: u32| column != NONE && self.row_of[column as usize] == NONE;
            self.u[row] = if second.1 == NONE { first.0 } else { second.0 };
            if is_free(first.1) {
                self.u[row] = first.0;
                self.join(row, first.1);
            } else if first.0 > self.u[row] {
                self.v[first.1 as usize] += first.0 - second.0;
                let loser = self.row_of[first.1 as usize] as usize;
                self.column_of[loser] = NONE;
                self.join(row, first.1);
                left.push(loser);
            } else if is_free(second.1) {
                self.join(row, second.1);
            } else {
                // Equal offers: a war of bids would end nowhere.
                left.push(row);
            }
        }
        left
    }

    /// Gives a free row a column along the path of least loss.
    fn augment(&mut self, start: usize, search: &mut Search) {
        let (mut row, mut base) = (start, 0i128);
        // The nearest free column so far: what is no nearer is of no interest.
        let mut end = (i128::MAX, NONE);
        loop {
            for (column, weight) in self.edges(row) {
                let c = column as usize;
                let distance = base + (self.u[row] + self.v[c] - weight);
                if distance >= end.0 || distance >= search.distance[c] {
                    continue;
                }
                if search.distance[c] == i128::MAX {
                    search.met.push(column);
                }
                (search.distance[c], search.before[c]) = (distance, row as u32);
                match self.row_of[c] {
                    NONE => end = (distance, column),
                    _ => search.open.push(Reverse((distance, column))),
                }
            }
            let next = loop {
                match search.open.pop() {
                    Some(Reverse((distance, column))) if distance < end.0 => {
                        // A column may have been met again, nearer.
                        if distance == search.distance[column as usize] {
                            break Some((distance, column));
                        }
                    }
                    _ => break None,
                }
            };
            let Some((distance, column)) = next else { break };
            search.done.push(column);
            (row, base) = (self.row_of[column as usize] as usize, distance);
        }
        // A row can always stay alone, so there is an end.
        self.u[start] -= end.0;
        for column in search.done.drain(..) {
            let gain = end.0 - search.distance[column as usize];
            self.v[column as usize] += gain;
            self.u[self.row_of[column as usize] as usize] -= gain;
        }
        let mut column = end.1;
        loop {
            let row = search.before[column as usize] as usize;
            let previous = self.column_of[row];
            self.join(row, column);
            if row == start {
                break;
            }
            column = previous;
        }
        search.met.drain(..).for_each(|column| search.distance[column as usize] = i128::MAX);
        search.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Draws, Stream};
    use pathfinding::matrix::Matrix;
    use pathfinding::prelude::kuhn_munkres;

    /// Whole weights, candidates by size rounded to f64.
    struct Plain {
        rows: usize,
        columns: usize,
        /// Of matched pairs of a tie: (1 - i/n)(1 - j/m) in units of 2^-60 or so.
        ties: bool,
        numbers: Vec<f64>,
    }

    impl Plain {
        fn tie(&self, row: usize, column: usize) -> f64 {
            let early = (1.0 - row as f64 / self.rows as f64) * (1.0 - column as f64 / self.columns as f64);
            if self.ties { 1e-9 * early } else { 0.0 }
        }
        fn total(&self, column_of: &[usize]) -> i128 {
            let weight =
                |(row, &column): (usize, &usize)| self.weight(row, column, self.numbers[row * self.columns + column]);
            column_of.iter().enumerate().map(weight).sum()
        }
    }

    impl Table for Plain {
        fn dim(&self) -> (usize, usize) {
            (self.rows, self.columns)
        }
        fn rows(&self, rows: &[usize]) -> Vec<f64> {
            rows.iter().flat_map(|row| &self.numbers[row * self.columns..][..self.columns]).copied().collect()
        }
        fn weight(&self, row: usize, column: usize, number: f64) -> i128 {
            let whole = |x: f64| (x * (1u128 << 80) as f64) as i128;
            whole(number) + whole(self.tie(row, column))
        }
        fn size(&self, row: usize, column: usize, number: f64) -> f64 {
            number + self.tie(row, column)
        }
        fn weight_above(&self, size: f64) -> i128 {
            ((size + 1e-14) * (1u128 << 80) as f64) as i128
        }
    }

    /// Kinds of tables: anything, few different numbers, rows alike, many zeros, a strong diagonal, one column that all want.
    fn table(kind: usize, rows: usize, columns: usize, ties: bool, draws: &mut Draws) -> Plain {
        let pattern: Vec<f64> = (0..columns).map(|_| draws.uniform()).collect();
        let mut number = |row: usize, column: usize| match kind {
            0 => draws.uniform(),
            1 => draws.below(3) as f64 / 4.0,
            2 if !row.is_multiple_of(3) => pattern[column],
            3 => {
                if draws.uniform() < 0.8 || row.is_multiple_of(4) {
                    0.0
                } else {
                    draws.uniform()
                }
            }
            4 => {
                if row * columns / rows == column {
                    0.9
                } else {
                    0.2 * draws.uniform()
                }
            }
            5 => {
                if column == columns / 2 {
                    1.0
                } else {
                    0.5 + 1e-3 * draws.uniform()
                }
            }
            _ => draws.uniform(),
        };
        let numbers = (0..rows * columns).map(|k| number(k / columns, k % columns)).collect();
        Plain { rows, columns, ties, numbers }
    }

    const KINDS: usize = 6;

    fn reference(table: &Plain) -> Vec<usize> {
        let number = |(row, column)| table.weight(row, column, table.numbers[row * table.columns + column]);
        kuhn_munkres(&Matrix::from_fn(table.rows, table.columns, number)).1
    }

    fn best_of_all(table: &Plain, row: usize, used: &mut [bool]) -> i128 {
        if row == table.rows {
            return 0;
        }
        let mut best = i128::MIN;
        for column in 0..table.columns {
            if !used[column] {
                used[column] = true;
                let weight = table.weight(row, column, table.numbers[row * table.columns + column]);
                best = best.max(weight + best_of_all(table, row + 1, used));
                used[column] = false;
            }
        }
        best
    }

    fn assert_one_to_one(column_of: &[usize], columns: usize) {
        let mut taken = vec![false; columns];
        for &column in column_of {
            assert!(!std::mem::replace(&mut taken[column], true), "column {column} twice");
        }
    }

    #[test]
    fn small_tables_get_the_best_of_all_assignments() {
        let mut draws = Draws::new(21, Stream::Baseline, 0);
        for kind in 0..KINDS {
            for (rows, columns) in [(1, 1), (1, 5), (2, 2), (3, 3), (3, 7), (5, 5), (4, 6), (6, 6)] {
                for ties in [false, true] {
                    let table = table(kind, rows, columns, ties, &mut draws);
                    let found = assign(&table);
                    assert_one_to_one(&found, columns);
                    let best = best_of_all(&table, 0, &mut vec![false; columns]);
                    assert_eq!(table.total(&found), best, "kind {kind}, {rows} x {columns}, ties {ties}");
                }
            }
        }
    }

    /// The general solver in whole numbers is exact; with ties broken there is one best assignment.
    #[test]
    fn middle_sizes_get_the_assignment_of_the_general_solver() {
        let mut draws = Draws::new(22, Stream::Baseline, 0);
        for kind in 0..KINDS {
            for (rows, columns) in [(30, 30), (40, 90), (120, 120), (100, 300)] {
                let table = table(kind, rows, columns, true, &mut draws);
                assert_eq!(assign(&table), reference(&table), "kind {kind}, {rows} x {columns}");
            }
        }
    }

    /// The same with few candidates to start from, so that prices have to be checked and rows widened.
    #[test]
    fn starting_from_few_candidates_ends_at_the_same_assignment() {
        let mut draws = Draws::new(23, Stream::Baseline, 0);
        for kind in 0..KINDS {
            for (rows, columns) in [(1, 5), (30, 30), (40, 90), (120, 120)] {
                for first in [1, 2, 7] {
                    let table = table(kind, rows, columns, true, &mut draws);
                    let expected = assign(&table);
                    assert_eq!(assign_from(&table, first), expected, "kind {kind}, {rows} x {columns} from {first}");
                }
            }
        }
    }

    /// Above the size that is solved whole: one best assignment is known by construction, the diagonal of a table whose other
    /// numbers are less, or for equal rows the order of columns.
    #[test]
    fn a_table_too_large_to_solve_whole_is_solved_exactly() {
        let mut draws = Draws::new(24, Stream::Baseline, 0);
        let (rows, columns) = (700, 1600);
        let place: Vec<usize> = (0..rows).map(|row| (row * 907 + 5) % columns).collect();
        let mut numbers: Vec<f64> = (0..rows * columns).map(|_| 0.4 * draws.uniform()).collect();
        place
            .iter()
            .enumerate()
            .for_each(|(row, &column)| numbers[row * columns + column] = 0.5 + 0.4 * draws.uniform());
        let table = Plain { rows, columns, ties: true, numbers };
        assert_eq!(assign(&table), place);
        // 60 rows of zeros and the rest as before: those take the lowest columns left over, in order.
        let mut numbers = table.numbers;
        (0..60).for_each(|row| numbers[row * columns..][..columns].fill(0.0));
        let table = Plain { numbers, rows, columns, ties: true };
        let found = assign(&table);
        let mut left = vec![true; columns];
        place[60..].iter().for_each(|&column| left[column] = false);
        let lowest: Vec<usize> = (0..columns).filter(|&column| left[column]).take(60).collect();
        assert_eq!((&found[..60], &found[60..]), (&lowest[..], &place[60..]));
    }
}
