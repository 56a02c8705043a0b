//! The two-layer models as plain loops over any numbers: f64 for the reference, and in tests f64 with a bound on what f32
//! may be off by, carried through every operation.

use super::Shape;
use crate::backend::ops::activation;
use crate::data::Batch;
use crate::toy::embedding::embedding;
use crate::toy::{Activation, Mlp, ToyKind};

/// What the loops are written in.
pub trait Number: Copy {
    /// A number that both sides have exactly.
    fn exact(value: f64) -> Self;
    /// start + Σ a b, in whatever order.
    fn dot(start: Self, pairs: impl Iterator<Item = (Self, Self)>) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// Without its sign, which is exact.
    fn magnitude(self) -> Self;
    /// Its activation and the derivative of that.
    fn activate(self, activation: Activation) -> (Self, Self);
}

impl Number for f64 {
    fn exact(value: f64) -> f64 {
        value
    }
    fn dot(start: f64, pairs: impl Iterator<Item = (f64, f64)>) -> f64 {
        pairs.fold(start, |sum, (a, b)| sum + a * b)
    }
    fn sub(self, other: f64) -> f64 {
        self - other
    }
    fn mul(self, other: f64) -> f64 {
        self * other
    }
    fn magnitude(self) -> f64 {
        self.abs()
    }
    fn activate(self, activation: Activation) -> (f64, f64) {
        activation::reference(activation, self)
    }
}

/// Rows of numbers.
type Rows<T> = Vec<Vec<T>>;

/// Gradient of the parameters, in their order, and the loss. Not for `linear` and `relu_output`.
pub fn gradient<T: Number>(shape: Shape, parameters: &[f64], slopes: &[f64], batch: &Batch) -> (Vec<T>, T) {
    let x: Rows<T> = (0..batch.samples)
        .map(|s| (0..shape.n_features).map(|i| T::exact(batch.value(s, i) as f64)).collect())
        .collect();
    if x.is_empty() {
        return (vec![T::exact(0.0); shape.n_parameters()], T::exact(0.0));
    }
    match shape.kind {
        ToyKind::Quadratic => quadratic(shape, parameters, slopes, &x),
        _ => layers(shape, parameters, slopes, &x),
    }
}

fn exact<T: Number>(values: &[f64]) -> Vec<T> {
    values.iter().map(|v| T::exact(*v)).collect()
}

/// rows · matrixᵀ with `matrix` `[width, n]` given as its columns `[n, width]`, from `start`.
fn products<T: Number>(rows: &Rows<T>, columns: &[T], width: usize, start: impl Fn(usize) -> T) -> Rows<T> {
    let product = |row: &Vec<T>, k: usize| {
        T::dot(start(k), row.iter().copied().zip(columns.iter().skip(k).step_by(width).copied()))
    };
    rows.iter().map(|row| (0..width).map(|k| product(row, k)).collect()).collect()
}

/// Σ over samples of a_j b_k, `[rows, columns]`.
fn gathered<T: Number>(a: &Rows<T>, b: &Rows<T>, also: Option<(&Rows<T>, &Rows<T>)>) -> Vec<T> {
    let zero = T::exact(0.0);
    let mut out = vec![];
    for j in 0..a[0].len() {
        for k in 0..b[0].len() {
            let first = a.iter().zip(b).map(|(a, b)| (a[j], b[k]));
            let second = also.into_iter().flat_map(|(a, b)| a.iter().zip(b)).map(|(a, b)| (a[j], b[k]));
            out.push(T::dot(zero, first.chain(second)));
        }
    }
    out
}

fn column_sums<T: Number>(rows: &Rows<T>) -> Vec<T> {
    let one = T::exact(1.0);
    (0..rows[0].len()).map(|k| T::dot(T::exact(0.0), rows.iter().map(|row| (row[k], one)))).collect()
}

fn layers<T: Number>(shape: Shape, parameters: &[f64], slopes: &[f64], x: &Rows<T>) -> (Vec<T>, T) {
    let Shape { kind, n_features: n, d_hidden: m } = shape;
    let zero = T::exact(0.0);
    let [w_len, c_len, v_len, _] = shape.parts().map(|(_, length)| length);
    let (w, rest) = parameters.split_at(w_len);
    let (c, rest) = rest.split_at(c_len);
    let (v, b) = rest.split_at(v_len);
    let tied = v.is_empty();
    let (w, v, b): (Vec<T>, Vec<T>, Vec<T>) = (exact(w), exact(if tied { w } else { v }), exact(b));
    let c: Vec<T> = exact(c);
    let u = match kind {
        ToyKind::Mlp(Mlp { d_embedding, seed, .. }) => {
            let e: Vec<T> = embedding(n, d_embedding, seed).iter().map(|e| T::exact(*e as f64)).collect();
            products(x, &e, d_embedding, |_| zero)
        }
        _ => x.clone(),
    };
    let pre = products(&u, &w, m, |k| c.get(k).copied().unwrap_or(zero));
    let act = |row: &Vec<T>| row.iter().map(|z| z.activate(kind.activation())).unzip();
    let (h, s): (Rows<T>, Rows<T>) = pre.iter().map(act).unzip();
    let output = if kind.relu_output() { Activation::Relu } else { Activation::Identity };
    let (mut g, mut losses) = (vec![], vec![]);
    for (x, h) in x.iter().zip(&h) {
        let mut row = vec![];
        for j in 0..n {
            let weights = v[j * m..(j + 1) * m].iter().copied();
            let z = T::dot(b.get(j).copied().unwrap_or(zero), weights.zip(h.iter().copied()));
            let (out, derivative) = z.activate(output);
            let target = if kind == ToyKind::AbsoluteValue { x[j].magnitude() } else { x[j] };
            let r = out.sub(target);
            let slope = T::exact(slopes[j]).mul(r);
            losses.push((slope, r));
            row.push(slope.mul(derivative));
        }
        g.push(row);
    }
    let dh = products(&g, &v, m, |_| zero);
    let through = |(s, dh): (&Vec<T>, &Vec<T>)| s.iter().zip(dh).map(|(s, dh)| s.mul(*dh)).collect();
    let dpre: Rows<T> = s.iter().zip(&dh).map(through).collect();
    let mut gradient = if tied { gathered(&g, &h, Some((&u, &dpre))) } else { gathered(&u, &dpre, None) };
    if c_len > 0 {
        gradient.extend(column_sums(&dpre));
    }
    if !tied {
        gradient.extend(gathered(&g, &h, None));
    }
    if !b.is_empty() {
        gradient.extend(column_sums(&g));
    }
    (gradient, half(T::dot(zero, losses.into_iter())))
}

fn quadratic<T: Number>(shape: Shape, parameters: &[f64], slopes: &[f64], x: &Rows<T>) -> (Vec<T>, T) {
    let (n, m, zero) = (shape.n_features, shape.d_hidden, T::exact(0.0));
    let (w, b): (Vec<T>, T) = (exact(&parameters[..n * m]), T::exact(parameters[n * m]));
    let h = products(x, &w, m, |_| zero);
    let (mut dh, mut g, mut losses) = (vec![], vec![], vec![]);
    for (x, h) in x.iter().zip(&h) {
        let out = T::dot(b, h.iter().map(|h| (*h, *h)));
        let target = T::dot(zero, x.iter().zip(slopes).map(|(x, i)| (T::exact(*i).mul(*x), *x)));
        let r = out.sub(target);
        let one = T::exact(slopes[n]).mul(r);
        losses.push((one, r));
        let twice = T::exact(2.0).mul(one);
        dh.push(h.iter().map(|h| twice.mul(*h)).collect::<Vec<T>>());
        g.push(vec![one]);
    }
    let mut gradient = gathered(x, &dh, None);
    gradient.extend(column_sums(&g));
    (gradient, half(T::dot(zero, losses.into_iter())))
}

fn half<T: Number>(value: T) -> T {
    T::exact(0.5).mul(value)
}

/// A number in f64 and what f32 may be off from it by.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub struct Bounded {
    pub value: f64,
    pub error: f64,
}

#[cfg(test)]
impl Bounded {
    const U: f64 = 1.0 / 16_777_216.0;

    fn size(self) -> f64 {
        self.value.abs() + self.error
    }
}

/// Standard model of rounding (Higham 2002, section 3.1): an operation is off by u times the size of its result on top of
/// what its operands bring; a sum of q products in any order by q u / (1 - q u) times the sum of their sizes, one more for
/// the products where they are not fused, four for the folds of lanes. The loss is partly summed in f64, which is less.
#[cfg(test)]
impl Number for Bounded {
    fn exact(value: f64) -> Bounded {
        Bounded { value, error: 0.0 }
    }
    fn dot(start: Bounded, pairs: impl Iterator<Item = (Bounded, Bounded)>) -> Bounded {
        let (mut value, mut error, mut size, mut count) = (start.value, start.error, start.size(), 0);
        for (a, b) in pairs {
            value += a.value * b.value;
            error += a.size() * b.error + a.error * b.size();
            size += a.size() * b.size();
            count += 1;
        }
        let q = (count + 6) as f64 * Bounded::U;
        Bounded { value, error: error + q / (1.0 - q) * size }
    }
    fn sub(self, other: Bounded) -> Bounded {
        let (value, error) = (self.value - other.value, self.error + other.error);
        Bounded { value, error: error + Bounded::U * (value.abs() + error) }
    }
    fn mul(self, other: Bounded) -> Bounded {
        let (value, error) = (self.value * other.value, self.size() * other.error + self.error * other.size());
        Bounded { value, error: error + Bounded::U * (value.abs() + error) }
    }
    fn magnitude(self) -> Bounded {
        Bounded { value: self.value.abs(), ..self }
    }
    /// GELU's derivative is at most 1.13 in size and that one's derivative 0.8.
    fn activate(self, activation: Activation) -> (Bounded, Bounded) {
        let (value, slope) = activation::reference(activation, self.value);
        let (error, slope_error) = match activation {
            Activation::Identity => (self.error, 0.0),
            // Within its error of 0 it may fall on either side.
            Activation::Relu => (self.error, if self.value.abs() <= self.error { 1.0 } else { 0.0 }),
            Activation::Gelu => {
                let own = activation::GELU_ERROR;
                (1.13 * self.error + own * self.size().max(1e-3), 0.8 * self.error + 2.0 * own)
            }
        };
        (Bounded { value, error }, Bounded { value: slope, error: slope_error })
    }
}
