//! Tests of the whole program, through the binary and the library. One file, because every test binary links polars.

mod bad_inputs;
mod bits;
mod commands;
mod cuda;
mod determinism;
mod figures;
mod finite;
mod fuzz;
mod golden;
mod matrix;
mod mutation;
mod pipeline;
mod program;
mod schema;
mod specs;
mod supervisor;
mod train;
