//! Which chunks are computed together.

use crate::backend::Appetite;
use crate::plan::Plan;

/// A chunk's number and the plan indices of its cells that have to be computed.
pub type Todo = (usize, Vec<usize>);

/// How many of the chunks to come are computed together: large models make chunks of one stem, which alone would keep one
/// thread busy, and tiny models that could share their batches may stand in different chunks. So a wave goes on until it has
/// work for every thread and enough in all, or until what it holds in memory is too much.
///
/// A wave is no longer than that, because all of it is trained before any of it is scored and published.
pub fn wave(plan: &Plan, todo: &[Todo], appetite: Appetite) -> usize {
    let (mut stems, mut work, mut longest, mut held) = (0, 0.0, 0.0_f64, 0.0);
    for (at, (_, cells)) in todo.iter().enumerate() {
        for together in cells.chunk_by(|a, b| plan.same_stem(*a, *b)) {
            let (stem, own) = plan.work(together[0]);
            work += stem + own * together.len() as f64;
            // A model is trained by one thread, from its toy model to its scores.
            longest = longest.max(stem + own);
            held += plan.held(together[0]) * together.len() as f64;
            stems += 1;
        }
        let busy = stems >= appetite.models || work >= appetite.models as f64 * longest;
        if busy && work >= appetite.work || held >= appetite.bytes {
            return at + 1;
        }
    }
    todo.len()
}

/// Model-steps of the cells to compute, for the progress bar.
pub fn steps_of(plan: &Plan, todo: &[Todo]) -> u64 {
    todo.iter().map(|(_, cells)| steps(plan, cells)).sum()
}

/// Model-steps of some cells, in the order of the plan.
pub fn steps(plan: &Plan, cells: &[usize]) -> u64 {
    let mut steps = 0;
    for (n, index) in cells.iter().enumerate() {
        let [_, toy, _, method] = plan.facts(plan.cells[*index]);
        let new_stem = n == 0 || !plan.same_stem(cells[n - 1], *index);
        steps += method.steps + if new_stem { toy.steps } else { 0 };
    }
    steps
}

/// Where in `len` chunks a writer begins if there are others: two of them are not to compute the same chunks in the same order.
pub fn turn(writer: &str, len: usize) -> usize {
    let hash = blake3::hash(writer.as_bytes());
    let number = hash.as_bytes().iter().take(8).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    if len == 0 { 0 } else { (number % len as u64) as usize }
}
