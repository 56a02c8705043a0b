//! Activations of features or latents, by sample and by column, with what several scores need of them.

use std::sync::OnceLock;

use ndarray::ArrayView2;

use super::correlation::Moments;
use super::firings::Firings;
use super::vector::Real;
use crate::codes::{Codes, Columns};

/// True activations or latents, `[samples, features or latents]`.
#[derive(Clone, Copy)]
pub enum Activations<'a, T> {
    /// With all zeros; entries that are not 0 are copied.
    Dense(ArrayView2<'a, T>),
    /// By what is not 0.
    Sparse(&'a Codes<T>),
    /// With what has been worked out of them before: for samples that several dictionaries are scored on.
    Prepared(&'a Activity<'a, T>),
}

impl<T: Real> Activations<'_, T> {
    /// (samples, columns)
    pub fn dim(&self) -> (usize, usize) {
        match self {
            Activations::Dense(view) => view.dim(),
            Activations::Sparse(codes) => (codes.n_rows(), codes.n_columns()),
            Activations::Prepared(activity) => (activity.samples(), activity.n()),
        }
    }
}

impl<'a, T> From<ArrayView2<'a, T>> for Activations<'a, T> {
    fn from(view: ArrayView2<'a, T>) -> Self {
        Activations::Dense(view)
    }
}

impl<'a, T> From<&'a Codes<T>> for Activations<'a, T> {
    fn from(codes: &'a Codes<T>) -> Self {
        Activations::Sparse(codes)
    }
}

/// Which entries are firings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// x > 0
    Features,
    /// z ≠ 0
    Latents,
}

impl Side {
    /// Whether an entry that is not 0 is a firing.
    pub fn fires<T: Real>(self, value: T) -> bool {
        self == Side::Latents || value > T::default()
    }
}

/// Codes of one's own, or kept elsewhere.
enum Source<'a, T> {
    Own(Codes<T>),
    Lent(&'a Codes<T>),
}

/// Activations with their transpose, firings and moments, each worked out when it is first asked for.
///
/// Memory: an entry takes 8 bytes here, 8 in the transpose and 4 as a firing (f32).
pub struct Activity<'a, T> {
    codes: Source<'a, T>,
    side: Side,
    columns: OnceLock<Columns<T>>,
    firings: OnceLock<Firings>,
    moments: OnceLock<Moments>,
}

impl<'a, T: Real> Activity<'a, T> {
    /// Of these activations.
    pub fn new(codes: Codes<T>, side: Side) -> Activity<'a, T> {
        Activity::from(Source::Own(codes), side)
    }

    /// Of activations that are kept elsewhere.
    pub fn of(codes: &'a Codes<T>, side: Side) -> Activity<'a, T> {
        Activity::from(Source::Lent(codes), side)
    }

    fn from(codes: Source<'a, T>, side: Side) -> Activity<'a, T> {
        Activity { codes, side, columns: OnceLock::new(), firings: OnceLock::new(), moments: OnceLock::new() }
    }

    /// Samples.
    pub fn samples(&self) -> usize {
        self.codes().n_rows()
    }

    /// Features or latents.
    pub fn n(&self) -> usize {
        self.codes().n_columns()
    }

    /// Sample by sample.
    pub fn codes(&self) -> &Codes<T> {
        match &self.codes {
            Source::Own(codes) => codes,
            Source::Lent(codes) => codes,
        }
    }

    /// Which entries are firings.
    pub fn side(&self) -> Side {
        self.side
    }

    /// Feature by feature, or latent by latent.
    pub fn columns(&self) -> &Columns<T> {
        self.columns.get_or_init(|| self.codes().by_column())
    }

    /// Who fires when.
    pub fn firings(&self) -> &Firings {
        self.firings.get_or_init(|| Firings::new(self.samples(), self.columns(), |value| self.side.fires(value)))
    }

    /// Mean and spread of each column.
    pub fn moments(&self) -> &Moments {
        self.moments.get_or_init(|| Moments::new(self.samples(), self.columns()))
    }
}

/// Activity that is lent, or made for one use.
pub enum Held<'a, T> {
    /// Worked out for several dictionaries.
    Lent(&'a Activity<'a, T>),
    /// For this one.
    Own(Box<Activity<'a, T>>),
}

impl<'a, T: Real> Held<'a, T> {
    pub fn new(activations: Activations<'a, T>, side: Side) -> Held<'a, T> {
        match activations {
            Activations::Prepared(activity) => Held::Lent(activity),
            Activations::Dense(view) => Held::Own(Box::new(Activity::new(Codes::of_dense(view), side))),
            Activations::Sparse(codes) => Held::Own(Box::new(Activity::of(codes, side))),
        }
    }

    pub fn get(&self) -> &Activity<'a, T> {
        match self {
            Held::Lent(activity) => activity,
            Held::Own(activity) => activity,
        }
    }
}
