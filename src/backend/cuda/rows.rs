//! Rows of matrices as they lie on a device: whole quads of floats, so that 16-byte loads never cross a row.

/// Floats of a row of width `d`: the next multiple of 4, what is past `d` is 0.
pub fn pitch(d: usize) -> usize {
    d.next_multiple_of(4)
}

/// Rows of `d` numbers as rows of whole quads.
pub fn padded(rows: &[f32], d: usize) -> Vec<f32> {
    let pitch = pitch(d);
    if pitch == d {
        return rows.to_vec();
    }
    let mut to = vec![0.0; rows.len() / d.max(1) * pitch];
    for (to, row) in to.chunks_exact_mut(pitch).zip(rows.chunks_exact(d)) {
        to[..d].copy_from_slice(row);
    }
    to
}

/// What [`padded`] was made of.
pub fn unpadded(rows: &[f32], d: usize) -> Vec<f32> {
    rows.chunks_exact(pitch(d).max(1)).flat_map(|row| &row[..d]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_padded_to_whole_quads_and_back() {
        for d in [1, 3, 4, 5, 8] {
            let rows: Vec<f32> = (0..3 * d).map(|x| x as f32 + 1.0).collect();
            let wide = padded(&rows, d);
            assert_eq!(wide.len(), 3 * pitch(d));
            assert!(wide.chunks(pitch(d)).all(|row| row[d..].iter().all(|&x| x == 0.0)));
            assert_eq!(unpadded(&wide, d), rows);
        }
        assert_eq!(padded(&[], 3), [0.0f32; 0]);
    }
}
