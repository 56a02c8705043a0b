//! Fixed pieces of a step, over threads or one after the other.
//!
//! Every piece writes its own memory and no sum crosses pieces but in their order, so who works on which piece when is no
//! part of the numbers.

use std::sync::Mutex;

use rayon::prelude::*;

use crate::backend::ops::rows::BLOCK;

/// Multiplications in a step's dense product from which its pieces are shared with idle threads; below, handing them over
/// takes longer than the work.
const SHARED_FROM: usize = 1 << 25;

/// Whether the pieces of a step of `samples` samples, `n_latents` latents and width `d` go to threads.
pub fn shared(samples: usize, n_latents: usize, d: usize) -> bool {
    samples * n_latents * d >= SHARED_FROM
}

/// Calls `f` on every piece.
pub fn each<T: Send>(shared: bool, pieces: impl Iterator<Item = T>, f: impl Fn(T) + Sync + Send) {
    if shared {
        let pieces: Vec<T> = pieces.collect();
        pieces.into_par_iter().with_max_len(1).for_each(f);
    } else {
        pieces.for_each(f);
    }
}

/// Latents of a piece: whole blocks, and enough of them that a piece uses each row of G and h more than once, yet pieces
/// enough that threads end together.
pub fn latents_of_piece(n_latents: usize) -> usize {
    (n_latents / 16).next_multiple_of(BLOCK).max(BLOCK)
}

/// Pieces of `size` of `memory`, then empty ones without end.
pub fn pieces<T>(memory: &mut [T], size: usize) -> impl Iterator<Item = &mut [T]> {
    let mut pieces = memory.chunks_mut(size.max(1));
    std::iter::repeat_with(move || pieces.next().unwrap_or_default())
}

/// Memory for as many workers as there are at once, kept from use to use.
#[derive(Debug, Default)]
pub struct Pool<T>(Mutex<Vec<T>>);

impl<T: Default> Pool<T> {
    /// Lends one to `f`.
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        let kept = self.0.lock().expect("no thread panics while it holds this").pop();
        let mut one = kept.unwrap_or_default();
        let result = f(&mut one);
        self.0.lock().expect("no thread panics while it holds this").push(one);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_visited_once_shared_or_not() {
        for shared in [false, true] {
            for (len, size) in [(0, 3), (1, 3), (6, 3), (7, 3)] {
                let mut memory = vec![0; len];
                each(shared, memory.chunks_mut(size).enumerate(), |(at, piece)| {
                    piece.iter_mut().for_each(|x| *x += at + 1);
                });
                assert!(memory.iter().enumerate().all(|(i, &x)| x == i / size + 1), "{memory:?}");
            }
        }
    }

    #[test]
    fn pieces_go_on_empty_and_a_pool_lends_what_came_back() {
        let mut memory = [1, 2, 3];
        let lengths: Vec<usize> = pieces(&mut memory, 2).take(4).map(|piece| piece.len()).collect();
        assert_eq!(lengths, [2, 1, 0, 0]);
        let pool = Pool::<Vec<u8>>::default();
        pool.with(|memory| memory.push(7));
        pool.with(|memory| {
            assert_eq!(memory, &[7]);
            pool.with(|other| assert!(other.is_empty()));
        });
    }

    #[test]
    fn pieces_of_latents_are_whole_blocks() {
        for m in [1, 63, 64, 1000, 4096, 5000] {
            assert!(latents_of_piece(m).is_multiple_of(BLOCK) && latents_of_piece(m) >= BLOCK);
        }
        assert_eq!(latents_of_piece(4096), 256);
    }
}
