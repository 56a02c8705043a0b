//! One operation each: signature, shapes, equation, and tests against plain loops.

pub mod optimizer;
pub mod toy_loss;
pub mod toy_step;
