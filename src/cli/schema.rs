//! `tegum schema`: JSON Schema of the language.

use super::{Outcome, print};
use crate::spec::explain;

pub fn carry_out() -> Outcome {
    print(&format!("{:#}\n", explain::schema()))?;
    Ok(0)
}
