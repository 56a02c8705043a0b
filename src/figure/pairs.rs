//! Which of the things a figure sets side by side cannot be told apart: words for its caption.

use super::caption::Caption;
use super::data::Levels;
use crate::table::bootstrap::{Verdict, by_seed, paired};
use crate::table::short;

/// More places than this are counted, not named.
const MOST_PLACES: usize = 6;

/// The comparisons of a figure.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pairs {
    /// Pairs that cannot be told apart, and where.
    same: Vec<(String, Vec<String>)>,
    /// Comparisons whose interval does not contain 0.
    apart: usize,
    /// Comparisons with fewer than three common seeds.
    unknown: usize,
}

impl Pairs {
    /// Compares every two of the named things, each with numbers of seeds, at a place such as `p = 0.1` (empty where the
    /// figure has but one). Numbers of one seed are averaged first.
    pub fn compare(&mut self, place: &str, things: &[(String, Vec<(u64, f64)>)]) {
        let known = things.iter().filter(|(_, numbers)| !numbers.is_empty());
        let means: Vec<(&str, Vec<(u64, f64)>)> =
            known.map(|(name, numbers)| (&name[..], by_seed(numbers.iter().copied()))).collect();
        for (i, (a, first)) in means.iter().enumerate() {
            for (b, second) in &means[i + 1..] {
                match paired(first, second).verdict() {
                    Verdict::Higher | Verdict::Lower => self.apart += 1,
                    Verdict::TooFewSeeds => self.unknown += 1,
                    Verdict::NotDistinguishable => self.add(format!("{a} and {b}"), place),
                }
            }
        }
    }

    fn add(&mut self, pair: String, place: &str) {
        match self.same.iter_mut().find(|(known, _)| *known == pair) {
            Some((_, places)) => places.push(place.to_owned()),
            None => self.same.push((pair, vec![place.to_owned()])),
        }
    }

    /// Says what came out.
    pub fn caption(&self, caption: &mut Caption) {
        let same: usize = self.same.iter().map(|(_, places)| places.len()).sum();
        if same > 0 {
            let named: Vec<String> = self.same.iter().map(|(pair, places)| with_places(pair, places)).collect();
            caption.say(format!(
                "Not distinguishable (the 95 % interval of the difference over common seeds contains 0): {}",
                named.join("; ")
            ));
        }
        if self.apart > 0 && same == 0 {
            caption.say("Every pair with three common seeds or more is distinguishable: the 95 % interval of its difference leaves out 0");
        }
        if self.unknown > 0 {
            let total = same + self.apart + self.unknown;
            caption.say(format!(
                "{} of {total} comparisons have fewer than three common seeds, too few to tell",
                self.unknown
            ));
        }
    }
}

fn with_places(pair: &str, places: &[String]) -> String {
    let named: Vec<&str> = places.iter().map(String::as_str).filter(|place| !place.is_empty()).collect();
    match named.len() {
        0 => pair.to_owned(),
        n if n > MOST_PLACES => format!("{pair} at {} and {} more", named[..MOST_PLACES].join(", "), n - MOST_PLACES),
        _ => format!("{pair} at {}", named.join(", ")),
    }
}

/// Names of levels for sentences.
pub fn words(levels: &Levels) -> Vec<String> {
    match levels {
        Levels::Names(names) => names.clone(),
        Levels::Numbers(numbers) => numbers.iter().map(|number| short(*number)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeds(numbers: &[f64]) -> Vec<(u64, f64)> {
        numbers.iter().enumerate().map(|(seed, x)| (seed as u64, *x)).collect()
    }

    #[test]
    fn pairs_that_cannot_be_told_apart_are_named_with_their_places() {
        let things = [
            ("topk".to_owned(), seeds(&[0.5, 0.6, 0.7, 0.8])),
            ("relu".to_owned(), seeds(&[0.51, 0.59, 0.71, 0.79])),
            ("gated".to_owned(), seeds(&[0.1, 0.2, 0.3, 0.4])),
            ("none".to_owned(), vec![]),
        ];
        let mut pairs = Pairs::default();
        pairs.compare("p = 0.1", &things);
        pairs.compare("p = 0.2", &things[..2]);
        pairs.compare("p = 0.3", &[("topk".to_owned(), seeds(&[0.5])), ("relu".to_owned(), seeds(&[0.5]))]);
        let mut caption = Caption::default();
        pairs.caption(&mut caption);
        assert_eq!(
            caption.description(),
            "Not distinguishable (the 95 % interval of the difference over common seeds contains 0): topk and relu at p = 0.1, \
             p = 0.2. 1 of 5 comparisons have fewer than three common seeds, too few to tell."
        );
    }

    #[test]
    fn pairs_that_can_be_told_apart_are_said_to_be() {
        let mut pairs = Pairs::default();
        pairs.compare("", &[("a".into(), seeds(&[1.0, 2.0, 3.0])), ("b".into(), seeds(&[2.0, 3.1, 4.0]))]);
        let mut caption = Caption::default();
        pairs.caption(&mut caption);
        assert!(caption.description().starts_with("Every pair"), "{}", caption.description());
        let mut none = Caption::default();
        Pairs::default().caption(&mut none);
        assert_eq!(none.description(), "");
    }

    #[test]
    fn many_places_are_counted_and_one_needs_no_name() {
        let places: Vec<String> = (0..9).map(|i| i.to_string()).collect();
        assert_eq!(with_places("a and b", &places), "a and b at 0, 1, 2, 3, 4, 5 and 3 more");
        assert_eq!(with_places("a and b", &[String::new()]), "a and b");
        assert_eq!(words(&Levels::Numbers(vec![0.25, 3.0])), ["0.25", "3"]);
    }
}
