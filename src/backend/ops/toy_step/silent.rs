//! Samples with x = 0, all at once.
//!
//! ```text
//! h = 0    z = b    r = out(b)    so for `count` of them    db += count c out(b) out'(b)    loss += count c out(b)² / 2
//! ```
//!
//! dW is zero. For the ReLU out(b) out'(b) = max(b, 0) and for the identity it is b.

use super::ToyStep;
use crate::toy::ToyKind;

/// Adds `count` silent samples to a folded gradient: db_j = fma(f32(count) c_j, y_j, db_j) with y = b where b > 0 (else 0)
/// for the ReLU and y = b for the identity; nothing at all if `count` is 0. Returns what they add to the loss, summed in f64
/// in order of features.
///
/// Every form that leaves silent samples out ends with this, once, after the sums over lanes.
#[inline(always)]
pub(super) fn add_silent(step: &ToyStep, count: usize, to: &mut [f32]) -> f64 {
    if count == 0 {
        return 0.0;
    }
    let n = step.shape.n_features;
    let from = step.parameters.len() - n;
    let (b, db) = (&step.parameters[from..], &mut to[from..]);
    let mut sum = 0.0;
    for ((db, &b), &c) in db.iter_mut().zip(b).zip(step.slopes) {
        let y = if step.shape.kind == ToyKind::Linear || b > 0.0 { b } else { 0.0 };
        *db = (count as f32 * c).mul_add(y, *db);
        sum += c as f64 * y as f64 * y as f64;
    }
    0.5 * count as f64 * sum
}
