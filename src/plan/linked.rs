//! From the sections `correlation` and `hierarchy` to what the data step takes, and the checks that only this shows.

use super::files::Files;
use crate::data::correlation::{Correlation, CorrelationError, Drawn, RandomCorrelation, RandomForm};
use crate::data::{Hierarchy, Rates};
use crate::spec::data::DataSection;
use crate::spec::kind::Reader;
use crate::spec::linked::{CorrelationSection, FormSection, RatesSection};
use crate::spec::node::Node;

/// The correlation of a world and seed. A matrix from a file stays in double precision: nothing of it is rounded.
///
/// # Errors
/// A file that cannot be read, or numbers that are no correlation.
pub fn correlation(section: &DataSection, seed: u64, files: &Files) -> Result<Option<Correlation>, String> {
    if let CorrelationSection::Matrix(path) = &section.correlation {
        let n = section.n_features;
        let rows = files.matrix(path, (n, n), "[n_features, n_features]")?;
        let numbers: Vec<f64> = rows.into_f64().iter().copied().collect();
        return Correlation::from_matrix(n, &numbers).map(Some).map_err(|error| format!("{path}: {error}"));
    }
    written(section, seed).map_err(|error| error.to_string())
}

/// The same where no file is asked for.
fn written(section: &DataSection, seed: u64) -> Result<Option<Correlation>, CorrelationError> {
    drawn(section, seed).map(|drawn| drawn.map(|drawn| drawn.correlation))
}

/// What a random correlation of a world and seed lost when it was made one; none where nothing had to be changed.
pub fn changed(section: &DataSection, seed: u64) -> Option<String> {
    // What is no correlation at all was complained of when the file was checked.
    drawn(section, seed).ok()??.changed
}

fn drawn(section: &DataSection, seed: u64) -> Result<Option<Drawn>, CorrelationError> {
    let n = section.n_features;
    match &section.correlation {
        CorrelationSection::None | CorrelationSection::Matrix(_) => Ok(None),
        CorrelationSection::Pairs(pairs) => {
            let correlation = Correlation::from_pairs(n, pairs.default, &pairs.list)?;
            Ok(Some(Drawn { correlation, changed: None }))
        }
        CorrelationSection::LowRank(s) => Correlation::low_rank(n, s.rank, s.scale, seed).map(Some),
        CorrelationSection::Random(s) => {
            let settings = RandomCorrelation {
                form: match s.form {
                    FormSection::Pairs => RandomForm::Pairs,
                    FormSection::Matrix => RandomForm::Matrix,
                },
                positive_ratio: s.positive,
                uncorrelated_ratio: s.uncorrelated,
                strength: s.strength,
            };
            Correlation::random(n, &settings, seed).map(Some)
        }
    }
}

/// Trees, the probabilities written at their nodes (feature and number), and how probabilities are read.
pub type Trees = (Hierarchy, Vec<(usize, f64)>, Rates);

/// The trees of a world and seed.
pub fn hierarchy(section: &DataSection, seed: u64) -> Option<Trees> {
    let written = section.hierarchy.as_ref()?;
    let rates = match written.rates {
        RatesSection::AsGiven => Rates::AsGiven,
        RatesSection::FirstOrder => Rates::FirstOrder,
        RatesSection::Exact => Rates::Exact,
        RatesSection::Conditional => Rates::Conditional,
    };
    let trees = written.trees(section.n_features, seed).expect("a checked file's trees are trees");
    Some((trees, written.probabilities(), rates))
}

/// Checks what only building shows: correlations that no normal vector has, rates that no probabilities give. Random curves, whose values depend
/// on the seed, are not looked at.
pub fn check(section: &DataSection, node: &Node, reader: &mut Reader) {
    if let Err(error) = written(section, 0) {
        let at = node.at(["correlation", section.correlation.key()]).or(node.get("correlation")).unwrap_or(node);
        let place = match (&error, at.get("list").unwrap_or(at)) {
            (CorrelationError::NoFeature { feature, .. } | CorrelationError::Itself { feature }, pairs) => {
                entry(pairs, &section.correlation, |(i, j, _)| i == *feature || j == *feature).unwrap_or(pairs).place
            }
            (CorrelationError::Twice { i, j } | CorrelationError::OutOfRange { i, j, .. }, pairs) => {
                let same = |(a, b, _)| (a, b) == (*i, *j) || (b, a) == (*i, *j);
                entry(pairs, &section.correlation, same).unwrap_or(pairs).place
            }
            (_, pairs) => pairs.place,
        };
        let help = match error {
            CorrelationError::NotPositive { least } => {
                // With a share s of every correlation the least eigenvalue is 1 - s (1 - least).
                let share = libm::floor(1000.0 / (1.0 - least)) / 1000.0;
                Some(format!("correlations of {share} of these sizes can be; a least eigenvalue of 0 is fine"))
            }
            _ => None,
        };
        reader.error(place, error.to_string(), help);
    }
    rates(section, node, reader);
}

/// The last pair for which `test` holds: of two that clash the later.
fn entry<'a>(
    pairs: &'a Node,
    section: &CorrelationSection,
    test: impl Fn((usize, usize, f64)) -> bool,
) -> Option<&'a Node> {
    let CorrelationSection::Pairs(given) = section else { return None };
    let index = given.list.iter().rposition(|pair| test(*pair))?;
    pairs.get(&index.to_string())
}

/// Rates that parents do not leave room for.
fn rates(section: &DataSection, node: &Node, reader: &mut Reader) {
    use crate::spec::curve::Curve;
    let Some((hierarchy, probabilities, Rates::Exact)) = hierarchy_of(section) else { return };
    if matches!(section.firing_probability, Curve::Random(_) | Curve::FoldedNormal(_) | Curve::TorchFoldedNormal(_)) {
        return;
    }
    let n = section.n_features;
    let mut asked = super::resolve::curve(&section.firing_probability).values(n, 0);
    probabilities.into_iter().for_each(|(feature, p)| asked[feature] = p);
    let place = node.at(["hierarchy", "rates"]).or(node.get("hierarchy")).unwrap_or(node).place;
    let help = "lower the children's probabilities, raise the parent's, or take `rates: conditional`, which reads them as shares of the parent's";
    for family in hierarchy.families() {
        let above = family.parent.map_or(1.0, |parent| asked[parent]);
        let parent = family.parent.map_or("what is always on".to_owned(), |parent| format!("its parent {parent}"));
        // Written so that sums that meet the bound but for rounding pass.
        let room = above * (1.0 + 1e-9);
        if let Some(&child) = family.members.iter().find(|&&i| asked[i] > room) {
            let message = format!("feature {child} cannot fire at rate {}: {parent} fires at {above}", asked[child]);
            return reader.error(place, message, Some(help.to_owned()));
        }
        let total: f64 = family.members.iter().map(|&i| asked[i]).sum();
        if family.exclusive && total > room {
            let message = format!(
                "features {:?} exclude each other and cannot fire at rates of sum {total}: {} fires at {above}",
                family.members,
                parent.trim_start_matches("its ")
            );
            return reader.error(place, message, Some(help.to_owned()));
        }
    }
}

fn hierarchy_of(section: &DataSection) -> Option<Trees> {
    // Trees that are none have been complained of already.
    section.hierarchy.as_ref()?.trees(section.n_features, 0).ok()?;
    hierarchy(section, 0)
}
