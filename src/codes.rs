//! Rows that are mostly zero: samples with the features or latents that are active in them.

use ndarray::{Array2, ArrayView2};

/// A matrix `[n_rows, n_columns]` by its entries that are not 0, row after row, columns ascending.
///
/// Memory: a column number (4 bytes) and a value an entry, 8 bytes a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Codes<T> {
    n_columns: usize,
    /// Where each row starts, and the end: `[n_rows + 1]`.
    starts: Vec<usize>,
    columns: Vec<u32>,
    values: Vec<T>,
}

impl<T: Copy + Default + PartialEq> Codes<T> {
    /// No rows of this width.
    ///
    /// # Panics
    /// If columns cannot be counted in 32 bits.
    pub fn new(n_columns: usize) -> Codes<T> {
        assert!(u32::try_from(n_columns).is_ok(), "columns are counted in 32 bits");
        Codes { n_columns, starts: vec![0], columns: vec![], values: vec![] }
    }

    /// The entries of a dense matrix that are not 0.
    pub fn of_dense(dense: ArrayView2<'_, T>) -> Codes<T> {
        let mut codes = Codes::new(dense.ncols());
        for row in dense.rows() {
            codes.push_row(row.iter().copied().enumerate());
        }
        codes
    }

    /// Adds a row of (column, value), columns ascending; values of 0 are passed over.
    pub fn push_row(&mut self, entries: impl IntoIterator<Item = (usize, T)>) {
        for (column, value) in entries {
            if value != T::default() {
                debug_assert!(column < self.n_columns, "no such column");
                self.columns.push(column as u32);
                self.values.push(value);
            }
        }
        self.starts.push(self.columns.len());
    }

    /// Adds the rows of `other`, which is as wide.
    pub fn append(&mut self, other: &Codes<T>) {
        debug_assert_eq!(self.n_columns, other.n_columns);
        let before = self.columns.len();
        self.starts.extend(other.starts[1..].iter().map(|start| before + start));
        self.columns.extend_from_slice(&other.columns);
        self.values.extend_from_slice(&other.values);
    }

    /// The whole matrix, zeros and all.
    pub fn to_dense(&self) -> Array2<T> {
        let mut dense = Array2::default((self.n_rows(), self.n_columns));
        for (s, mut row) in dense.rows_mut().into_iter().enumerate() {
            let (columns, values) = self.row(s);
            columns.iter().zip(values).for_each(|(&column, &value)| row[column as usize] = value);
        }
        dense
    }

    /// Rows.
    pub fn n_rows(&self) -> usize {
        self.starts.len() - 1
    }

    /// Columns.
    pub fn n_columns(&self) -> usize {
        self.n_columns
    }

    /// Entries that are not 0.
    pub fn n_entries(&self) -> usize {
        self.columns.len()
    }

    /// Columns and values of one row.
    #[inline]
    pub fn row(&self, row: usize) -> (&[u32], &[T]) {
        let range = self.starts[row]..self.starts[row + 1];
        (&self.columns[range.clone()], &self.values[range])
    }

    /// (column, value) of one row, columns ascending.
    #[inline]
    pub fn entries(&self, row: usize) -> impl Iterator<Item = (usize, T)> + Clone {
        let (columns, values) = self.row(row);
        columns.iter().zip(values).map(|(&column, &value)| (column as usize, value))
    }

    /// One entry, 0 where there is none.
    pub fn at(&self, row: usize, column: usize) -> T {
        let (columns, values) = self.row(row);
        columns.binary_search(&(column as u32)).map_or(T::default(), |place| values[place])
    }

    /// The same entries column by column.
    ///
    /// # Panics
    /// If rows cannot be counted in 32 bits.
    pub fn by_column(&self) -> Columns<T> {
        assert!(u32::try_from(self.n_rows()).is_ok(), "rows are counted in 32 bits");
        let mut starts = vec![0usize; self.n_columns + 1];
        self.columns.iter().for_each(|&column| starts[column as usize + 1] += 1);
        for column in 0..self.n_columns {
            starts[column + 1] += starts[column];
        }
        let mut next = starts.clone();
        let (mut rows, mut values) = (vec![0u32; self.columns.len()], vec![T::default(); self.columns.len()]);
        for row in 0..self.n_rows() {
            for (column, value) in self.entries(row) {
                let place = next[column];
                (rows[place], values[place]) = (row as u32, value);
                next[column] += 1;
            }
        }
        Columns { starts, rows, values }
    }
}

/// The entries of [`Codes`] column by column, rows ascending.
#[derive(Clone, Debug, PartialEq)]
pub struct Columns<T> {
    /// `[n_columns + 1]`
    starts: Vec<usize>,
    rows: Vec<u32>,
    values: Vec<T>,
}

impl<T: Copy> Columns<T> {
    /// Rows and values of one column.
    #[inline]
    pub fn column(&self, column: usize) -> (&[u32], &[T]) {
        let range = self.starts[column]..self.starts[column + 1];
        (&self.rows[range.clone()], &self.values[range])
    }

    /// (row, value) of one column, rows ascending.
    #[inline]
    pub fn entries(&self, column: usize) -> impl Iterator<Item = (usize, T)> + Clone {
        let (rows, values) = self.column(column);
        rows.iter().zip(values).map(|(&row, &value)| (row as usize, value))
    }

    /// Columns.
    pub fn n_columns(&self) -> usize {
        self.starts.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Axis, array, concatenate, s};

    #[test]
    fn rows_columns_and_the_dense_matrix_hold_the_same_entries() {
        for (rows, columns) in [(0, 3), (1, 1), (5, 0), (7, 4), (40, 9)] {
            let dense = Array2::from_shape_fn((rows, columns), |(s, k)| {
                let v = (s * 7 + k * 5) % 4;
                if v < 2 { 0.0 } else { s as f32 - 3.5 * v as f32 }
            });
            let codes = Codes::of_dense(dense.view());
            assert_eq!((codes.n_rows(), codes.n_columns()), (rows, columns));
            assert_eq!(codes.to_dense(), dense);
            assert_eq!(codes.n_entries(), dense.iter().filter(|v| **v != 0.0).count());
            let by_column = codes.by_column();
            assert_eq!(by_column.n_columns(), columns);
            let mut turned = Array2::zeros((rows, columns));
            for k in 0..columns {
                assert!(by_column.column(k).0.windows(2).all(|pair| pair[0] < pair[1]), "rows ascend");
                by_column.entries(k).for_each(|(s, value)| turned[[s, k]] = value);
            }
            assert_eq!(turned, dense);
            for ((s, k), &value) in dense.indexed_iter() {
                assert_eq!(codes.at(s, k), value);
            }
        }
    }

    #[test]
    fn pieces_put_together_are_the_whole() {
        let dense = array![[0.0, 1.0, 0.0], [2.0, 0.0, -3.0], [0.0, 0.0, 0.0], [4.0, 5.0, 6.0]];
        let mut codes = Codes::of_dense(dense.slice(s![..2, ..]));
        codes.append(&Codes::of_dense(dense.slice(s![2.., ..])));
        assert_eq!(codes, Codes::of_dense(concatenate![Axis(0), dense].view()));
    }
}
