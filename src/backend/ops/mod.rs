//! One operation each: equation, layout, vector form, and tests against plain loops.

pub mod activation;
pub mod batch_top;
pub mod dead;
pub mod dense;
pub mod draw;
pub mod entries;
pub mod finite_step;
pub mod fused;
pub mod hidden;
pub mod infer;
pub mod layout;
pub mod optimizer;
pub mod outer;
pub mod product;
pub mod pursuit;
pub mod rows;
pub mod screen;
pub mod select;
pub mod sparse;
pub mod toy_lanes;
pub mod toy_loss;
pub mod toy_step;
