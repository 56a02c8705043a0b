//! One operation each: signature, shapes, equation, and tests against plain loops.

pub mod optimizer;
