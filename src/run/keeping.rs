//! What a run keeps beside its rows.

use super::widths::Widths;
use crate::figure::FigureSpec;
use crate::plan::Plan;
use crate::spec::output::WeightsSection;

/// What the experiment has kept beside its rows: see [`PlanRecord::kept`].
pub fn kept(plan: &Plan) -> Vec<String> {
    let save = &plan.document.experiment.save;
    let weights = match kept_weights(plan) {
        WeightsSection::All => Some("weights=all"),
        WeightsSection::Best => Some("weights=best"),
        WeightsSection::Auto | WeightsSection::None => None,
    };
    let mut kept: Vec<String> = weights.map(str::to_owned).into_iter().collect();
    kept.extend(save.features.then(|| "features".to_owned()));
    kept.extend(save.samples.then(|| "samples".to_owned()));
    let every = save.trace.every;
    kept.extend((every > 0).then(|| format!("trace={every}")));
    kept.extend(save.trace.features.then(|| format!("snapshots={every}")));
    kept.sort();
    kept
}

/// Which weights the run keeps; never [`WeightsSection::Auto`].
pub fn kept_weights(plan: &Plan) -> WeightsSection {
    let experiment = &plan.document.experiment;
    match &experiment.save.weights {
        WeightsSection::Auto if Widths::of(&plan.document).is_some() => WeightsSection::All,
        WeightsSection::Auto if experiment.figures.iter().any(FigureSpec::needs_weights) => WeightsSection::Best,
        WeightsSection::Auto => WeightsSection::None,
        written => written.clone(),
    }
}
