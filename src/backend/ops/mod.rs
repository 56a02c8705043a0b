//! Operations: one folder or file each, with its signature, shapes and equation, and its plain reference beside the vector
//! code.

pub mod draw;
pub mod hidden;
pub mod optimizer;
pub mod toy_loss;
pub mod toy_step;
