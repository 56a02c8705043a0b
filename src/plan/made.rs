//! Dictionaries that take seconds to make, made once for all cells of a run that share them.
//!
//! A large orthogonalised dictionary takes longer than the training of many small models on it, and cells that differ in
//! their law of x, or stand in different waves of a run, ask for it again. What is kept is bounded in bytes; the one that
//! was asked for longest ago goes first. A dictionary is a pure function of its key, so nothing depends on what is kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::data::{Dictionary, Orthogonalise};

/// Bytes of directions that are kept: five dictionaries of 16384 features in 768 dimensions.
const KEPT_AT_MOST: usize = 256 << 20;

/// n_features, d_hidden, steps, bits of lr, seed.
type Key = (usize, usize, usize, u64, u64);

/// Latest first.
static KEPT: Mutex<VecDeque<(Key, Arc<Dictionary>)>> = Mutex::new(VecDeque::new());

/// [`Dictionary::orthogonalised`], from memory where it was made before.
pub fn orthogonalised(n_features: usize, d_hidden: usize, settings: &Orthogonalise, seed: u64) -> Dictionary {
    let key = (n_features, d_hidden, settings.steps, settings.lr.to_bits(), seed);
    // No lock is held while one is made: that runs on the threads of the pool, any of which may come back here.
    let found = kept(key).unwrap_or_else(|| {
        let made = Arc::new(Dictionary::orthogonalised(n_features, d_hidden, settings, seed));
        keep(key, made.clone());
        made
    });
    Dictionary::clone(&found)
}

fn kept(key: Key) -> Option<Arc<Dictionary>> {
    let mut all = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    let at = all.iter().position(|(k, _)| *k == key)?;
    let entry = all.remove(at)?;
    let found = entry.1.clone();
    all.push_front(entry);
    Some(found)
}

fn keep(key: Key, made: Arc<Dictionary>) {
    let mut all = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|(k, _)| *k != key);
    all.push_front((key, made));
    let mut bytes = 0;
    all.retain(|(_, dictionary)| {
        bytes += size_of_val(&dictionary.vectors[..]);
        bytes <= KEPT_AT_MOST
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_is_made_once_and_is_the_one_its_key_names() {
        let settings = Orthogonalise { steps: 3, lr: 0.01 };
        let key = |seed| (7, 5, 3, 0.01f64.to_bits(), seed);
        assert!(kept(key(901)).is_none());
        let first = orthogonalised(7, 5, &settings, 901);
        assert_eq!(first, Dictionary::orthogonalised(7, 5, &settings, 901));
        let held = kept(key(901)).expect("kept");
        assert_eq!(*held, first);
        assert_eq!(orthogonalised(7, 5, &settings, 901), first);
        assert!(Arc::ptr_eq(&held, &kept(key(901)).expect("still the same")));
        assert_ne!(orthogonalised(7, 5, &settings, 902), first);
    }
}
