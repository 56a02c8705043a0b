//! Operations: one folder each, with its plain reference beside the vector code.

pub mod draw;
pub mod hidden;
